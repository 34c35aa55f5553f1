"""Batched augmentation: gain, shift, noise and speed on waveforms; masks on features; mixup.

All random numbers except noise samples come from one CPU generator, so a seed gives the same augmentation on every
device. Noise is generated on the device from a seed of that generator: it is reproducible on devices of one kind.
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
    """Seconds of input for `augment_wave`, enough to fill the clip at any speed and shift."""
    if not config.augment:
        return config.clip_seconds
    return config.clip_seconds * (1 + config.speed) + config.shift_ms / 1000


def augment_wave(
    wave: Tensor, lengths: Tensor, samples: int, rate: int, config: TrainConfig, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Apply random speed, shift, gain and noise, drawn for each clip; return waves [B, `samples`] and lengths [B].

    Args:
        wave: [B, T], int16 or float in [-1, 1], of `window_seconds(config)`; zero beyond `lengths`.
        lengths: [B] samples of audio in each row.
        rate: Hz.
    """
    batch, device = wave.shape[0], wave.device

    def uniform(low: float, high: float) -> Tensor:
        return _to(low + torch.rand(batch, 1, generator=rng) * (high - low), device)

    speed = 1 + uniform(-config.speed, config.speed)
    start = uniform(-config.shift_ms, config.shift_ms) * rate / 1000
    gain = 10 ** (uniform(-config.gain_db, config.gain_db) / 20)
    noise = 10 ** (-uniform(config.noise_snr_db, config.noise_snr_db + 40.0) / 20)  # relative to the clip's level
    # The clips of a batch share one noise signal, each from its own offset: separate normal numbers for each clip would
    # take as long as the rest of this function.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    noise_signal = torch.randn(samples + rate, device=device, generator=torch.Generator(device).manual_seed(seed))
    offsets = _to(torch.randint(rate, (batch,), generator=rng), device)
    lengths = ((lengths[:, None] - start) / speed).long().clamp(1, samples)  # [B, 1]
    out, time = torch.empty(batch, samples, device=device), torch.arange(samples, dtype=torch.float32, device=device)
    clips = 2 if device.type == "cpu" else batch  # a CPU is twice as fast on two clips at a time, which fit its cache
    for first in range(0, batch, clips):
        rows = slice(first, first + clips)
        # One resampling implements speed and shift: output sample i is input sample i * speed + start. A zero at either
        # end represents the silence outside the window and shifts the index by 1.
        padded = to_float(F.pad(wave[rows], (1, 1)))
        position = torch.addcmul(start[rows] + 1, time, speed[rows]).clamp_(0, wave.shape[1])  # [B, samples]
        left = position.long()
        resampled = padded.gather(1, left)
        resampled.lerp_(padded[:, 1:].gather(1, left), position.frac_())
        level = torch.linalg.vector_norm(resampled, dim=1, keepdim=True) / lengths[rows].sqrt()  # RMS of the audio
        resampled.addcmul_(noise_signal.unfold(0, samples, 1)[offsets[rows]], level * noise[rows]).mul_(gain[rows])
        torch.clamp(resampled, -1.0, 1.0, out=out[rows])
    return out, lengths[:, 0]


def mask_features(features: Tensor, lengths: Tensor, frontend: Frontend, config: TrainConfig, rng: Generator) -> Tensor:
    """Apply two frequency masks and two time masks to each clip, filled with the mean of the clip; without bands only
    time masks, filled with silence.

    Widths are a fraction of the bins and a time in ms, so that they mask the same audio in every feature layout. A clip
    that is repeated has the same time masks in every repetition.

    Args:
        features: [B, ...], in the layout of the front end.
        lengths: [B] samples of audio from which they were computed.
    """
    bins, frames = features.shape[frontend.mel_dim], features.shape[frontend.time_dim]
    longest = min(config.time_mask_ms / 1000 / frontend.hop_seconds, float(frames))
    period = frontend.period(lengths).to(features.device)
    # Without bands the channels differ in meaning, and the mean of all could be a stroke.
    fill = features.mean(tuple(range(1, features.dim())), keepdim=True) if frontend.has_bands else 0.0
    masked = torch.zeros(1, dtype=torch.bool, device=features.device)
    axes = [(frontend.time_dim, frames, longest, period)]
    if frontend.has_bands:
        axes.insert(0, (frontend.mel_dim, bins, config.freq_mask * bins, torch.full_like(period, bins)))
    for dim, size, width, periods in axes:
        shape = [features.shape[0]] + [1] * (features.dim() - 1)
        shape[dim] = size
        masked = masked | _spans(periods, size, width, rng).view(shape)
    return torch.where(masked, fill, features)


def _spans(periods: Tensor, size: int, width: float, rng: Generator) -> Tensor:
    """A mask [B, size] that is true inside two spans per row, each at most `width` long, in the first of its `periods`
    [B] and again in each further one."""
    draws = _to(torch.rand(2, len(periods), 2, 1, generator=rng), periods.device)
    period = periods.clamp(max=size)[:, None, None]
    length = (draws[0] * (width + 1)).floor().minimum(period)
    start = (draws[1] * (period - length + 1)).floor()
    at = torch.arange(size, device=periods.device) % period
    return ((at >= start) & (at < start + length)).any(1)


def mixup(features: Tensor, targets: Tensor, config: TrainConfig, rng: Generator) -> tuple[Tensor, Tensor]:
    """Blend the features and soft targets [B, C] of each clip with those of another clip of the batch, using one weight
    per batch drawn from a Beta distribution."""
    if config.mixup_alpha == 0:
        return features, targets
    # The distributions of torch do not accept a generator.
    seed = int(torch.randint(2**62, (1,), generator=rng))
    weight = float(np.random.default_rng(seed).beta(config.mixup_alpha, config.mixup_alpha))
    order = _to(torch.randperm(features.shape[0], generator=rng), features.device)
    return features[order].lerp_(features, weight), targets[order].lerp_(targets, weight)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; to a GPU from pinned memory, since otherwise the copy waits for queued work."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
