"""From a waveform to the strokes in it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sousaphone.transcription.network import StrokeNetwork

WEIGHTS = Path(__file__).with_name("strokes.safetensors")
THRESHOLD = 0.25  # of the onset's probability
NEAREST_FRAMES = 1  # a stroke is the highest frame among its neighbours
CHUNK_FRAMES, MARGIN_FRAMES = 6_000, 400  # 30 s at once, and 2 s that each side of it sees


@dataclass(frozen=True)
class Strokes:
    """Detected strokes by time, [N] each.

    Attributes:
        times: seconds, float64.
        velocities: MIDI, 1 to 127, float32.
        onset: the probability that there is a stroke, float32.
        grace: the probability of a grace note, float32.
        buzz: the probability of a buzz, or of a bounce of one, float32.
    """

    times: np.ndarray
    velocities: np.ndarray
    onset: np.ndarray
    grace: np.ndarray
    buzz: np.ndarray


@functools.cache
def load_network() -> StrokeNetwork:
    """Load the trained network once, frozen and in evaluation mode."""
    from safetensors.torch import load_file

    from sousaphone.transcription.network import StrokeNetwork

    network = StrokeNetwork()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval().requires_grad_(False)


def pick(frames: np.ndarray, threshold: float = THRESHOLD) -> Strokes:
    """Pick strokes from the network's outputs [4, F]: peaks of the onset's probability."""
    from sousaphone.transcription.network import HOP, RATE

    onset, grace, buzz = (1 / (1 + np.exp(-frames[[0, 2, 3]].astype(float))))
    padded = np.pad(onset, 1)
    left, right = padded[:-2], padded[2:]
    at = np.flatnonzero((onset >= left) & (onset > right) & (onset > threshold))
    # The target is a triangle: the neighbours' difference shows how far its centre is from the frame.
    low = np.minimum(left, right)[at]
    shift = (right - left)[at] / np.maximum(2 * (onset[at] - low), 1e-6)
    return Strokes(
        times=np.maximum((at + np.clip(shift, -0.5, 0.5)) * HOP / RATE, 0.0),
        velocities=np.clip(127 * frames[1, at], 1, 127).astype(np.float32),
        onset=onset[at].astype(np.float32),
        grace=grace[at].astype(np.float32),
        buzz=buzz[at].astype(np.float32),
    )


def transcribe(wave: np.ndarray, rate: int) -> Strokes:
    """Detect the strokes in a waveform.

    Strokes closer than 8 ms, such as the bounces of a dense buzz, are one.

    Args:
        wave: float32 [T], mono, in [-1, 1], of any length.
        rate: Hz.
    """
    return pick(frames(wave, rate))


def frames(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return the network's outputs [4, F] by frame of 5 ms; see `transcribe` for the arguments."""
    import torch

    from sousaphone.data.cache.decode import resampler
    from sousaphone.transcription.network import HOP, OUTPUTS, RATE

    sound = torch.from_numpy(np.ascontiguousarray(wave, np.float32))
    sound = sound if rate == RATE else resampler(rate, RATE)(sound)
    if not len(sound):
        return np.full((len(OUTPUTS), 0), -np.inf, np.float32)
    parts, network = [], load_network()
    with torch.inference_mode():
        for start in range(0, len(sound), CHUNK_FRAMES * HOP):
            first = max(0, start - MARGIN_FRAMES * HOP)
            part = sound[first : start + (CHUNK_FRAMES + MARGIN_FRAMES) * HOP]
            found = network(part[None])[0, :, (start - first) // HOP :]
            last = start + CHUNK_FRAMES * HOP >= len(sound)
            parts.append(found if last else found[:, :CHUNK_FRAMES])
            if last:
                break
    return torch.cat(parts, dim=1).numpy()
