"""Augmentation, batched on the device: gain, shift, noise and speed on the waveform, masks on the features, mixup.

Every draw but the samples of noise comes from one generator on the CPU, so a seed gives the same augmentation on every
device. Noise is drawn on the device, from a seed of that generator: it repeats on devices of one kind.
Sources: SpecAugment (Park et al., arXiv 1904.08779), mixup (Zhang et al., arXiv 1710.09412).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sousaphone.backbones.frontends import Frontend, to_float
from sousaphone.config import TrainConfig


def window_seconds(config: TrainConfig) -> float:
    """Seconds of sound that the waveform stage wants, so that a faster or later copy still fills the clip."""
    if not config.augment:
        return config.clip_seconds
    return config.clip_seconds * (1 + config.speed) + config.shift_ms / 1000


def augment_wave(
    wave: Tensor, lengths: Tensor, samples: int, rate: int, config: TrainConfig, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Speed, shift, gain and noise, drawn for each clip.

    Args:
        wave: [B, T], int16 or float in [-1, 1], of `window_seconds(config)`; zero beyond its lengths.
        lengths: [B] samples of sound in each row.
        samples: length of the result.
        rate: Hz.

    Returns:
        wave [B, samples] and its lengths [B].
    """
    batch, device = wave.shape[0], wave.device

    def uniform(low: float, high: float) -> Tensor:
        return _to(low + torch.rand(batch, 1, generator=rng) * (high - low), device)

    speed = 1 + uniform(-config.speed, config.speed)
    start = uniform(-config.shift_ms, config.shift_ms) * rate / 1000
    gain = 10 ** (uniform(-config.gain_db, config.gain_db) / 20)
    noise = 10 ** (-uniform(config.noise_snr_db, config.noise_snr_db + 40.0) / 20)  # of the sound's level
    # One tape of noise a batch, and each clip hears it from a place of its own: to draw normal numbers for every clip
    # takes as long as all the rest of this stage.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    tape = torch.randn(samples + rate, device=device, generator=torch.Generator(device).manual_seed(seed))
    place = _to(torch.randint(rate, (batch,), generator=rng), device)
    lengths = ((lengths[:, None] - start) / speed).long().clamp(1, samples)  # [B, 1]
    # A CPU is twice as fast on a few clips at a time, which stay in its cache.
    group = batch if device.type != "cpu" else 2
    time = torch.arange(samples, dtype=torch.float32, device=device)
    columns = (torch.empty(batch, samples, device=device), wave, place, speed, start, lengths, noise, gain)
    for out, heard, at, *rest in zip(*(column.split(group) for column in columns), strict=True):
        _hear(out, heard, tape.unfold(0, samples, 1)[at], time, *rest)
    return columns[0], lengths[:, 0]


def _hear(
    out: Tensor,
    wave: Tensor,
    hiss: Tensor,
    time: Tensor,
    speed: Tensor,
    start: Tensor,
    lengths: Tensor,
    noise: Tensor,
    gain: Tensor,
) -> None:
    """Some clips [B, T] into `out` [B, samples]: resampled at each `time` [samples], in `hiss` [B, samples], at another
    level; all else [B, 1]."""
    # One resampling does both speed and shift: output sample i is input sample i * speed + start. A zero at either
    # end stands for the silence outside the window (one more than the index, therefore).
    padded = to_float(F.pad(wave, (1, 1)))
    position = torch.addcmul(start + 1, time, speed).clamp_(0, wave.shape[1])  # [B, samples]
    left = position.long()
    heard = padded.gather(1, left)
    heard.lerp_(padded[:, 1:].gather(1, left), position.frac_())
    level = torch.linalg.vector_norm(heard, dim=1, keepdim=True) / lengths.sqrt()  # root mean square of the sound
    torch.clamp(heard.addcmul_(hiss, level * noise).mul_(gain), -1.0, 1.0, out=out)


def mask_features(features: Tensor, frontend: Frontend, config: TrainConfig, rng: Generator) -> Tensor:
    """Two frequency masks and two time masks on each clip, filled with the clip's mean.

    Widths are drawn as a share of the bins and in milliseconds, so every layout loses the same sound.
    """
    bins, frames = features.shape[frontend.mel_dim], features.shape[frontend.time_dim]
    longest = min(config.time_mask_ms / 1000 / frontend.hop_seconds, float(frames))
    fill = features.mean(tuple(range(1, features.dim())), keepdim=True)
    hidden = torch.zeros(1, dtype=torch.bool, device=features.device)
    for dim, size, width in ((frontend.mel_dim, bins, config.freq_mask * bins), (frontend.time_dim, frames, longest)):
        shape = [features.shape[0]] + [1] * (features.dim() - 1)
        shape[dim] = size
        hidden = hidden | _to(_spans(features.shape[0], size, width, rng), features.device).view(shape)
    return torch.where(hidden, fill, features)


def _spans(batch: int, size: int, width: float, rng: Generator, count: int = 2) -> Tensor:
    """[B, size] true inside `count` spans a row, each up to `width` long."""
    draws = torch.rand(2, batch, count, 1, generator=rng)
    length = (draws[0] * (width + 1)).floor().clamp_max(size)
    start = (draws[1] * (size - length + 1)).floor()
    at = torch.arange(size)
    return ((at >= start) & (at < start + length)).any(1)


def mixup(features: Tensor, targets: Tensor, config: TrainConfig, rng: Generator) -> tuple[Tensor, Tensor]:
    """Blend each clip's features and soft targets [B, C] with those of another, in one Beta-drawn share a batch."""
    if config.mixup_alpha == 0:
        return features, targets
    # Torch's own distributions take no generator.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    share = float(np.random.default_rng(seed).beta(config.mixup_alpha, config.mixup_alpha))
    order = _to(torch.randperm(features.shape[0], generator=rng), features.device)
    return features[order].lerp_(features, share), targets[order].lerp_(targets, share)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host where it is wanted. To a GPU it goes from pinned memory: from any other the host would wait
    for all that the GPU has yet to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
