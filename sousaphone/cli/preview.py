"""Pictures of what the models are fed: a clip's waveform and every backbone's features, before and after augmentation.

They answer by eye whether a front end shows the strokes, and whether the masks leave enough of them.
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
from sousaphone.data.cache.decode import read_samples, resampler, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.onsets import onsets
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.errors import UserError
from sousaphone.model import load_backbone
from sousaphone.training import augment

_STEPS = 4000  # of a waveform that are drawn


@dataclass(frozen=True)
class View:
    """A window of a clip at one rate, and what one front end makes of it.

    Attributes:
        wave: float [T].
        rate: Hz.
        image: [mel, F].
        hop: seconds between frames.
        strokes: when something is struck, s.
        hidden: how many of them lie under a time mask.
    """

    wave: np.ndarray
    rate: int
    image: np.ndarray
    hop: float
    strokes: np.ndarray
    hidden: int


def preview(
    dataset: Dataset, output: Path, clips: int = 4, scales: Sequence[str] = tuple(CLIP_SECONDS), seed: int = 0
) -> Iterator[Path]:
    """Draw some training clips, each of another rudiment as far as there are, one PNG for each clip and scale.

    Args:
        output: the directory to write into, made if need be.
        seed: which clips, and what augmentation draws.

    Raises:
        UserError: a clip that cannot be decoded, an output that cannot be written to.
    """
    rows = _choose(dataset.clips, clips, seed)
    paths = dataset.clips.audio_path[rows].tolist()
    decoded = (read_samples(*clip) for clip in open_clips(dataset.root, paths))
    sounds = [(to_mono(samples), rate) for samples, rate in decoded]
    try:
        output.mkdir(parents=True, exist_ok=True)
        for scale in scales:
            config = TrainConfig(scale=scale, clip_seconds=CLIP_SECONDS[scale])
            # Its backbone decides the length and the layout of the features.
            seconds = config.clip_seconds
            frontends = {name: load_backbone(name, scale, clip_seconds=seconds).frontend for name in DEFAULT_SWEEP}
            for row, (mono, rate) in zip(rows, sounds, strict=True):
                clip = dataset.clips.loc[row]
                views = {name: look(mono, rate, frontend, config, seed) for name, frontend in frontends.items()}
                path = output / f"{_file_name(clip.sample_id)}-{scale}.png"
                title = f"{clip.sample_id} · {clip.rudiment} · {scale}, {config.clip_seconds:g} s"
                _draw(views, title).savefig(path, dpi=100)
                yield path
    except OSError as error:
        raise UserError(
            f"the pictures cannot be written to {output} ({error.strerror}); give another --output"
        ) from None


def _choose(clips: pd.DataFrame, count: int, seed: int) -> list[int]:
    """Rows of training clips, in the table's order (a shard is read forwards)."""
    train = clips[clips.split == "train"] if (clips.split == "train").any() else clips
    mixed = train.sample(frac=1, random_state=seed)
    turn = mixed.groupby("rudiment").cumcount()
    return sorted(mixed.index[np.argsort(turn.to_numpy(), kind="stable")][:count])


def look(mono: np.ndarray, rate: int, frontend: Frontend, config: TrainConfig, seed: int) -> tuple[View, View]:
    """A clip's centre as a model gets it, as it is and augmented.

    Args:
        mono: [T] at `rate` Hz.
    """
    # The onset counter takes hiss for strokes; speed and shift are the same without it.
    quiet = dataclasses.replace(config, noise_snr_db=120.0)
    strokes, moved = (onsets(wave[0].numpy(), rate) for wave, _ in _windows(mono, rate, rate, quiet, _rng(seed)))
    rng = _rng(seed)
    (plain, length), (changed, changed_length) = _windows(mono, rate, frontend.sample_rate, config, rng)
    heard = frontend(changed, changed_length)
    masked = augment.mask_features(heard, frontend, config, rng)
    # What lies under a time mask has one value in every band.
    image = _image(masked, frontend)
    under = (image == image[:1]).all(0) & (_image(heard, frontend) != image).any(0)
    return (
        _view(plain, _image(frontend(plain, length), frontend), frontend, strokes, np.zeros_like(under)),
        _view(changed, image, frontend, moved, under),
    )


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _windows(
    mono: np.ndarray, source_rate: int, rate: int, config: TrainConfig, rng: torch.Generator
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The clip's centre [1, T] with its length [1], as it is and augmented."""
    wave = resampler(source_rate, rate)(torch.from_numpy(np.ascontiguousarray(mono)))
    samples, wide = (round(seconds * rate) for seconds in (config.clip_seconds, augment.window_seconds(config)))
    start = max(0, len(wave) - samples) // 2
    before = min(start, max(0, len(wave) - wide))  # the same sound as far as the clip goes
    changed = augment.augment_wave(*_window(wave, before, wide), samples, rate, config, rng)
    return _window(wave, start, samples), changed


def _window(wave: Tensor, start: int, samples: int) -> tuple[Tensor, Tensor]:
    """[1, samples] from `start` on, padded with zeros, and how many of them are sound [1]."""
    part = wave[start : start + samples]
    return torch.nn.functional.pad(part, (0, samples - len(part)))[None], torch.tensor([len(part)])


def _image(features: Tensor, frontend: Frontend) -> np.ndarray:
    """[mel, F] of features [1, ...]."""
    image = features.movedim((frontend.mel_dim, frontend.time_dim), (-2, -1))
    return image.reshape(image.shape[-2:]).numpy()


def _view(wave: Tensor, image: np.ndarray, frontend: Frontend, strokes: np.ndarray, under: np.ndarray) -> View:
    frames = (strokes / frontend.hop_seconds).round().astype(int).clip(0, len(under) - 1)
    return View(wave[0].numpy(), frontend.sample_rate, image, frontend.hop_seconds, strokes, int(under[frames].sum()))


def _draw(views: dict[str, tuple[View, View]], title: str) -> Figure:
    figure = Figure(figsize=(14, 2.2 * (len(views) + 1)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(views) + 1, 2)
    first = next(iter(views.values()))
    for axis, view, name in zip(axes[0], first, ("as it is", "augmented"), strict=True):
        wave = view.wave[:: max(1, len(view.wave) // _STEPS)]
        axis.plot(np.linspace(0, len(view.wave) / view.rate, len(wave)), wave, linewidth=0.5)
        axis.vlines(view.strokes, -1, -0.85, color="tab:red", linewidth=0.8)
        axis.set(ylim=(-1, 1), xmargin=0)
        axis.set_title(f"{name}: waveform, {len(view.strokes)} strokes found (red)", fontsize=10)
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
        axis.set_xlabel("s")
    return figure


def _file_name(sample_id: str) -> str:
    """An id as a file may be called; one that has to be changed for that gets a hash, so that no two become one."""
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in sample_id)[-120:]
    return name if name == sample_id else f"{name}-{hashlib.sha256(sample_id.encode()).hexdigest()[:8]}"
