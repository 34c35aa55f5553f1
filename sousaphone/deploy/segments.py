"""Where a recording is silent, and where its rudiment changes: functions of levels and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02  # of a level
GATE_DB = 40.0  # default: quieter frames, relative to the loudest one of the recording, are silence
SILENCE_DB = -80.0  # re full scale: a recording without a louder frame is silent
PAUSE_SECONDS = 1.0  # a longer silence ends a phrase; strokes of a rudiment at 40 BPM are at most 0.75 s apart
_MARGINS = (0.05, 0.2)  # seconds added before the first and after the last frame of a phrase
_CHANGE_COST = 3.0  # nats of evidence; each window counts by the hop, so that overlapping windows count once
_STEPS = 3  # places per hop that are compared to locate a change

# From the first samples of windows [W] to the log probabilities of the classes in them [W, C].
Score = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]


def phrases(levels: npt.NDArray[np.float32], gate_db: float = GATE_DB) -> list[tuple[float, float]]:
    """Return (start, end), in seconds, of each part of a recording between pauses.

    Args:
        levels: of its frames of `FRAME_SECONDS`, dB re full scale [F].
        gate_db: frames that are quieter than the loudest one by more than this are silence.
    """
    loudest = levels.max(initial=-np.inf)
    active = np.flatnonzero(levels >= max(loudest - gate_db, SILENCE_DB))
    if not len(active):
        return []
    last = np.flatnonzero(np.diff(active) - 1 > round(PAUSE_SECONDS / FRAME_SECONDS))  # last frame before each pause
    starts, ends = active[np.append(0, last + 1)], active[np.append(last, len(active) - 1)] + 1
    starts, ends = starts * FRAME_SECONDS, ends * FRAME_SECONDS
    before, after = _MARGINS
    whole = len(levels) * FRAME_SECONDS
    return [(max(0.0, a - before), min(b + after, whole)) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def window_starts(samples: int, window: int, hop: int) -> npt.NDArray[np.int64]:
    """First samples of the windows that cover a clip, a hop apart; the last one ends at the clip's end."""
    excess = max(0, samples - window)
    return np.minimum(np.arange(-(-excess // hop) + 1) * hop, excess)


def divide(begin: int, end: int, window: int, hop: int, score: Score) -> list[int]:
    """Divide a phrase where its rudiment changes.

    A division is kept if the evidence for two rudiments, one on each side, exceeds that for a single one by 3 nats. The
    evidence for a rudiment in a segment is its mean log probability in windows laid out over the segment alone, times
    the number of window lengths in it. Segments are at least a window long.

    Args:
        begin: first sample of the phrase.
        end: one past its last sample.
        window: samples of a window.
        hop: samples between windows.

    Returns:
        The bounds of the segments in samples: the begin, each change, the end.
    """

    def evidence(first: int, last: int) -> npt.NDArray[np.float64]:  # [C]
        mean: npt.NDArray[np.float64] = score(first + window_starts(last - first, window, hop)).mean(0)
        return mean * (last - first) / window

    bounds = [begin, *_candidates(begin, end, window, hop, score), end]
    segments = [evidence(*pair) for pair in pairwise(bounds)]
    while len(segments) > 1:
        gains = [a.max() + b.max() - (a + b).max() for a, b in pairwise(segments)]
        weakest = int(np.argmin(gains))
        if gains[weakest] >= _CHANGE_COST:
            break
        del bounds[weakest + 1]
        segments[weakest : weakest + 2] = [evidence(bounds[weakest], bounds[weakest + 1])]
    return bounds


def _candidates(begin: int, end: int, window: int, hop: int, score: Score) -> list[int]:
    """Return places where the rudiment may change. Each part between them is searched with windows of its own, which
    contain nothing of the parts next to it."""
    starts = begin + window_starts(end - begin, window, hop)
    found = changes(score(starts), hop / window, -(-window // hop) + 1)
    places: list[int] = []
    for change in found:
        low = max([begin, *places[-1:], int(starts[change.last]) - hop]) + window
        high = min(int(starts[change.first]) + hop, end - window)
        if low > high:  # less than a window after the change before
            continue
        place = np.arange(low, high + 1, max(1, hop // _STEPS))
        fit = score(place - window)[:, change.before] + score(place)[:, change.after]
        places.append(round(np.average(place, weights=np.exp(fit - fit.max()))))
    inner = [_candidates(*part, window, hop, score) for part in pairwise([begin, *places, end])] if places else []
    return sorted([*places, *chain.from_iterable(inner)])


class Change(NamedTuple):
    """A change of label."""

    last: int  # window before
    before: int  # its label
    first: int  # window after
    after: int


def changes(log_probabilities: npt.NDArray[np.float64], weight: float, gap: int) -> list[Change]:
    """Label windows so that the label changes only where the evidence exceeds the cost of a change (Viterbi).

    Windows across a change contain both rudiments. They are left out: the last window before a change and the first one
    after it count for them, half each.

    Args:
        log_probabilities: of the classes in consecutive windows [W, C].
        weight: of a window's evidence; the fraction of it that the next window does not contain.
        gap: from the last window before a change to the first one after it.
    """
    evidence = weight * log_probabilities
    around = (gap - 1) / 2 * evidence  # for the windows left out
    score, changed = evidence.copy(), np.zeros(evidence.shape, bool)
    before = np.zeros(len(evidence), np.int64)  # best label of the last window, if this is the first after a change
    for window in range(1, len(evidence)):
        best = score[window - 1]
        if window >= gap:
            ended = score[window - gap] + around[window - gap]
            before[window] = label = int(ended.argmax())
            begun = ended[label] - _CHANGE_COST + around[window]
            changed[window] = begun > best
            best = np.maximum(best, begun)
        score[window] = best + evidence[window]
    window, label, found = len(evidence) - 1, int(score[-1].argmax()), []
    while window > 0:
        if changed[window, label]:
            found.append(Change(window - gap, int(before[window]), window, label))
            window, label = window - gap, int(before[window])
        else:
            window -= 1
    return found[::-1]
