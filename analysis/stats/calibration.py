"""Calibration: does a predicted probability state how often the prediction is correct?

Sources: C. Guo et al., "On Calibration of Modern Neural Networks" (2017), for temperature scaling; G. W. Brier,
"Verification of forecasts expressed in terms of probability" (1950). The expected calibration error (ECE) is in
`sousaphone.scores`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.special import softmax

from sousaphone.rudiments import SLUGS
from sousaphone.runs.predictions import AVERAGED_LOGITS, LOGITS
from sousaphone.scores import FEWEST_PLAYERS, LEVEL, calibration_error, confidence_bins

Floats = npt.NDArray[np.float64]
_DRAWS, _SEED = 1_000, 0  # of the bootstrap over players
_TEMPERATURES = (1e-3, 1e3)  # others are not from a trial
# The two ways of scoring a clip: columns of its logits, and the trial's metric with their temperature.
WAYS = {"centre window": (LOGITS, "temperature"), "whole clip": (AVERAGED_LOGITS, "averaged_temperature")}


@dataclass(frozen=True)
class Calibration:
    """The calibration of N test clips at one temperature."""

    confidence: Floats  # [bins] mean probability of the predicted class in each bin, ascending
    accuracy: Floats  # [bins] fraction of correct clips
    ece: float  # see `calibration_error`
    low: float  # 95 % interval of `ece` over players; NaN for fewer than FEWEST_PLAYERS
    high: float
    brier: float  # mean squared distance of the probabilities from the true class, 0 to 2


def calibration(logits: Floats, labels: npt.NDArray[np.int64], players: npt.NDArray[np.str_]) -> Calibration:
    """Return the calibration of logits [N, C] (already divided by the temperature), N at least 1.

    The interval is `ece` ± the t quantile times the standard deviation of a bootstrap over players, in which the bins
    stay those of all clips. (The ECE is never negative, so with few clips it exceeds that of many clips, and those of
    the bootstrap exceed both: their percentiles may exclude it.)
    """
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of = confidence_bins(confidence)
    names, player_of = np.unique(players, return_inverse=True)
    shape = (3, len(names), bin_of.max() + 1)
    totals = np.zeros(shape)  # clips, their confidence and correct clips, by player and bin
    for values, sums in zip((np.ones(len(labels)), confidence, correct), totals, strict=True):
        np.add.at(sums, (player_of, bin_of), values)
    clips, expected, right = totals.sum(axis=1)
    ece, low, high = calibration_error(confidence, correct), math.nan, math.nan
    if len(names) >= FEWEST_PLAYERS:
        drawn = np.random.default_rng(_SEED).multinomial(len(names), np.full(len(names), 1 / len(names)), _DRAWS)
        counts, sums, hits = np.einsum("dp,vpb->vdb", drawn.astype(float), totals)
        spread = (np.abs(sums - hits).sum(axis=1) / counts.sum(axis=1)).std(ddof=1)
        half = float(stats.t.ppf((1 + LEVEL) / 2, len(names) - 1) * spread)
        low, high = max(0.0, ece - half), min(1.0, ece + half)
    truth = np.eye(logits.shape[1])[labels]
    return Calibration(
        confidence=expected / clips,
        accuracy=right / clips,
        ece=ece,
        low=low,
        high=high,
        brier=float(((probabilities - truth) ** 2).sum(axis=1).mean()),
    )


@dataclass(frozen=True)
class Scaling:
    """The calibration of a trial before and after scaling with its temperature."""

    temperature: float
    before: Calibration
    after: Calibration


def scaling(rows: pd.DataFrame, metrics: Mapping[str, float], way: str) -> Scaling | None:
    """Return the scaling of one way of `WAYS`; None if the trial lacks its temperature or logits, as in older runs.

    `rows` are a trial's test predictions with logits, and `metrics` those of its last epoch.
    """
    names, metric = WAYS[way]
    temperature = metrics.get(metric, math.nan)
    if not (len(rows) and set(names) <= set(rows) and _TEMPERATURES[0] <= temperature <= _TEMPERATURES[1]):
        return None
    logits = rows[names].to_numpy(np.float64)
    if not np.isfinite(logits).all():
        return None
    labels = pd.Index(SLUGS).get_indexer(rows.rudiment)
    players = rows.player.astype(str).to_numpy()
    before, after = (calibration(logits / divisor, labels, players) for divisor in (1.0, temperature))
    return Scaling(temperature, before, after)
