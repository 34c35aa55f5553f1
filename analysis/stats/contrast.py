"""`contrast`: one arm's accuracy minus another's on the same clips, with its interval and tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.stats.statistics import TINY, sign_flip_p, tango_interval
from sousaphone.scores import LEVEL

_DISTINCT = 0.9  # quantile of F from which two arms vary more between seeds than the others
SEEDS_FOR_SPREAD = 3  # fewest seeds of an arm from which the variance between seeds is estimated

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """One arm's accuracy minus another's on the same clips, as a fraction; all players have the same weight."""

    difference: float
    low: float  # lower end of the 95 % interval: the wider of that over players (and seeds) and that over clips
    high: float  # upper end of the 95 % interval
    error: float  # standard error of `difference` over players and seeds
    df: float  # degrees of freedom of `error`
    p_flip: float  # p value of the sign-flip test over players
    by_player: pd.Series  # the difference of each player, averaged over seeds
    clips: int  # number of test clips
    clips_each: float  # harmonic mean of the players' numbers of clips
    discordant: float  # fraction of clips on which the arms disagree; with several seeds the mean absolute difference
    seeds: tuple[int, int]  # number of seeds of each arm
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
        """The largest p value of the t test and the sign-flip test over players and the score test over clips."""
        if abs(self.difference) < TINY:
            return 1.0
        t = 2 * stats.t.sf(abs(self.difference) / self.error, self.df) if self.error else 0.0
        score = abs(self.difference) * math.sqrt(self.players * self.clips_each / self.discordant)
        return max(self.p_flip, float(t), float(2 * stats.norm.sf(score)))


def contrast(
    first: pd.DataFrame,
    second: pd.DataFrame,
    players: pd.Series,
    fixed: bool = False,
    pooled: tuple[float, float] | None = None,
) -> Contrast:
    """Compare two arms on the clips that both were scored on.

    Args:
        first, second: whether each clip is classified correctly; one row per clip (index: sample_id), one column per
            seed.
        players: the player of each clip, with the same index.
        fixed: the second has no seeds, as a baseline; only the first arm's seeds vary.
        pooled: variance between seeds over all arms of a sweep, see `seed_spread`.

    Raises:
        ValueError: fewer than two players in common.
    """
    clips = first.index.intersection(second.index, sort=False)
    codes, names = pd.factorize(players.loc[clips], sort=True)
    if (number := len(names)) < 2:
        raise ValueError(f"{number} players in common; at least 2 are needed")
    sides = [arm.loc[clips].to_numpy(dtype=float) for arm in (first, second)]  # [clips, seeds]
    counts = np.bincount(codes)

    def means(values: Floats) -> Floats:
        """The mean of each player's clips, [players]."""
        return np.bincount(codes, values) / counts

    by_clip = sides[0].mean(axis=1) - sides[1].mean(axis=1)
    by_player = means(by_clip)
    difference, variance = float(by_player.mean()), float(by_player.var(ddof=1))
    # The variance of the mean over players from seed to seed. The interaction of seeds and players is counted both here
    # and between players. This is conservative, and it leaves more degrees of freedom, hence more power, than an
    # analysis of variance that subtracts the interaction.
    varying = [np.array([means(seed).mean() for seed in side.T]) for side in (sides[:1] if fixed else sides)]
    seed_parts: list[tuple[float, float]] = []
    if min(map(len, varying)) >= SEEDS_FOR_SPREAD:
        seed_parts = [(float(seeds.var(ddof=1)) / len(seeds), len(seeds) - 1.0) for seeds in varying]
        if pooled is not None:
            # Two variances of three seeds each have few degrees of freedom. Arms that vary clearly more than the others
            # keep their own variance, with its degrees of freedom.
            ratio, df = pooled
            expected = sum(ratio * seeds.mean() * (1 - seeds.mean()) / len(seeds) for seeds in varying)
            own, own_df = (sum(column) for column in zip(*seed_parts, strict=True))
            if own <= stats.f.ppf(_DISTINCT, own_df, df) * expected:
                seed_parts = [(max(expected, own), df)]
    error, df = welch([(variance / number, number - 1.0), *seed_parts])
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    # With unequal numbers of clips, players have the same weight here as well; this leaves the weight of fewer clips.
    clips_each = float(number / (1 / counts).sum())
    gained, lost = (number * clips_each * float(means(np.maximum(sign * by_clip, 0)).mean()) for sign in (1, -1))
    low, high = tango_interval(gained, lost, number * clips_each)
    return Contrast(
        difference=difference,
        low=min(low, difference - half),
        high=max(high, difference + half),
        error=error,
        df=df,
        p_flip=sign_flip_p(by_player.tolist()),
        by_player=pd.Series(by_player, index=names),
        clips=len(clips),
        clips_each=clips_each,
        discordant=(gained + lost) / (number * clips_each),
        seeds=(sides[0].shape[1], sides[1].shape[1]),
        seed_parts=seed_parts,
    )


def seed_spread(arms: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Pool the variance between the seeds of all arms that have several.

    Args:
        arms: the accuracy of each seed of each arm.

    Returns:
        (variance as a multiple of accuracy · (1 − accuracy), degrees of freedom), or None if nothing can be pooled.
    """
    several = [np.asarray(seeds) for seeds in arms if len(seeds) > 1]
    df = float(sum(len(seeds) - 1 for seeds in several))
    scale = sum((len(seeds) - 1) * seeds.mean() * (1 - seeds.mean()) for seeds in several)
    return (sum(((seeds - seeds.mean()) ** 2).sum() for seeds in several) / scale, df) if scale > 0 else None


def welch(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error and the degrees of freedom (Welch-Satterthwaite) of a sum of independent parts.

    `parts` are (variance, degrees of freedom); if all variances are 0, the first degrees of freedom are returned.
    """
    total = sum(variance for variance, _ in parts)
    weighted = sum(variance**2 / df for variance, df in parts)
    return math.sqrt(total), total**2 / weighted if weighted > 0 else parts[0][1]
