"""Calibration: ECE and Brier score agree with their definitions, and temperature scaling repairs a planted error."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from analysis.stats.calibration import WAYS, calibration, scaling
from sousaphone.rudiments import SLUGS
from sousaphone.runs.predictions import LOGITS
from sousaphone.scores import BINS


def made_up(clips: int, players: int = 6, sharpness: float = 1.0, seed: int = 0, classes: int = 40):
    """Logits that are calibrated if divided by `sharpness`, labels, and players."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (clips, classes))
    labels = np.array([rng.choice(classes, p=own) for own in softmax(logits, axis=1)])
    return sharpness * logits, labels, np.array([f"p{i % players}" for i in range(clips)])


def plain_ece(logits: np.ndarray, labels: np.ndarray) -> float:
    """ECE clip by clip, in bins of the sorted clips."""
    found = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        exponentials = [math.exp(value - max(row)) for value in row]
        best = row.index(max(row))
        found.append((exponentials[best] / sum(exponentials), best == label))
    found.sort(key=lambda pair: pair[0])
    (size, extra), total, start = divmod(len(found), min(BINS, len(found))), 0.0, 0
    for number in range(min(BINS, len(found))):
        own = found[start : start + size + (number < extra)]
        start += len(own)
        total += abs(sum(p for p, _ in own) - sum(right for _, right in own))
    return total / len(found)


@pytest.mark.parametrize("clips", [1, 7, 10, 103, 1_000])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_ece_and_brier_agree_with_their_definitions(clips: int, sharpness: float) -> None:
    logits, labels, players = made_up(clips, sharpness=sharpness)
    found = calibration(logits, labels, players)
    assert found.ece == pytest.approx(plain_ece(logits, labels))
    errors = [
        sum((p - (c == label)) ** 2 for c, p in enumerate(softmax(row)))
        for row, label in zip(logits, labels, strict=True)
    ]
    assert found.brier == pytest.approx(sum(errors) / clips)
    assert len(found.confidence) == min(BINS, clips)
    assert (np.diff(found.confidence) >= 0).all()


def test_temperature_repairs_a_model_that_is_too_confident() -> None:
    logits, labels, players = made_up(4_000, sharpness=3.0)
    before, after = calibration(logits, labels, players), calibration(logits / 3, labels, players)
    assert before.ece > 0.2 > 0.03 > after.ece
    assert after.brier < before.brier
    assert (before.confidence[-5:] > before.accuracy[-5:]).all()


def test_interval_is_over_players_and_reproducible() -> None:
    logits, labels, players = made_up(1_200, players=12, sharpness=2.0)
    found = calibration(logits, labels, players)
    assert found.low < found.ece < found.high
    again = calibration(logits, labels, players)
    assert (again.low, again.high) == (found.low, found.high)
    # One player whose clips are all wrong widens the interval, although the number of clips stays.
    wrong = np.where(players == "p3", (logits.argmax(1) + 1) % 40, labels)
    worse = calibration(logits, wrong, players)
    assert worse.high - worse.low > 1.5 * (found.high - found.low)
    few = calibration(logits, labels, np.array(["a", "b"] * 600))
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    assert few.ece == pytest.approx(found.ece)


@pytest.mark.parametrize("clips", [1, 2, 30])
@pytest.mark.parametrize("kind", ["all right", "all wrong", "one class", "equal logits", "huge logits"])
def test_degenerate_predictions_have_finite_scores(kind: str, clips: int) -> None:
    labels = np.arange(clips) % 40
    logits = 9.0 * np.eye(40)[labels]
    if kind == "all wrong":
        logits = np.roll(logits, 1, axis=1)
    elif kind == "one class":
        labels = np.zeros(clips, np.int64)
    elif kind == "equal logits":
        logits = np.zeros_like(logits)
    elif kind == "huge logits":
        logits = 1e6 * logits
    found = calibration(logits, labels, np.array([f"p{i}" for i in range(clips)]))
    assert 0 <= found.ece <= 1
    assert 0 <= found.brier <= 2
    assert np.isfinite([*found.confidence, *found.accuracy]).all()
    assert math.isnan(found.low) == (clips < 3)


def test_trial_without_temperature_or_logits_has_no_scaling() -> None:
    logits, labels, players = made_up(50)
    rows = pd.DataFrame(logits.astype(np.float32), columns=LOGITS)
    rows = rows.assign(player=players, rudiment=np.array(SLUGS)[labels])
    centre, whole = WAYS
    found = scaling(rows, {"temperature": 2.0, "averaged_temperature": 2.0}, centre)
    assert found is not None
    assert found.after.ece == calibration(rows[LOGITS].to_numpy() / 2.0, labels, players).ece != found.before.ece
    assert scaling(rows, {"averaged_temperature": 2.0}, whole) is None
    assert scaling(rows, {}, centre) is None
    for value in (0.0, -1.0, 1e30, math.nan):
        assert scaling(rows, {"temperature": value}, centre) is None
    assert scaling(rows.iloc[:0], {"temperature": 2.0}, centre) is None
    rows.loc[3, LOGITS[0]] = np.nan  # a trial of an older run among newer ones has no averaged logits
    assert scaling(rows, {"temperature": 2.0}, centre) is None
