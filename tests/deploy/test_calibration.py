"""Thresholds of 'undecided': chosen on validation, with the coverage and the error that they have there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sousaphone.deploy.calibration import DEFAULT_ERROR, calibrated, probabilities, read_predictions, thresholds
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS

CLIPS = 400


def validation(tmp_path: Path, averaged: bool = True, **changes: object) -> Path:
    """Logits whose clips are correct more often at a higher confidence."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(SLUGS), CLIPS)
    logits = rng.normal(0, 1, (CLIPS, len(SLUGS)))
    logits[np.arange(CLIPS), labels] += rng.uniform(0, 8, CLIPS)
    table = pd.DataFrame({"sample_id": map(str, range(CLIPS)), "player": "a", "rudiment": np.array(SLUGS)[labels]})
    ways = ("logit_", "averaged_logit_") if averaged else ("logit_",)
    columns = {f"{way}{slug}": logits[:, label] for way in ways for label, slug in enumerate(SLUGS)}
    table.assign(**columns).assign(**changes).to_parquet(tmp_path / "predictions_val.parquet")
    return tmp_path / "predictions_val.parquet"


def test_thresholds_have_the_measured_coverage_and_error(tmp_path: Path) -> None:
    rows = read_predictions(validation(tmp_path))
    assert rows.averaged is not None
    found = calibrated(1.5, 1.3, [(rows, 1.3)])
    assert found.thresholds is not None
    scores = probabilities(rows.averaged, 1.3)
    wrong = scores.argmax(1) != rows.labels
    for each in found.thresholds:
        answered = scores.max(1) >= each.confidence
        assert answered.mean() == pytest.approx(each.coverage)
        assert wrong[answered].mean() == pytest.approx(each.error)
        assert each.error <= each.most_error < wrong.mean()
        # A lower threshold would let too many wrong answers pass.
        lower = scores.max(1) >= np.sort(scores.max(1)[~answered])[-1]
        assert wrong[lower].mean() > each.most_error
    assert [each.coverage for each in found.thresholds] == sorted(each.coverage for each in found.thresholds)
    assert found.undecided_below == next(t.confidence for t in found.thresholds if t.most_error == DEFAULT_ERROR)


def test_model_that_is_always_right_answers_always() -> None:
    for each in thresholds(np.eye(5)[[0, 1, 2, 3, 4]] * 0.5 + 0.1, np.arange(5)):
        assert (each.confidence, each.coverage, each.error) == (0.0, 1.0, 0.0)


def test_model_that_is_always_wrong_never_answers() -> None:
    for each in thresholds(np.eye(5) * 0.5 + 0.1, np.arange(5)[::-1] + np.array([0, 0, 1, 0, 0])):
        assert (each.confidence, each.coverage, each.error) == (1.0, 0.0, None)


def test_clips_of_equal_confidence_are_on_the_same_side() -> None:
    scores = np.full((40, 2), 0.5) + np.array([0.25, -0.25])
    labels = np.array([0] * 30 + [1] * 10)
    assert {each.coverage for each in thresholds(scores, labels)} == {0.0}


def test_run_without_averaged_logits_has_no_thresholds(tmp_path: Path) -> None:
    rows = read_predictions(validation(tmp_path, averaged=False))
    assert rows.averaged is None
    assert calibrated(None, None, [(rows, 1.0)]).thresholds is None
    assert calibrated(None, None, None).undecided_below is None


@pytest.mark.parametrize("changes", [{"rudiment": "waltz"}, {"logit_flam": np.nan}, {"logit_flam": "x"}])
def test_damaged_predictions_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"predictions_val\.parquet"):
        read_predictions(validation(tmp_path, **changes))


@pytest.mark.parametrize("change", ["empty", "double"])
def test_tables_without_rows_or_with_double_columns_are_refused(tmp_path: Path, change: str) -> None:
    path = validation(tmp_path)
    table = pq.read_table(path)
    changed = {"empty": table.slice(0, 0), "double": table.append_column("logit_flam", table["logit_drag"])}
    pq.write_table(changed[change], path)
    with pytest.raises(UserError, match=r"predictions_val\.parquet"):
        read_predictions(path)


def test_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1" * 10)
    with pytest.raises(UserError, match=r"predictions\.parquet"):
        read_predictions(tmp_path / "predictions.parquet")
