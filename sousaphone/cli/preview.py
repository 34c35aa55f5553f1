"""Plots of the models' input: waveform and features of a clip, before and after augmentation.

They show whether the strokes are visible in the features and how many of them the masks hide.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sousaphone.backbones.frontends import Frontend
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import CLIP_SECONDS, TrainConfig
from sousaphone.data.cache.decode import resampler, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from sousaphone.training import augment
from sousaphone.transcription.transcribe import transcribe

_POINTS = 4000  # plotted per waveform


@dataclass(frozen=True)
class View:
    """A window of a clip at one rate, and its features by one front end."""

    wave: np.ndarray  # float [T]
    rate: int  # Hz
    image: np.ndarray  # features, [mel, F]
    hop: float  # seconds between frames
    strokes: np.ndarray  # detected onsets, s
    hidden: int  # number of strokes under a time mask


def preview(
    dataset: Dataset, output: Path, clips: int = 4, scales: Sequence[str] = tuple(CLIP_SECONDS), seed: int = 0
) -> Iterator[Path]:
    """Plot training clips, if possible of different rudiments, into `output`: one PNG per clip and scale."""
    rows = _draw_rows(dataset.clips, clips, seed)
    paths = dataset.clips.audio_path[rows].tolist()
    sounds = [read_samples(*clip) for clip in open_clips(dataset.root, paths)]
    try:
        output.mkdir(parents=True, exist_ok=True)
        for scale in scales:
            seconds = CLIP_SECONDS[scale]
            config = TrainConfig(scale=scale, clip_seconds=seconds)
            # The backbone determines the length and layout of the features.
            frontends = {name: load_backbone(name, scale, clip_seconds=seconds).frontend for name in DEFAULT_SWEEP}
            for clip, (samples, rate) in zip(dataset.clips.loc[rows].itertuples(), sounds, strict=True):
                mono = to_mono(samples)
                views = {name: look(mono, rate, frontend, config, seed) for name, frontend in frontends.items()}
                path = output / f"{_file_name(clip.sample_id)}-{scale}.png"
                title = f"{clip.sample_id} · {clip.rudiment} · {scale}, {seconds:g} s"
                _plot(views, title).savefig(path, dpi=100)
                yield path
    except OSError as error:
        raise UserError(f"--output {output} cannot be written ({error.strerror}); give another directory") from None


def _draw_rows(clips: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Draw rows of training clips, in the table's order (a shard is read forwards)."""
    train = clips[clips.split == "train"] if (clips.split == "train").any() else clips
    mixed = train.sample(frac=1, random_state=seed)
    turn = mixed.groupby("rudiment").cumcount()
    return sorted(mixed.index[np.argsort(turn.to_numpy(), kind="stable")][:count])


def look(mono: np.ndarray, rate: int, frontend: Frontend, config: TrainConfig, seed: int) -> tuple[View, View]:
    """Compute a model's input for the centre of a clip [T] at `rate` Hz, original and augmented."""
    # Onsets are detected without noise, which causes false ones; speed and shift are unchanged.
    quiet = dataclasses.replace(config, noise_snr_db=120.0)
    rng = torch.Generator()
    windows = _windows(mono, rate, rate, quiet, rng.manual_seed(seed))
    strokes, moved = (transcribe(wave[0].numpy(), rate).times for wave, _ in windows)
    (plain, length), changed = _windows(mono, rate, frontend.sample_rate, config, rng.manual_seed(seed))
    features = frontend(*changed)
    # A frame under a time mask has the same value in every band.
    image = _image(augment.mask_features(features, changed[1], frontend, config, rng), frontend)
    masked = (image == image[:1]).all(0) & (_image(features, frontend) != image).any(0)
    hidden = int(masked[(moved / frontend.hop_seconds).round().astype(int).clip(0, len(masked) - 1)].sum())
    original = _image(frontend(plain, length), frontend)
    return (
        View(plain[0].numpy(), frontend.sample_rate, original, frontend.hop_seconds, strokes, hidden=0),
        View(changed[0][0].numpy(), frontend.sample_rate, image, frontend.hop_seconds, moved, hidden),
    )


def _windows(
    mono: np.ndarray, source_rate: int, rate: int, config: TrainConfig, rng: torch.Generator
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Cut the clip's centre [1, T] with its length [1], original and augmented."""
    wave = resampler(source_rate, rate)(torch.from_numpy(np.ascontiguousarray(mono)))
    samples, wide = (round(seconds * rate) for seconds in (config.clip_seconds, augment.window_seconds(config)))
    start = max(0, len(wave) - samples) // 2
    before = min(start, max(0, len(wave) - wide))  # the same start, if the clip is long enough
    changed = augment.augment_wave(*_window(wave, before, wide), samples, rate, config, rng)
    return _window(wave, start, samples), changed


def _window(wave: Tensor, start: int, samples: int) -> tuple[Tensor, Tensor]:
    """Cut [1, samples] from `start`, padded with zeros; return it and its length without padding [1]."""
    part = wave[start : start + samples]
    return torch.nn.functional.pad(part, (0, samples - len(part)))[None], torch.tensor([len(part)])


def _image(features: Tensor, frontend: Frontend) -> np.ndarray:
    """Rearrange features [1, ...] to [mel, F]."""
    image = features.movedim((frontend.mel_dim, frontend.time_dim), (-2, -1))
    return image.reshape(image.shape[-2:]).numpy()


def _plot(views: dict[str, tuple[View, View]], title: str) -> Figure:
    figure = Figure(figsize=(14, 2.2 * (len(views) + 1)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(views) + 1, 2)
    for axis, view, name in zip(axes[0], next(iter(views.values())), ("original", "augmented"), strict=True):
        wave = view.wave[:: max(1, len(view.wave) // _POINTS)]
        axis.plot(np.linspace(0, len(view.wave) / view.rate, len(wave)), wave, linewidth=0.5)
        axis.vlines(view.strokes, -1, -0.85, color="tab:red", linewidth=0.8)
        axis.set(ylim=(-1, 1), xmargin=0)
        axis.set_title(f"{name}: waveform, {len(view.strokes)} strokes detected (red)", fontsize=10)
    for line, (name, pair) in zip(axes[1:], views.items(), strict=True):
        low, high = np.percentile(pair[0].image, [2, 99.8])
        for axis, view in zip(line, pair, strict=True):
            bins, frames = view.image.shape
            span = (0.0, frames * view.hop, 0.0, float(bins))
            axis.imshow(view.image, origin="lower", aspect="auto", extent=span, vmin=low, vmax=high, cmap="magma")
            hidden = f", {view.hidden} strokes under a time mask" if view is pair[1] else ""
            axis.set_title(f"{REGISTRY[name].title}: {bins} bands × {frames} frames{hidden}", fontsize=10)
            axis.set_ylabel("band")
    for axis in axes[-1]:
        axis.set_xlabel("time (s)")
    return figure


def _file_name(sample_id: str) -> str:
    """Convert an id to a file name; a changed id gets a hash, so that different ids have different names."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample_id)
    name = name.encode()[-120:].decode(errors="ignore")  # a file system limits bytes
    return name if name == sample_id else f"{name}-{hashlib.sha256(sample_id.encode()).hexdigest()[:8]}"
