"""Augmentation, batched on the device: gain, shift, noise and speed on the waveform, masks on the features, mixup.

Every draw comes from one generator on the CPU, so a seed gives the same augmentation on every device.
Sources: SpecAugment (Park et al., arXiv 1904.08779), mixup (Zhang et al., arXiv 1710.09412).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from sousaphone.config import TrainConfig
from sousaphone.frontends import Frontend


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
        wave: [B, T], float in [-1, 1], of `window_seconds(config)`; zero beyond its lengths.
        lengths: [B] samples of sound in each row.
        samples: length of the result.
        rate: Hz.

    Returns:
        wave [B, samples] and its lengths [B].
    """
    batch, device = wave.shape[0], wave.device

    def uniform(low: float, high: float) -> Tensor:
        return (low + torch.rand(batch, 1, generator=rng) * (high - low)).to(device)

    speed = 1 + uniform(-config.speed, config.speed)
    start = uniform(-config.shift_ms, config.shift_ms) * rate / 1000
    gain = 10 ** (uniform(-config.gain_db, config.gain_db) / 20)
    noise = 10 ** (-uniform(config.noise_snr_db, config.noise_snr_db + 40.0) / 20)  # of the sound's level
    seed = int(torch.randint(2**62, (1,), generator=rng))
    chance = torch.Generator(device).manual_seed(seed)
    lengths = ((lengths[:, None] - start) / speed).long().clamp(1, samples)  # [B, 1]
    # A CPU is twice as fast on a few clips at a time, which stay in its cache.
    group = batch if device.type != "cpu" else 4
    columns = (wave, speed, start, lengths, noise, gain)
    parts = [_hear(samples, chance, *rows) for rows in zip(*(c.split(group) for c in columns), strict=True)]
    return torch.cat(parts), lengths[:, 0]


def _hear(
    samples: int,
    chance: Generator,
    wave: Tensor,
    speed: Tensor,
    start: Tensor,
    lengths: Tensor,
    noise: Tensor,
    gain: Tensor,
) -> Tensor:
    """Some clips [B, T], resampled to [B, samples], in noise, at another level; all else [B, 1]."""
    # One resampling does both speed and shift: output sample i is input sample i * speed + start. A zero at either
    # end stands for the silence outside the window (one more than the index, therefore).
    padded = F.pad(wave, (1, 1))
    position = torch.arange(samples, device=wave.device) * speed + (start + 1)  # [B, samples]
    position.clamp_(0, wave.shape[1])
    left = position.long()
    heard = torch.lerp(padded.gather(1, left), padded.gather(1, left + 1), position - left)
    level = heard.square().sum(1, keepdim=True).div(lengths).sqrt()  # root mean square over the sound alone
    hiss = torch.randn(heard.shape, device=wave.device, generator=chance)
    return heard.add_(hiss.mul_(level * noise)).mul_(gain).clamp_(-1.0, 1.0)


def mask_features(features: Tensor, frontend: Frontend, config: TrainConfig, rng: Generator) -> Tensor:
    """Two frequency masks and two time masks on each clip, filled with the clip's mean.

    Widths are drawn as a share of the bins and in milliseconds, so every layout loses the same sound.
    """
    bins, frames = features.shape[frontend.mel_dim], features.shape[frontend.time_dim]
    longest = min(config.time_mask_ms / 1000 / frontend.hop_seconds, float(frames))
    fill = features.flatten(1).mean(1).view(-1, *[1] * (features.dim() - 1))
    for dim, size, width in ((frontend.mel_dim, bins, config.freq_mask * bins), (frontend.time_dim, frames, longest)):
        hidden = _spans(features.shape[0], size, width, rng).to(features.device)  # [B, size]
        shape = [features.shape[0]] + [1] * (features.dim() - 1)
        shape[dim] = size
        features = torch.where(hidden.view(shape), fill, features)
    return features


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
    # A Beta draw as two Gammas; torch's own distributions take no generator.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        share = float(torch.distributions.Beta(config.mixup_alpha, config.mixup_alpha).sample())
    order = torch.randperm(features.shape[0], generator=rng).to(features.device)
    return torch.lerp(features[order], features, share), torch.lerp(targets[order], targets, share)
