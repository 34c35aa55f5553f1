"""Waveform to features, one front end a backbone, each exactly as its backbone was pretrained.

Each is a batched module without parameters: it takes a float waveform [B, T] in [-1, 1] at its own rate, on any
device, and optionally `lengths` [B], the number of samples that are sound in each row (the rest is padding and is
ignored). Each names the layout of what it returns: `time_dim` and `mel_dim` (negative axes) and `hop_seconds`.

Sources: Kaldi's feature-fbank.cc by way of torchaudio.compliance.kaldi (AST, BEATs, EfficientAT's mel bank).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks

_EPSILON = torch.finfo(torch.float32).eps


class Frontend(nn.Module):
    """Base of the front ends: see the module's docstring for what a call takes."""

    sample_rate: int
    hop_seconds: float
    time_dim: int
    mel_dim: int


def silence_padding(wave: Tensor, lengths: Tensor | None) -> Tensor:
    """`wave` [B, T] with everything beyond each row's length set to zero."""
    if lengths is None:
        return wave
    beyond = torch.arange(wave.shape[-1], device=wave.device) >= lengths.to(wave.device).unsqueeze(-1)  # [B, T]
    return wave.masked_fill(beyond, 0.0)


class KaldiFbank(nn.Module):
    """Kaldi's log mel filter bank, batched: 16 kHz, 25 ms frames every 10 ms, 128 bands from 20 Hz to 8 kHz.

    Pre-emphasis 0.97, mean of each frame removed, no dither, frames that do not fit are dropped (snip_edges), as
    `torchaudio.compliance.kaldi.fbank` does for one clip.

    Args:
        window: [400] window, applied after pre-emphasis.
    """

    frame, hop, fft = 400, 160, 512

    def __init__(self, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window, persistent=False)
        bank, _ = get_mel_banks(128, self.fft, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
        # Kaldi's bank leaves out the Nyquist bin; a zero row keeps the product whole.
        self.register_buffer("bank", F.pad(bank, (0, 1)).T.contiguous(), persistent=False)  # [257, 128]

    def frames(self, lengths: Tensor) -> Tensor:
        """How many whole frames fit in each length (samples)."""
        return torch.clamp((lengths - self.frame) // self.hop + 1, min=0)

    def forward(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, F, 128] with F = (T - 400) // 160 + 1."""
        if wave.shape[-1] < self.frame:
            return wave.new_zeros(wave.shape[0], 0, self.bank.shape[1])
        x = wave.unfold(-1, self.frame, self.hop)  # [B, F, 400]
        x = x - x.mean(-1, keepdim=True)
        x = x - 0.97 * F.pad(x, (1, 0), mode="replicate")[..., :-1]
        spectrum = torch.fft.rfft(x * self.window, n=self.fft)
        power = spectrum.real.square() + spectrum.imag.square()  # [B, F, 257]
        return (power @ self.bank).clamp_min(_EPSILON).log()


class AstFrontend(Frontend):
    """AST's features: Kaldi filter bank with a Hann window, padded with zero rows, then normalised.

    Equal to transformers' ASTFeatureExtractor (AudioSet mean and deviation).

    Args:
        frames: length of the output; longer clips are cut, shorter ones padded.
    """

    sample_rate, hop_seconds, time_dim, mel_dim = 16_000, 0.010, -2, -1
    mean, deviation = -4.2677393, 4.5689974

    def __init__(self, frames: int = 1024) -> None:
        super().__init__()
        self.length = frames
        self.fbank = KaldiFbank(torch.hann_window(KaldiFbank.frame, periodic=False))

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 16 kHz to [B, frames, 128]."""
        x = self.fbank(wave)[:, : self.length]  # [B, F, M]
        if lengths is not None:
            padding = torch.arange(x.shape[1], device=x.device) >= self.fbank.frames(lengths.to(x.device))[:, None]
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        x = F.pad(x, (0, 0, 0, self.length - x.shape[1]))
        return (x - self.mean) / (2 * self.deviation)
