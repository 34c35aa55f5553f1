"""Performances of rudiments with known deviations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile

from sousaphone.deploy.page.strokes import main_strokes
from sousaphone.deploy.predictor import Prediction, Segment
from sousaphone.deploy.recordings import decoded
from sousaphone.rudiments import Rudiment

STEP = 0.12  # seconds
RATE = 44_100


def play(
    rudiment: Rudiment,
    strokes: int = 48,
    first: int = 0,
    jitter_ms: float = 0.0,
    left_late_ms: float = 0.0,
    drift: float = 0.0,
    even: bool = True,
    accent_db: float = 9.0,
    hand_db: float = 2.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Onsets (s) and levels (dB) of the main strokes, and their hands, from the stroke `first` of the cycle.

    `even`: main strokes are equally spaced; otherwise grace notes take positions, as in the cycles of the package.
    `drift`: relative change of the tempo over the performance.
    """
    rng, cycle = np.random.default_rng(seed), main_strokes(rudiment)
    played = [cycle[(first + k) % len(cycle)] for k in range(strokes)]
    main = [place for place, stroke in enumerate(rudiment.strokes) if stroke.parent is None]
    gaps = [1] * len(cycle) if even else np.diff([*main, main[0] + len(rudiment.strokes)]).tolist()
    steps = np.cumsum([0, *(gaps[(first + k) % len(cycle)] for k in range(strokes - 1))])
    left = np.array([stroke.hand == "L" for stroke in played])
    times = 0.2 + STEP * steps * (1 + drift * steps / steps[-1])
    times += rng.normal(0, jitter_ms / 1000, strokes) + left * left_late_ms / 1000
    accents = np.array([stroke.accent for stroke in played])
    levels = -20 + accent_db * accents - hand_db * left + rng.normal(0, 1.0, strokes)
    return times, levels, "".join(stroke.hand for stroke in played)


def exchanged(hands: str) -> str:
    return hands.translate(str.maketrans("RL", "LR"))


def sound(times: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Decaying bursts of noise at these times (s) and levels (dB re full scale), float32 [T]."""
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 1e-4, round((times[-1] + 0.5) * RATE))
    burst = rng.uniform(-1, 1, RATE // 5) * np.exp(-np.arange(RATE // 5) / (0.02 * RATE))
    for time, level in zip(times.tolist(), levels.tolist(), strict=True):
        place = round(time * RATE)
        part = burst[: len(wave) - place]
        wave[place : place + len(part)] += 10 ** (level / 20) * part
    return wave.astype(np.float32)


def prediction(
    path: Path, wave: np.ndarray, *bounds: float, slug: str = "single_paradiddle", undecided: bool = False
) -> tuple[Path, Prediction]:
    """Write a recording: its path, and a prediction with segments between these bounds, s."""
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    segments = [Segment(start, end, ((slug, 0.9),), undecided) for start, end in pairwise(bounds)]
    with decoded(path.name, path, RATE) as (recording, _):
        return path, Prediction(recording, tuple(segments), np.zeros(0), np.zeros((0, 40)))
