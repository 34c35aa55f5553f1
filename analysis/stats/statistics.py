"""Confidence intervals and significance tests of accuracy differences: pure functions of which answers are correct.

The unit of observation is the player, since clips of one player are correlated. A test over clips (McNemar) or a
percentile bootstrap over a dozen players has a false positive rate far above its nominal level. Sources: t interval and
Welch-Satterthwaite degrees of freedom, any textbook; sign-flip test, R. A. Fisher, The Design of Experiments (1935),
chapter 3; S. Holm, "A simple sequentially rejective multiple test procedure" (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95  # confidence level
POWER = 0.8  # for which the numbers of players needed are computed
ENUMERATED = 20  # up to so many players, all sign patterns are enumerated
_DRAWS, _CHUNK = 2**17, 2**14  # random sign patterns for more players; patterns per chunk
SEEDS_FOR_SPREAD = 3  # fewest seeds of an arm from which the variance between seeds is estimated
_MOST_PLAYERS = 100_000


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return (mean, low, high), the 95 % t interval of the mean; the limits are NaN for fewer than two values."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the sign-flip test that the differences are symmetric around zero.

    Exact up to ENUMERATED differences; for more, estimated from a fixed set of random sign patterns, which includes the
    observed pattern.
    """
    # scipy.stats.permutation_test misses ties that differ by rounding (thirds that sum to zero), takes 4 s for 20
    # players, and for more doubles the smaller tail of its draws.
    array = np.asarray(differences, dtype=float)
    observed = abs(array.sum())
    tolerance = 1e-6 * float(np.abs(array).sum())
    if len(array) <= ENUMERATED:
        hits, total = 0, 2 ** len(array)
        for start in range(0, total, _CHUNK):
            patterns = np.arange(start, min(start + _CHUNK, total))[:, None] >> np.arange(len(array)) & 1
            sums = np.abs((1.0 - 2.0 * patterns) @ array)
            hits += int((sums >= observed - tolerance).sum())
        return hits / total
    rng = np.random.default_rng(0)
    hits = 1
    for _ in range(_DRAWS // _CHUNK):
        flipped = rng.integers(0, 2, (_CHUNK, len(array)), dtype=np.int8).astype(np.float32)
        sums = np.abs(array.sum() - 2 * (flipped @ array.astype(np.float32)))
        hits += int((sums >= observed - tolerance).sum())
    return hits / (1 + _DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's method, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Contrast:
    """One arm's accuracy minus another's on the same clips, as a fraction; all players have the same weight."""

    difference: float
    low: float  # lower end of the 95 % interval
    high: float  # upper end of the 95 % interval
    error: float  # standard error of `difference`
    df: float  # degrees of freedom of `error`
    p_flip: float  # p value of the sign-flip test over players
    by_player: pd.Series  # the difference of each player, averaged over seeds
    clips: int  # number of test clips
    seeds: tuple[int, int]  # number of seeds of each arm
    between: float  # variance of the true differences between players
    within: float  # variance of a clip's difference around its player's mean
    # (variance, degrees of freedom) that the seeds of each arm contribute to error²; empty with too few seeds.
    seed_parts: Sequence[tuple[float, float]]

    @property
    def players(self) -> int:
        return len(self.by_player)

    @property
    def significant(self) -> bool:
        """Whether both the interval and the sign-flip test exclude zero."""
        return bool((self.low > 0 or self.high < 0) and self.p_flip <= 1 - LEVEL)

    @property
    def p(self) -> float:
        """The larger p value of the t test and the sign-flip test."""
        if self.error == 0:
            return self.p_flip if self.difference else 1.0
        return max(self.p_flip, float(2 * stats.t.sf(abs(self.difference) / self.error, self.df)))

    def power(self, true: float) -> float:
        """Return the power of sweeps like this one to detect a true difference of this size (fraction, > 0)."""
        return _power(true, self.error, self.df)

    def players_for(self, size: float, clips_each: float) -> int | None:
        """Return how many players, with so many clips each, are needed to detect a difference of this size.

        None if no number of players is enough, because the variance between seeds alone is too large.
        """
        return self._players(lambda error, df: _power(size, error, df) >= POWER, clips_each)

    def players_for_equivalence(self, size: float, clips_each: float) -> int | None:
        """Return how many players are needed to show that two equal arms differ by at most this size; None as above."""
        z = stats.norm.ppf((1 + POWER) / 2)
        return self._players(lambda error, df: error * (stats.t.ppf((1 + LEVEL) / 2, df) + z) <= size, clips_each)

    def _players(self, enough: Callable[[float, float], bool], clips_each: float) -> int | None:
        """Return the fewest players for which `enough(standard error, degrees of freedom)` holds.

        The search starts from few players because `enough` is not monotonic: with more players, more of the error is
        due to the few seeds, which leaves fewer degrees of freedom.
        """
        variance = self.between + self.within / clips_each

        def suffices(players: int) -> bool:
            return enough(*_error([(variance / players, players - 1.0), *self.seed_parts]))

        low, high = 1, 2  # a single player is not enough: it has no variance
        while not suffices(high):
            if high >= _MOST_PLAYERS:
                return None
            low, high = high, high + max(1, high // 10)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if suffices(middle) else (middle, high)
        return high


def contrast(first: pd.DataFrame, second: pd.DataFrame, players: pd.Series) -> Contrast:
    """Compare two arms on the clips that both were scored on.

    Args:
        first, second: whether each clip is classified correctly; one row per clip (index: sample_id), one column per
            seed.
        players: the player of each clip, with the same index.

    Raises:
        ValueError: fewer than two players in common.
    """
    clips = first.index.intersection(second.index)
    own = players.loc[clips]
    by_clip = first.loc[clips].astype(float).mean(axis=1) - second.loc[clips].astype(float).mean(axis=1)
    groups = by_clip.groupby(own)
    by_player, counts = groups.mean(), groups.size()
    number = len(by_player)
    if number < 2:
        raise ValueError(f"{number} players in common; at least 2 are needed")
    variance = float(by_player.var(ddof=1))
    within = float(groups.var(ddof=1).mean()) if (counts > 1).any() else 0.0
    seeds = (first.shape[1], second.shape[1])
    # The variance of the mean over players from seed to seed. The interaction of seeds and players is counted both here
    # and between players. This is conservative, and it leaves more degrees of freedom, hence more power, than an
    # analysis of variance that subtracts the interaction.
    by_seed = [arm.loc[clips].astype(float).groupby(own).mean().mean() for arm in (first, second)]
    seed_parts = [(float(means.var(ddof=1)) / len(means), len(means) - 1.0) for means in by_seed]
    if min(seeds) < SEEDS_FOR_SPREAD:
        seed_parts = []
    error, df = _error([(variance / number, number - 1.0), *seed_parts])
    difference = float(by_player.mean())
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    return Contrast(
        difference=difference,
        low=difference - half,
        high=difference + half,
        error=error,
        df=df,
        p_flip=sign_flip_p(by_player.to_numpy()),
        by_player=by_player,
        clips=len(clips),
        seeds=seeds,
        between=max(0.0, variance - float((within / counts).mean())),
        within=within,
        seed_parts=seed_parts,
    )


def _error(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error and the degrees of freedom (Welch-Satterthwaite) of a sum of independent parts.

    `parts` are (variance, degrees of freedom); if all variances are 0, the first degrees of freedom are returned.
    """
    total = sum(variance for variance, _ in parts)
    weighted = sum(variance**2 / df for variance, df in parts)
    return math.sqrt(total), total**2 / weighted if weighted > 0 else parts[0][1]


def _power(true: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0
    critical = stats.t.ppf((1 + LEVEL) / 2, df)
    power = float(stats.nct.sf(critical, df, true / error))
    return 1.0 if math.isnan(power) else power  # scipy returns NaN far in the tail, where the power is 1
