"""Which stroke of a sticking each detected onset is: pure functions of onsets, levels and a rudiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import median_filter

from sousaphone.rudiments import Rudiment, Stroke

FEWEST = 8  # strokes of a stretch
GRACE_SECONDS = 0.06  # a grace note precedes its stroke by at most this
_WIDEST = 0.5  # log ratio of an interval to its neighbours; a missing stroke has log 2 at least
_NEIGHBOURS = 9  # intervals whose median is the local tempo
_MOST_SPREAD = 0.2  # standard deviation of the intervals of a stretch, relative
_HANDS_DB = 2.0  # by which the hands may differ more than accents from other strokes
_EVIDENCE = 5.0  # nats by which the levels must favour one place of the first stroke
_FLOOR = 0.5  # dB², of levels; equal levels favour none
_SWAPPED = str.maketrans("RL", "LR")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alignment:
    """The longest stretch of onsets in which no stroke of a rudiment is missing or added.

    `basis` is what determines the place of the first stroke in the sticking: loudness or rhythm; 'start' if it
    is only assumed that the player began at the beginning; None if nothing does, so that the hands are not known.
    """

    times: Floats  # of the strokes, seconds [N]
    positions: Ints  # in units of the rhythm, from the first stroke [N]
    basis: Literal["loudness", "rhythm", "start"] | None
    hands: str  # R or L for each stroke; empty without a basis
    outside: int  # detected strokes before and after the stretch


def main_strokes(rudiment: Rudiment) -> tuple[Stroke, ...]:
    """The strokes of a cycle without its grace notes."""
    return tuple(stroke for stroke in rudiment.strokes if stroke.parent is None)


def measurable(rudiment: Rudiment) -> bool:
    """Whether the onsets of the main strokes can be separated: not in buzzes, nor after two or more grace notes."""
    graces = [stroke.parent for stroke in rudiment.strokes if stroke.parent is not None]
    return len(set(graces)) == len(graces) and all(stroke.kind != "buzz" for stroke in rudiment.strokes)


def levels(wave: npt.NDArray[np.float32], rate: int, onsets: Floats) -> Floats:
    """Return the peak level of each onset, dB re full scale [N].

    Args:
        wave: mono [T].
        onsets: seconds [N].
    """
    before, after = round(0.005 * rate), round(0.025 * rate)
    places = [round(time * rate) for time in onsets.tolist()]
    peaks = [np.abs(wave[max(0, place - before) : place + after]).max(initial=1e-6) for place in places]
    return 20 * np.log10(np.array(peaks, np.float64))


def without_graces(onsets: Floats, rudiment: Rudiment) -> npt.NDArray[np.bool_]:
    """Return which onsets [N] are main strokes: in a rudiment with grace notes, those not closely followed by one."""
    if not any(stroke.parent is not None for stroke in rudiment.strokes):
        return np.ones(len(onsets), bool)
    return np.diff(onsets, append=np.inf) > GRACE_SECONDS


def align(onsets: Floats, level: Floats, rudiment: Rudiment, begins: bool) -> Alignment | None:
    """Assign onsets to the strokes of a rudiment.

    Two rhythms are tried: equal distances between all main strokes, and those of the data on which models are trained,
    where grace notes take a position of the cycle.

    Args:
        onsets: of main strokes, seconds [N].
        level: of the onsets, dB [N].
        begins: whether the first onset follows silence, so that it may be the first stroke of the sticking.

    Returns:
        None if no stretch of at least `FEWEST` strokes, and of half of the onsets, fits.
    """
    strokes = main_strokes(rudiment)
    if len(onsets) < FEWEST or not measurable(rudiment):
        return None
    size, intervals = len(strokes), np.diff(onsets)
    rhythms = [np.roll(gaps, -turn) for gaps in _rhythms(rudiment) for turn in range(size)]
    stretches = [(*_stretch(intervals / np.resize(gaps, len(intervals))), gaps) for gaps in rhythms]
    first, last, spread, gaps = max(stretches, key=lambda each: (each[1] - each[0], -each[2]))
    if last - first + 1 < max(FEWEST, len(onsets) / 2) or spread > _MOST_SPREAD:
        return None
    gaps = np.roll(gaps, -first)
    own = slice(first, last + 1)
    # Places of the stretch's first stroke in the cycle, as far as the rhythm determines them.
    places = [turn for each in _rhythms(rudiment) for turn in range(size) if (np.roll(each, -turn) == gaps).all()]
    basis, place = _place(places, level[own], strokes, begins and first == 0)
    hands = "".join(strokes[(place + k) % size].hand for k in range(last - first + 1)) if basis else ""
    steps = np.resize(gaps, last - first)
    return Alignment(onsets[own], np.append(0, np.cumsum(steps)), basis, hands, len(onsets) - (last - first + 1))


def _rhythms(rudiment: Rudiment) -> list[Ints]:
    """Distances from each main stroke to the next, in units of the rhythm."""
    index = [place for place, stroke in enumerate(rudiment.strokes) if stroke.parent is None]
    counted = np.diff(index, append=index[0] + len(rudiment.strokes))
    even = np.ones_like(counted)
    return [even] if (counted == counted[0]).all() else [even, counted]


def _stretch(intervals: Floats) -> tuple[int, int, float]:
    """Return the first and last onset of the longest run of similar intervals, and their relative spread."""
    logs = np.log(intervals)
    fits = np.abs(logs - median_filter(logs, _NEIGHBOURS, mode="nearest")) < _WIDEST
    ends = np.flatnonzero(np.diff(np.concatenate([[False], fits, [False]]).astype(int)))
    runs = [(end - start, start, end) for start, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=True)]
    length, start, end = max(runs, default=(0, 0, 0))
    return start, end, float(np.std(logs[start:end])) if length else np.inf


def _place(
    places: list[int], level: Floats, strokes: tuple[Stroke, ...], begins: bool
) -> tuple[Literal["loudness", "rhythm", "start"] | None, int]:
    """Choose the place in the cycle of the first stroke, and what determines it.

    Places with equal accents, and equal or exchanged hands, are one hypothesis. The start is only assumed if loudness
    does not contradict it.
    """
    size, hypotheses = len(strokes), dict[tuple[str, str], list[int]]()
    for place in places:
        turned = [strokes[(place + k) % size] for k in range(size)]
        hands = "".join(stroke.hand for stroke in turned)
        accents = "".join("-+"[stroke.accent] for stroke in turned)
        hypotheses.setdefault((accents, min(hands, hands.translate(_SWAPPED))), []).append(place)
    if len(hypotheses) == 1:
        return "rhythm", places[0]
    costs = sorted((_cost(level, *pattern), same) for pattern, same in hypotheses.items())
    (best, chosen), (second, _) = costs[:2]
    if second - best > _EVIDENCE:
        return "loudness", chosen[0]
    possible = [place for cost, same in costs if cost - best <= _EVIDENCE for place in same]
    return ("start", 0) if begins and 0 in possible else (None, 0)


def _cost(level: Floats, accents: str, hands: str) -> float:
    """Return the negative log likelihood, nats up to a constant, of levels as a mean, an increase for accents and a
    difference between the hands; none of them explain anything if the accents would be implausibly soft."""
    design = [[1, accents[k % len(accents)] == "+", hands[k % len(hands)] == "L"] for k in range(len(level))]
    matrix = np.array(design, float)
    _, accent, left = coefficients = np.linalg.lstsq(matrix, level, rcond=None)[0]
    plausible = "+" not in accents or accent >= max(0.0, abs(left) - _HANDS_DB)
    rest = level - matrix @ coefficients if plausible else level
    return float(len(level) / 2 * np.log(rest.var() + _FLOOR))
