"""What baselines look at: a clip as a few numbers.

Each function takes the clips of one split and gives float32 [N, D] on the CPU. What is heard is each clip's centre
window, as in evaluation; padding is left out where it can be.
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
from sousaphone.data.onsets import onsets

_BATCH = 8  # eight threads of them need no more memory than one evaluation batch
# The log-mels: 25 ms frames every 10 ms, bands that every backbone's sample rate has.
_FRAME_SECONDS, _HOP_SECONDS, _BANDS, _BAND_HERTZ = 0.025, 0.010, 64, (50.0, 8_000.0)

Heard = Callable[[int], None]  # told how many more clips have been heard


def onset_features(clips: ClipSet, rate: int, heard: Heard) -> Tensor:
    """How many onsets are detected in each window, and how many a second of what is heard, [N, 2]."""

    def describe(batch: Batch) -> Tensor:
        rows = []
        for wave, length in zip(to_float(batch.wave).cpu(), batch.lengths.tolist(), strict=True):
            count = len(onsets(wave[:length].numpy(), rate))
            rows.append((count, count * rate / max(length, 1)))
        return torch.tensor(rows, dtype=torch.float32)

    return _of_batches(describe, clips, 64, heard)


def log_mel_features(clips: ClipSet, rate: int, heard: Heard) -> Tensor:
    """Mean and deviation of each log-mel band over the frames of what is heard, [N, 2 · bands]."""
    return _of_batches(lambda batch: pooled_log_mels(to_float(batch.wave), batch.lengths, rate), clips, 64, heard)


def pooled_log_mels(wave: Tensor, lengths: Tensor, rate: int) -> Tensor:
    """
    Args:
        wave: float [B, T], at least a frame long.
        lengths: int64 [B], samples of each row that are sound.
        rate: Hz, 16,000 or more.

    Returns:
        Means, then deviations over the frames that lie within a row's sound (the first one always does), of each band.
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


def embeddings(backbone: Backbone, batch_size: int, clips: ClipSet, rate: int, heard: Heard) -> Tensor:
    """The mean of each clip's tokens, [N, D]: of what is pretrained alone, since pooling may be a fresh layer."""
    kind = clips.device.type

    def describe(batch: Batch) -> Tensor:
        with torch.inference_mode():
            features = backbone.frontend(to_float(batch.wave), batch.lengths)
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda"):  # as in training
                tokens = backbone.encode(features)  # [B, L, D]
            return tokens.float().mean(1)

    return _of_batches(describe, clips, batch_size, heard)


def _of_batches(describe: Callable[[Batch], Tensor], clips: ClipSet, batch_size: int, heard: Heard) -> Tensor:
    """What all batches come to, in the table's order."""
    # On a CPU several at a time, one thread each: torch's own would wait for each other at many small operations.
    on_cpu = clips.device.type == "cpu"
    batches = clips.evaluation_batches(min(batch_size, _BATCH) if on_cpu else batch_size)
    rows = []
    for described in in_threads(describe, batches) if on_cpu else map(describe, batches):
        rows.append(described.cpu())
        heard(len(described))
    return torch.cat(rows)
