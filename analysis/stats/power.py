"""The power of the whole rule of the verdict, by simulation from the players' differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analysis.stats.contrast import Contrast
from sousaphone.config import FEW_PLAYERS
from sousaphone.scores import LEVEL, Z

POWER = 0.8  # for which the number of players needed is computed
_MOST_PLAYERS = 1_000  # considered as the number of players needed
_PATTERNS = 2**10  # sign patterns of one sign-flip test at most; all of them up to 11 players


def power(tests: Sequence[tuple[Contrast, float]], players: int | None = None) -> float:
    """Return the probability that all contrasts of a sweep like this one are significantly positive.

    The differences of players are drawn from a normal distribution with the observed covariance, rounded to whole
    clips, and the means of seeds from one with the observed variance; each draw is then tested as `contrast` does.

    Args:
        tests: contrasts on the same players, and the difference (a fraction) that is assumed to be true for each.
        players: their number if it is not the observed one; each has as many clips as an observed player.
    """
    observed = pd.concat([each.by_player for each, _ in tests], axis=1, join="inner").to_numpy()  # [players, tests]
    residuals = (observed - observed.mean(axis=0)) / np.sqrt(len(observed) - 1)
    _, scales, axes = np.linalg.svd(residuals, full_matrices=False)
    players = players or len(observed)
    draws = int(np.clip(40_000 // players, 400, 2_000))
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((draws, players, len(scales))) @ (scales[:, None] * axes)  # [draws, players, tests]
    if not any(each.seed_parts for each, _ in tests):
        # The variance itself is estimated from few players. With seeds, their interaction with players, which counts
        # twice (see `contrast`), already leads to a power below the realised one.
        degrees = len(observed) - 1
        drawn *= np.sqrt(degrees / rng.chisquare(degrees, (draws, 1, 1)))
    signs = _signs(players, rng)
    found = np.ones(draws, dtype=bool)
    for (each, true), noise in zip(tests, np.moveaxis(drawn, 2, 0), strict=True):
        step = 1 / (each.clips_each * max(each.seeds))
        differences = np.round((true + noise) / step) * step  # [draws, players]
        mean, variance = differences.mean(axis=1), differences.var(axis=1, ddof=1) / players
        weighted = variance**2 / (players - 1)
        for part, df in each.seed_parts:
            mean = mean + rng.normal(0, np.sqrt(part), draws)
            estimated = part * rng.chisquare(df, draws) / df
            variance, weighted = variance + estimated, weighted + estimated**2 / df
        df = np.divide(variance**2, weighted, out=np.full(draws, players - 1.0), where=weighted > 0)
        found &= mean > stats.t.ppf((1 + LEVEL) / 2, df) * np.sqrt(variance)
        found &= players * each.clips_each * mean**2 > Z**2 * np.maximum(each.discordant, np.abs(mean))
        sums = differences @ signs.T  # [draws, patterns]
        tail = np.abs(sums) >= np.abs(differences.sum(axis=1, keepdims=True)) - step / 2
        found &= tail.mean(axis=1) <= 1 - LEVEL
    return float(found.mean())


def players_for(tests: Sequence[tuple[Contrast, float]]) -> int | None:
    """Return the fewest players, FEW_PLAYERS at least, with the power POWER; None if no realistic number is enough."""
    low, high = FEW_PLAYERS - 1, FEW_PLAYERS
    while power(tests, high) < POWER:
        if high >= _MOST_PLAYERS:
            return None
        low, high = high, min(_MOST_PLAYERS, high + max(1, high // 4))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(tests, middle) >= POWER else (middle, high)
    return high


def _signs(players: int, rng: np.random.Generator) -> np.ndarray:
    """Sign patterns [patterns, players] with a first sign of 1: all, or random ones and the observed one."""
    if 2 ** (players - 1) <= _PATTERNS:
        bits = np.arange(2 ** (players - 1))[:, None] >> np.arange(players) & 1
        return np.asarray(1.0 - 2.0 * bits)
    signs = rng.choice((-1.0, 1.0), (_PATTERNS, players))
    signs[0] = 1.0
    return signs
