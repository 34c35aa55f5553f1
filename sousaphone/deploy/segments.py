"""Where a recording is silent, and where its rudiment changes: pure functions of levels and probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02  # of a level
GATE_DB = 40.0  # default: quieter frames, relative to the loudest one of the recording, are silence
SILENCE_DB = -80.0  # re full scale: a recording without a louder frame is silent
PAUSE_SECONDS = 1.0  # a longer silence ends a phrase; strokes of a rudiment at 40 BPM are at most 0.75 s apart
_MARGINS = (0.05, 0.2)  # seconds added before the first and after the last frame of a phrase
_CHANGE_COST = 3.0  # nats per change; each window counts by its hop, so that overlapping windows count once


def phrases(levels: npt.NDArray[np.float32], gate_db: float = GATE_DB) -> list[tuple[float, float]]:
    """Return (start, end), in seconds, of each part of a recording between pauses.

    Args:
        levels: of its frames of `FRAME_SECONDS`, dB re full scale [F].
        gate_db: frames that are quieter than the loudest one by more than this are silence.
    """
    loudest = levels.max(initial=-np.inf)
    active = np.flatnonzero(levels >= max(loudest - gate_db, SILENCE_DB)) * FRAME_SECONDS
    if not len(active):
        return []
    last = np.flatnonzero(np.diff(active) > PAUSE_SECONDS)  # last frame before each pause
    starts, ends = active[np.append(0, last + 1)], active[np.append(last, len(active) - 1)] + FRAME_SECONDS
    before, after = _MARGINS
    whole = len(levels) * FRAME_SECONDS
    return [(max(0.0, a - before), min(b + after, whole)) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def window_starts(samples: int, window: int, hop: int) -> npt.NDArray[np.int64]:
    """First samples of the windows that cover a clip, a hop apart; the last one ends at the clip's end."""
    excess = max(0, samples - window)
    return np.minimum(np.arange(-(-excess // hop) + 1) * hop, excess)


def changes(log_probabilities: npt.NDArray[np.float64], weight: float) -> npt.NDArray[np.int64]:
    """Label windows so that the label changes only where the evidence exceeds the cost of a change (Viterbi).

    Args:
        log_probabilities: of the classes in consecutive windows [W, C].
        weight: of a window's evidence; the fraction of it that the next window does not contain.

    Returns:
        First windows of the runs of equal labels, int64 [R], beginning with 0.
    """
    evidence = weight * log_probabilities
    score, stays = evidence[0], np.ones(evidence.shape, bool)
    before = np.zeros(len(evidence), np.int64)  # best label of the previous window, for windows after a change
    for window, row in enumerate(evidence[1:], start=1):
        before[window] = best = int(score.argmax())
        stays[window] = score >= score[best] - _CHANGE_COST
        score = np.maximum(score, score[best] - _CHANGE_COST) + row
    label, firsts = int(score.argmax()), []
    for window in range(len(evidence) - 1, 0, -1):
        if not stays[window, label]:
            firsts.append(window)
            label = int(before[window])
    return np.array([0, *reversed(firsts)])
