"""Features of the baselines.

Each function maps the clips of one split, or the windows of its clips, to float32 [N, D] on the CPU. The input is each
clip's centre window, as in evaluation; padding is excluded where possible.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.frontends import to_float
from sousaphone.data.batches import Batch, ClipSet
from sousaphone.data.cache.decode import in_threads
from sousaphone.text import Advance

CPU_BATCH = 8  # in eight threads it needs no more memory than one evaluation batch
# Log-mels: 25 ms frames every 10 ms, up to the Nyquist frequency of 16 kHz audio.
_FRAME_SECONDS, _HOP_SECONDS, _BANDS, _BAND_HERTZ = 0.025, 0.010, 64, (50.0, 8_000.0)


def audio_seconds(clips: ClipSet, rate: int, progress: Advance) -> Tensor:
    """Seconds of audio in each window, [N, 1]; the rest of the window is padding."""
    return by_batch(lambda batch: batch.lengths[:, None].float() / rate, clips, 64, progress)


def log_mel_features(clips: ClipSet, rate: int, progress: Advance) -> Tensor:
    """Mean and standard deviation of each log-mel band over the unpadded frames, [N, 2 · bands]."""
    return by_batch(lambda batch: pooled_log_mels(to_float(batch.wave), batch.lengths, rate), clips, 64, progress)


def pooled_log_mels(wave: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """Means, then standard deviations of each band over the frames within each row's length, [B, 2 · bands].

    The first frame always counts.

    Args:
        wave: float [B, T], at least one frame long.
        lengths: int64 [B], samples of each row without padding.
        rate: Hz, at least 16,000.
    """
    frame, hop = round(_FRAME_SECONDS * rate), round(_HOP_SECONDS * rate)
    bank = melscale_fbanks(frame // 2 + 1, *_BAND_HERTZ, _BANDS, rate, "slaney", "slaney").to(wave.device)
    window = torch.hann_window(frame, device=wave.device)
    spectrum = torch.stft(wave, frame, hop, window=window, center=False, return_complex=True)  # [B, bins, F]
    mels = (spectrum.abs().square().transpose(1, 2) @ bank).clamp(min=1e-10).log()  # [B, F, M]
    frames = ((lengths - frame) // hop + 1).clamp(min=1)[:, None, None]
    inside = torch.arange(mels.shape[1], device=wave.device)[:, None] < frames  # [B, F, 1]
    mean = (mels * inside).sum(1) / frames[:, 0]
    spread = ((mels - mean[:, None]).square() * inside).sum(1) / frames[:, 0]
    return torch.cat([mean, spread.sqrt()], dim=1)


def embeddings(
    backbone: Backbone, batch_size: int, clips: ClipSet, rate: int, progress: Advance, rounded: bool = False
) -> Tensor:
    """The mean of each clip's tokens, [N, D], with products in bfloat16 if `rounded`. The backbone's own pooling may
    have untrained layers."""
    kind = clips.device.type

    def extract(batch: Batch) -> Tensor:
        with torch.inference_mode():
            features = backbone.frontend(to_float(batch.wave), batch.lengths)
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=rounded):
                tokens = backbone.encode(features)  # [B, L, D]
            return tokens.float().mean(1)

    return by_batch(extract, clips, batch_size, progress)


def by_batch(extract: Callable[[Batch], Tensor], clips: ClipSet, batch_size: int, progress: Advance) -> Tensor:
    """Features of all clips in the table's order."""
    # On a CPU batches run in parallel, one thread each: torch's own threads are slow for many small operations.
    on_cpu = clips.device.type == "cpu"
    batches = clips.evaluation_batches(min(batch_size, CPU_BATCH) if on_cpu else batch_size)
    rows = []
    for features in in_threads(extract, batches) if on_cpu else map(extract, batches):
        rows.append(features.cpu())
        progress(len(features))
    return torch.cat(rows)
