"""Scores of labelled recordings agree with independent computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from statsmodels.stats.proportion import proportion_confint

from analysis.stats.calibration import calibration
from analysis.stats.slices import accuracy_of
from sousaphone import load
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.deploy.evaluation import evaluate, results, summary
from tests.data.forms import as_recordings, as_shards


def test_summary_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(6, 0.3), 200)
    labels = np.where(rng.random(200) < 0.6, scores.argmax(1), rng.integers(0, 6, 200))
    players = [f"p{number}" for number in rng.integers(0, 9, 200)]
    found = summary(scores, labels, players)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, scores.argmax(1), average="macro"))
    each = [np.mean((scores.argmax(1) == labels)[np.array(players) == name]) for name in sorted(set(players))]
    assert found["player_accuracy"] == pytest.approx(np.mean(each))
    low, high = found["player_accuracy_interval"]
    # 2.306: quantile .975 of Student's t with 8 degrees of freedom.
    half = 2.306 * np.std(each, ddof=1) / 3
    # The wider of it and Wilson's interval over clips.
    fewest, most = proportion_confint(200 * np.mean(each), 200, method="wilson")
    assert (low, high) == pytest.approx((min(np.mean(each) - half, fewest), max(np.mean(each) + half, most)), rel=1e-3)
    assert found["players"] == 9


def test_equal_players_do_not_make_an_accuracy_certain() -> None:
    found = summary(np.eye(4)[[0, 1, 2, 3]], np.arange(4), ["a", "b", "c", "d"])
    low, high = found["player_accuracy_interval"]
    assert low < 0.6
    assert high == 1.0


def test_scores_are_those_of_the_report() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(120, 40)), rng.integers(0, 40, 120)
    logits[np.arange(120), labels] += 3
    players = np.array([f"p{number}" for number in rng.integers(0, 8, 120)])
    found = summary(softmax(logits, axis=1), labels, players.tolist())
    assert found["ece"] == pytest.approx(calibration(logits, labels, players).ece)
    rows = pd.DataFrame({"sample_id": range(120), "player": players, "correct": logits.argmax(1) == labels})
    reported = accuracy_of(rows)
    assert found["player_accuracy"] == pytest.approx(reported.accuracy)
    assert found["player_accuracy_interval"] == pytest.approx([reported.low, reported.high])


def test_two_players_have_no_interval() -> None:
    found = summary(np.eye(4), np.arange(4), ["a", "a", "b", "b"])
    assert found["player_accuracy_interval"] is None
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize("form", ["sousa", "shards", "folder"])
def test_every_form_of_data_gives_the_same_scores(model: Path, small_sousa: Path, tmp_path: Path, form: str) -> None:
    predictor = load(model, device="cpu")
    data = {
        "sousa": lambda: small_sousa,
        "shards": lambda: as_shards(small_sousa, tmp_path / "shards"),
        "folder": lambda: as_recordings(small_sousa, tmp_path / "folder", players=True),
    }[form]()
    rows = list(evaluate(predictor, read_dataset(data, only_test=True)))
    found = results(predictor, rows)
    expected = results(predictor, list(evaluate(predictor, read_dataset(small_sousa, only_test=True))))
    for way in ("averaged", "centre_window"):
        assert found[way].pop("player_accuracy_interval") == pytest.approx(
            expected[way].pop("player_accuracy_interval")
        )
        assert found[way] == pytest.approx(expected[way])
    assert found["averaged"]["clips"] == 24
    assert found["averaged"]["players"] == 4
    labels = [row["rudiment"] for row in rows]
    named = [predictor.classes[int(row["averaged"].argmax())] for row in rows]
    assert found["confusion"] == confusion_matrix(labels, named, labels=list(predictor.classes)).tolist()
