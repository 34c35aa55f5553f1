"""Interval over clips and significance tests of differences of accuracies: pure functions of numbers.

The unit of observation is the player, as in `sousaphone.scores`. A test over clips alone (McNemar) or a percentile
bootstrap over a dozen players has a false positive rate far above its nominal level. Sources: sign-flip test, R. A.
Fisher, The Design of Experiments (1935), chapter 3; T. Tango, "Equivalence test and confidence interval for the
difference in proportions for the paired-sample design" (1998); S. Holm, "A simple sequentially rejective multiple test
procedure" (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize

from sousaphone.scores import Z

ENUMERATED = 20  # up to so many players, all sign patterns are enumerated
_DRAWS, _CHUNK = 2**17, 2**14  # random sign patterns for more players; patterns per chunk
TINY = 1e-9  # a difference of accuracies that is only rounding


def tango_interval(gained: float, lost: float, number: float) -> tuple[float, float]:
    """Return the 95 % score interval of the difference of two paired proportions.

    Args:
        gained, lost: clips that only the first, or only the second classifies correctly.
        number: all clips.
    """
    difference = (gained - lost) / number

    def excess(delta: float, sign: int) -> float:
        """How far the score statistic of a true difference `delta` is from the critical value; negative inside."""
        b = (2 * number - gained + lost) * delta - gained - lost
        root = math.sqrt(max(b * b + 8 * number * lost * delta * (1 - delta), 0.0))
        lost_fraction = (root - b) / (4 * number)
        variance = number * max(2 * lost_fraction + delta * (1 - delta), 0.0)
        return sign * (number * (delta - difference)) - Z * math.sqrt(variance)

    low, high = -1.0, 1.0
    if difference > low + TINY:
        low = float(optimize.brentq(excess, -1.0, difference - TINY, args=(-1,)))
    if difference < high - TINY:
        high = float(optimize.brentq(excess, difference + TINY, 1.0, args=(1,)))
    return low, high


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the sign-flip test that the differences are symmetric around zero.

    Exact up to ENUMERATED differences; for more, estimated from a fixed set of random sign patterns, which includes the
    observed pattern.
    """
    # scipy.stats.permutation_test misses ties that differ by rounding (thirds that sum to zero), takes 4 s for 20
    # players, and for more doubles the smaller tail of its draws.
    array = np.asarray(differences, dtype=float)
    observed = abs(array.sum()) - 1e-6 * float(np.abs(array).sum())
    if len(array) <= ENUMERATED:
        sums = array[:1]  # the sums of all patterns that keep the first sign; the others mirror them
        for value in array[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= observed).mean())
    rng = np.random.default_rng(0)
    hits = 1
    for _ in range(_DRAWS // _CHUNK):
        flipped = rng.integers(0, 2, (_CHUNK, len(array)), dtype=np.int8).astype(np.float32)
        sums = np.abs(array.sum() - 2 * (flipped @ array.astype(np.float32)))
        hits += int((sums >= observed).sum())
    return hits / (1 + _DRAWS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm's method, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
