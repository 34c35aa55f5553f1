"""From a waveform to the strokes in it."""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from sousaphone.transcription.network import StrokeNetwork

WEIGHTS = Path(__file__).with_name("strokes.safetensors")
THRESHOLD = 0.25  # of the onset's probability
_LOADING = threading.Lock()
CHUNK_FRAMES, MARGIN_FRAMES = 6_000, 400  # 30 s at once, and 2 s on each side


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


def transcribe(wave: np.ndarray, rate: int) -> Strokes:
    """Detect the strokes in a waveform.

    Strokes closer than 8 ms, such as the bounces of a dense buzz, are one.

    Args:
        wave: float32 [T], mono, in [-1, 1], of any length.
        rate: Hz.
    """
    import torch

    from sousaphone.transcription.network import HOP, RATE

    found = torch.from_numpy(frames(wave, rate))
    at, shift = peaks(found[:1], THRESHOLD)
    index = at[0].nonzero()[:, 0]
    onset, velocity, grace, buzz = found[:, index].numpy()
    times = (index.double() + shift[0, index]).numpy() * HOP / RATE
    return Strokes(np.maximum(times, 0.0), np.clip(127 * velocity, 1, 127), onset, grace, buzz)


def frames(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return what the network finds in each frame of 5 ms, float32 [4, F]; see `probabilities`, and `transcribe`."""
    import torch
    from scipy.signal import resample_poly

    from sousaphone.transcription.network import HOP, OUTPUTS, RATE

    if not len(wave):
        return np.zeros((len(OUTPUTS), 0), np.float32)
    common = gcd(rate, RATE)
    sound = wave if rate == RATE else resample_poly(wave, RATE // common, rate // common)
    sound = torch.from_numpy(np.ascontiguousarray(sound, np.float32))
    network, parts = load_network(), []
    with torch.inference_mode():
        for start in range(0, len(sound), CHUNK_FRAMES * HOP):
            first = max(0, start - MARGIN_FRAMES * HOP)
            part = sound[first : start + (CHUNK_FRAMES + MARGIN_FRAMES) * HOP]
            found = probabilities(network(part[None]))[0, :, (start - first) // HOP :]
            last = start + CHUNK_FRAMES * HOP >= len(sound)
            parts.append(found if last else found[:, :CHUNK_FRAMES])
    return torch.cat(parts, dim=1).numpy()


def probabilities(outputs: Tensor) -> Tensor:
    """Return onset, velocity, grace and buzz, each between 0 and 1, from the network's outputs [B, 4, F]."""
    found = outputs.sigmoid()
    found[:, 1] = outputs[:, 1].clamp(0, 1)
    return found


def peaks(onset: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Find the frames [B, F] that hold a stroke: peaks of the probability above a threshold.

    Returns:
        Whether there is a stroke in a frame [B, F], and how many frames later than its centre, -0.5 to 0.5 [B, F].
    """
    import torch.nn.functional as F

    left, right = F.pad(onset, (1, 0))[:, :-1], F.pad(onset, (0, 1))[:, 1:]
    at = (onset >= left) & (onset > right) & (onset > threshold)
    # The target is a triangle around the stroke, so the difference of the neighbours shows its centre.
    shift = (right - left) / (2 * (onset - left.minimum(right))).clamp(min=1e-6)
    return at, shift.clamp(-0.5, 0.5)


def load_network(device: str = "cpu") -> StrokeNetwork:
    """Load the trained network once per device, frozen and in evaluation mode."""
    with _LOADING:  # threads that load at once would restore each other's random state
        return _loaded(device)


@functools.cache
def _loaded(device: str) -> StrokeNetwork:
    import torch
    from safetensors.torch import load_file

    from sousaphone.transcription.network import StrokeNetwork

    with torch.random.fork_rng(devices=[]):  # the first use may be within a training
        network = StrokeNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(WEIGHTS).items()})
    return network.eval().requires_grad_(False).to(device)


@functools.cache
def weights_digest() -> bytes:
    """SHA-256 of the weights file."""
    return hashlib.sha256(WEIGHTS.read_bytes()).digest()
