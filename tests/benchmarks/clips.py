"""The clips that every contender of a speed measurement hears: audio files, and the cache that ours makes of them."""

from __future__ import annotations

import importlib.util
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sousaphone.data.dataset import Dataset
from sousaphone.rudiments import SLUGS

RATE, SECONDS = 44_100, 4.0  # of the stand-ins, as long as the built-in set's clips are on average


@dataclass(frozen=True)
class Clips:
    """Clips on disk, all of them of the training split.

    Attributes:
        dataset: their table.
        told: what they are, in words.
        decoder: soundfile, or wave where that is missing.
    """

    dataset: Dataset
    told: str
    decoder: str

    def __len__(self) -> int:
        return len(self.dataset.clips)

    @property
    def paths(self) -> list[Path]:
        return [self.dataset.root / path for path in self.dataset.clips.audio_path]

    @property
    def labels(self) -> Tensor:
        return torch.tensor(self.dataset.clips["label"].to_numpy(dtype=np.int64))


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def make_clips(source: Path | None, count: int, scratch: Path) -> Clips:
    """`count` clips of `source`, or of the built-in set, or noise bursts where audio libraries are missing."""
    if not has("soundfile"):
        told = "noise bursts in 16-bit WAV, read with the standard library (soundfile is missing here)"
        return Clips(_bursts(scratch / "bursts", count), told, "wave")
    from sousaphone.data.readers.sousa import read_dataset

    if source is None:
        from sousaphone.data.synthetic.generate import generate

        source = scratch / "made"
        generate(source, clips=max(count, 100), seed=0)
    dataset = read_dataset(source)
    table = pd.concat([dataset.clips] * -(-count // len(dataset.clips)), ignore_index=True)[:count]
    table = table.assign(split="train")
    import soundfile

    info = soundfile.info(dataset.root / table.audio_path[0])
    told = (
        f"{min(count, len(dataset.clips))} clips of {table.duration_sec.mean():.1f} s on average, {info.format} "
        f"{info.subtype}, {info.samplerate / 1000:g} kHz, {info.channels} channel{'s' if info.channels > 1 else ''}"
    )
    return Clips(Dataset(dataset.root, table), told, "soundfile")


def _bursts(root: Path, count: int) -> Dataset:
    root.mkdir(parents=True, exist_ok=True)
    time_axis = np.arange(round(SECONDS * RATE)) / RATE
    names = []
    for number in range(count):
        rng = np.random.default_rng(number)
        since = time_axis % rng.uniform(0.05, 0.3)
        sound = 0.5 * np.exp(-since / 0.02) * rng.uniform(-1, 1, len(time_axis))
        names.append(f"{number:05d}.wav")
        with wave.open(str(root / names[-1]), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((sound * 32767).astype(np.int16).tobytes())
    table = pd.DataFrame({"audio_path": names, "label": np.arange(count) % len(SLUGS), "split": "train"})
    return Dataset(root, table)


def read(path: Path, decoder: str, start: int = 0, frames: int = -1) -> tuple[np.ndarray, int]:
    """float32 [T, channels] from sample `start` on, at most `frames` of them, and the rate."""
    if decoder == "soundfile":
        import soundfile

        return soundfile.read(path, start=start, frames=frames, dtype="float32", always_2d=True)
    with wave.open(str(path), "rb") as file:
        file.setpos(min(start, file.getnframes()))
        content = file.readframes(file.getnframes() if frames < 0 else frames)
        samples = np.frombuffer(content, np.int16).reshape(-1, file.getnchannels())
        return samples.astype(np.float32) / 32768, file.getframerate()


def length(path: Path, decoder: str) -> tuple[int, int]:
    """Samples and rate of a file, from its header."""
    if decoder == "soundfile":
        import soundfile

        info = soundfile.info(path)
        return info.frames, info.samplerate
    with wave.open(str(path), "rb") as file:
        return file.getnframes(), file.getframerate()


@dataclass(frozen=True)
class InMemory:
    """What `ClipSet` wants of a WaveformCache, without the libraries that build one."""

    wave: np.ndarray
    offsets: np.ndarray
    sample_rate: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def cached(clips: Clips, rate: int, scratch: Path) -> tuple[object, float]:
    """Our cache of the clips at `rate`, and the seconds that a clip took to get into it, once for all epochs."""
    began = time.perf_counter()
    if clips.decoder == "soundfile":
        from sousaphone.data.cache.build import build_caches

        cache: object = build_caches(clips.dataset, [rate], scratch / "cache", progress=False)[rate]
    else:
        from torchaudio.transforms import Resample

        to_rate, waves = Resample(RATE, rate), []
        for path in clips.paths:
            heard = to_rate(torch.from_numpy(read(path, clips.decoder)[0].mean(1)))
            waves.append((heard * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy())
        ends = np.cumsum([0, *map(len, waves)], dtype=np.int64)
        cache = InMemory(np.concatenate(waves), ends, rate)
    return cache, (time.perf_counter() - began) / len(clips)
