"""How sure one may be of a difference: pure functions of who got which clip right.

The unit is the player. Clips of one player are alike, so they count as one observation of how well a model hears that
player; a test over clips (McNemar) or a percentile bootstrap over a dozen players finds differences where there are
none far more often than it says. Sources: t interval and Welch-Satterthwaite degrees of freedom, any textbook;
sign-flip test, R. A. Fisher, The Design of Experiments (1935), chapter 3; S. Holm, "A simple sequentially rejective
multiple test procedure" (1979).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
ENUMERATED = 20  # players up to which every pattern of signs is looked at
_DRAWS, _CHUNK = 2**17, 2**14  # of patterns, for more players; of them, at a time
SEEDS_FOR_SPREAD = 3  # of an arm, from which on the spread between its seeds is estimated
_MOST_PLAYERS = 100_000


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float, float]:
    """(mean, low, high): the t interval of the mean with N - 1 degrees of freedom; NaN limits for fewer than two."""
    array = np.asarray(values, dtype=float)
    mean = float(array.mean()) if len(array) else math.nan
    if len(array) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p that signs as lopsided as these come about by chance, the sizes being what they are.

    Exact up to ENUMERATED differences; beyond, from a fixed set of random patterns (the observed one counted in).
    """
    # Not scipy.stats.permutation_test: it misses ties that rounding has parted (thirds that sum to zero), takes 4 s for
    # 20 players, and for more doubles the smaller tail of its draws.
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
    """Adjusted p values in the order given: each may be held against the level as if it stood alone."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass(frozen=True)
class Contrast:
    """One arm's accuracy minus another's on the same clips, in fractions; every player weighs the same."""

    difference: float
    low: float  # lower end of the 95 % interval
    high: float  # its upper end
    error: float  # standard error of `difference`
    df: float  # degrees of freedom of `error`
    p_flip: float  # of the sign-flip test over players
    by_player: pd.Series  # the difference of each player, averaged over seeds
    clips: int  # test clips, of all players
    seeds: tuple[int, int]  # of either arm
    between: float  # variance of the true differences between players
    within: float  # of one clip's difference around its player's
    # What the choice of seeds adds to error², of either arm, with its degrees of freedom; empty where their spread is
    # not known, and then not in `error`.
    seed_parts: Sequence[tuple[float, float]]

    @property
    def players(self) -> int:
        return len(self.by_player)

    @property
    def spread_known(self) -> bool:
        return bool(self.seed_parts)

    @property
    def significant(self) -> bool:
        """Whether interval and sign-flip test agree that it is not zero."""
        return bool((self.low > 0 or self.high < 0) and self.p_flip <= 1 - LEVEL)

    @property
    def p(self) -> float:
        """The larger of both tests' p values, so that it is small only where both agree."""
        if self.error == 0:
            return self.p_flip if self.difference else 1.0
        return max(self.p_flip, float(2 * stats.t.sf(abs(self.difference) / self.error, self.df)))

    def power(self, true: float) -> float:
        """How often a true difference of this size (fraction, > 0) would be found by sweeps like this one."""
        return _power(true, self.error, self.df)

    def players_for(self, true: float, clips_each: float, power: float = 0.8) -> int | None:
        """Players it takes to find this true difference with this power, each heard on so many clips.

        None where no number of players would do, because the spread between seeds alone hides it.
        """
        return self._players(lambda error, df: _power(true, error, df) >= power, clips_each)

    def players_for_equivalence(self, margin: float, clips_each: float, power: float = 0.8) -> int | None:
        """Players it takes to see that two equal arms differ by no more than the margin; None as above."""

        def narrow(error: float, df: float) -> bool:
            return bool(error * (stats.t.ppf((1 + LEVEL) / 2, df) + stats.norm.ppf((1 + power) / 2)) <= margin)

        return self._players(narrow, clips_each)

    def _players(self, enough: Callable[[float, float], bool], clips_each: float) -> int | None:
        """The fewest players with which `enough(standard error, degrees of freedom)`.

        They are looked for from below: the more players, the more of the error is due to the few seeds, and the fewer
        degrees of freedom it has, so that what is enough need not stay so.
        """
        variance = self.between + self.within / clips_each

        def there(players: int) -> bool:
            return enough(*_error([(variance / players, players - 1.0), *self.seed_parts]))

        low, high = 1, 2  # a single player is not enough: it has no variance
        while not there(high):
            if high >= _MOST_PLAYERS:
                return None
            low, high = high, high + max(1, high // 10)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if there(middle) else (middle, high)
        return high


def contrast(first: pd.DataFrame, second: pd.DataFrame, players: pd.Series) -> Contrast:
    """Compare two arms on the clips that both were scored on.

    Args:
        first, second: whether each clip was named rightly, a row a clip (index: sample_id), a column a seed.
        players: the player of each clip, same index.

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
        raise ValueError(f"{number} players in common; a difference needs two at least")
    variance = float(by_player.var(ddof=1))
    inside = float(groups.var(ddof=1).mean()) if (counts > 1).any() else 0.0
    between = max(0.0, variance - float((inside / counts).mean()))
    seeds = (first.shape[1], second.shape[1])
    # What the mean over players varies by from seed to seed, another draw of seeds would vary by. How seeds happen to
    # do with single players is counted here and between players: that errs to the safe side, and leaves more degrees
    # of freedom than an analysis of variance that takes it off again, which finds less.
    by_seed = [arm.loc[clips].astype(float).groupby(own).mean().mean() for arm in (first, second)]
    spreads = [float(means.var(ddof=1)) / len(means) for means in by_seed] if min(seeds) >= SEEDS_FOR_SPREAD else []
    seed_parts = [(spread, count - 1.0) for spread, count in zip(spreads, seeds, strict=False)]
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
        between=between,
        within=inside,
        seed_parts=seed_parts,
    )


def _error(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The standard error that independent variances add up to, and its degrees of freedom (Welch-Satterthwaite); those
    of the first where nothing varies.

    Args:
        parts: (variance, degrees of freedom).
    """
    total = sum(part for part, _ in parts)
    spent = sum(part**2 / df for part, df in parts)
    return math.sqrt(total), total**2 / spent if spent > 0 else parts[0][1]


def _power(true: float, error: float, df: float) -> float:
    if error == 0:
        return 1.0
    critical = stats.t.ppf((1 + LEVEL) / 2, df)
    found = float(stats.nct.sf(critical, df, true / error))
    # scipy gives NaN far out in the tail, where the difference is found for certain.
    return 1.0 if math.isnan(found) else found
