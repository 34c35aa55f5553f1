"""Scores in the report, `sousaphone evaluate` and model cards: the interval of an accuracy, and the calibration error.

The unit of observation is the player, since clips of one player are correlated. A t interval over players alone has
none of the uncertainty of few clips (equal players would give an interval of width 0), therefore the interval of an
accuracy is the wider of it and Wilson's over clips. Sources: E. B. Wilson, "Probable inference, the law of succession,
and statistical inference" (1927); M. P. Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning"
(2015), for the expected calibration error (ECE), here with bins of equal mass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95  # confidence level
FEWEST_PLAYERS = 3  # needed for an interval
BINS = 10  # of the calibration error; fewer if there are fewer clips
Z = float(stats.norm.ppf((1 + LEVEL) / 2))


def mean_interval(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return (mean, low, high), the 95 % t interval of the mean; the limits are NaN for fewer than two values."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def wilson_interval(fraction: float, number: float) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion of `number` (> 0) independent clips."""
    extra = Z**2 / number
    half = math.sqrt(extra * fraction * (1 - fraction) + extra**2 / 4)
    return (fraction + extra / 2 - half) / (1 + extra), (fraction + extra / 2 + half) / (1 + extra)


def accuracy_interval(players: npt.NDArray[np.float64], clips: npt.NDArray[np.int64]) -> tuple[float, float, float]:
    """Return (mean, low, high) of the players' accuracies [P], each on its number of clips [P]: the wider of the 95 % t
    interval over players and Wilson's over clips. With unequal numbers, the mean over players is as precise as one of
    fewer clips: P times the harmonic mean of the numbers. The limits are NaN for fewer than FEWEST_PLAYERS, and may be
    outside 0 to 1."""
    mean, low, high = mean_interval(players)
    if len(players) < FEWEST_PLAYERS:
        return mean, math.nan, math.nan
    fewest, most = wilson_interval(mean, len(players) ** 2 / float((1 / clips).sum()))
    return mean, min(low, fewest), max(high, most)


def confidence_bins(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the bin [N] of each clip: clips are sorted by confidence [N] into at most BINS bins of about equal
    numbers, those of equal confidence into the same bin."""
    places = stats.rankdata(confidence) - 1  # of equal ones their mean
    ends = np.cumsum([len(part) for part in np.array_split(places, min(BINS, len(places)))])
    return np.unique(np.searchsorted(ends, places, side="right"), return_inverse=True)[1]


def calibration_error(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Return the ECE of clips with these confidences [N]: the mean |confidence - accuracy| over `confidence_bins`,
    weighted by clips."""
    gaps = np.bincount(confidence_bins(confidence), confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))
