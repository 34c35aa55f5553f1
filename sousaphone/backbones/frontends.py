"""Waveform to features, one front end a backbone, each exactly as its backbone was pretrained.

Each is a batched module without parameters: it takes a float waveform [B, T] in [-1, 1] at its own rate, on any
device, and optionally `lengths` [B], the number of samples that are sound in each row (the rest is padding and is
ignored). Each names the layout of what it returns: `time_dim` and `mel_dim` (negative axes) and `hop_seconds`.

Sources: Kaldi's feature-fbank.cc by way of torchaudio.compliance.kaldi (AST, BEATs, EfficientAT's mel bank);
transformers' ClapFeatureExtractor (HTS-AT).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks

from sousaphone.backbones.frontend_spec import FrontendContract

_EPSILON = torch.finfo(torch.float32).eps
# On a CPU so many samples a thread at a time: intermediates that fit its caches make a front end up to twice as fast.
_SAMPLES = 160_000
_BANDS = 32  # of a block of a mel bank


class Frontend(nn.Module, ABC):
    """Base of the front ends: see the module's docstring for what a call takes."""

    sample_rate: int
    hop_seconds: float
    time_dim: int
    mel_dim: int

    @property
    @abstractmethod
    def contract(self) -> FrontendContract:
        """What it computes, as data."""


def to_float(wave: Tensor) -> Tensor:
    """int16 samples as float32 in [-1, 1); what is float already, as it is."""
    return wave if wave.is_floating_point() else wave * (1 / 32768)  # exact, and in one pass


def silence_padding(wave: Tensor, lengths: Tensor | None) -> Tensor:
    """`wave` [B, T] with everything beyond each row's length set to zero."""
    if lengths is None:
        return wave
    if wave.device.type == "cpu":  # a GPU would have to be waited for
        if int(lengths.min()) >= wave.shape[-1]:
            return wave
        silenced = wave.clone()
        for row, length in enumerate(lengths.tolist()):
            silenced[row, length:] = 0.0
        return silenced
    beyond = torch.arange(wave.shape[-1], device=wave.device) >= lengths.to(wave.device).unsqueeze(-1)  # [B, T]
    return wave.masked_fill(beyond, 0.0)


def clip_groups(wave: Tensor) -> tuple[Tensor, ...]:
    """The clips of a batch [B, T] in groups that are fast to work on; one group, on a GPU."""
    if wave.device.type != "cpu":
        return wave.split(max(1, len(wave)))
    return wave.split(max(1, _SAMPLES // max(1, wave.shape[-1])) * torch.get_num_threads())


def power(spectrum: Tensor) -> Tensor:
    """Squared magnitudes, real, of a complex tensor."""
    squares = torch.view_as_real(spectrum).square()  # in one stride: its two parts apart are slow to read
    return squares[..., 0] + squares[..., 1]


class MelBank(nn.Module):
    """Power to mel bands: a product with a matrix that is zero but for a diagonal of triangles.

    On a CPU the product is taken in blocks of neighbouring bands, each over the bins that it hears alone: a quarter of
    the operations.

    Args:
        matrix: [bins, M].
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.contiguous(), persistent=False)
        self.bands = matrix.shape[1]
        # (first bin, one past the last, first band, one past the last)
        self.blocks: list[tuple[int, int, int, int]] = []
        for first in range(0, self.bands, _BANDS):
            last = min(first + _BANDS, self.bands)
            heard = matrix[:, first:last].any(1).nonzero()
            low, high = (int(heard.min()), int(heard.max()) + 1) if len(heard) else (0, 1)
            self.blocks.append((low, high, first, last))

    def forward(self, power: Tensor) -> Tensor:
        """[..., bins] to [..., M]."""
        if power.device.type != "cpu" or power.requires_grad:  # gradients do not pass `out`
            return power @ self.matrix
        flat = power.reshape(-1, power.shape[-1])
        bands = flat.new_empty(len(flat), self.bands)
        for a, b, c, d in self.blocks:
            torch.mm(flat[:, a:b], self.matrix[a:b, c:d], out=bands[:, c:d])
        return bands.view(*power.shape[:-1], self.bands)


class KaldiFbank(nn.Module):
    """Kaldi's log mel filter bank, batched: 16 kHz, 25 ms frames every 10 ms, 128 bands from 20 Hz to 8 kHz.

    Pre-emphasis 0.97, mean of each frame removed, no dither, frames that do not fit are dropped (snip_edges), as
    `torchaudio.compliance.kaldi.fbank` does for one clip.

    Args:
        window: [400] window, applied after pre-emphasis.
    """

    window: Tensor
    frame, hop, fft = 400, 160, 512

    def __init__(self, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("window", window, persistent=False)
        bank, _ = get_mel_banks(128, self.fft, 16_000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
        # Kaldi's bank leaves out the Nyquist bin; a zero row keeps the product whole.
        self.bank = MelBank(F.pad(bank, (0, 1)).T)  # [257, 128]

    def contract(self, mean: float, scale: float) -> FrontendContract:
        """With what is done to its output: (x - mean) / scale."""
        return FrontendContract(16_000, self.bank.bands, self.frame, self.hop, 20.0, 8_000.0, "ln", mean, scale)

    def frames(self, lengths: Tensor) -> Tensor:
        """How many whole frames fit in each length (samples)."""
        return torch.clamp((lengths - self.frame) // self.hop + 1, min=0)

    def forward(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, F, 128] with F = (T - 400) // 160 + 1."""
        if wave.shape[-1] < self.frame:
            return wave.new_zeros(wave.shape[0], 0, self.bank.bands)
        return torch.cat([self._bands(part) for part in clip_groups(wave)])

    def _bands(self, wave: Tensor) -> Tensor:
        x = wave.unfold(-1, self.frame, self.hop)  # [B, F, 400]
        x = x - x.mean(-1, keepdim=True)
        x = x - 0.97 * F.pad(x, (1, 0), mode="replicate")[..., :-1]
        spectrum = torch.fft.rfft(x * self.window, n=self.fft)  # [B, F, 257]
        return self.bank(power(spectrum)).clamp_min(_EPSILON).log()


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

    @property
    def contract(self) -> FrontendContract:
        return self.fbank.contract(self.mean, 2 * self.deviation)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 16 kHz to [B, frames, 128]."""
        x = self.fbank(wave)[:, : self.length]  # [B, F, M]
        if lengths is not None:
            padding = torch.arange(x.shape[1], device=x.device) >= self.fbank.frames(lengths.to(x.device))[:, None]
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        x = F.pad(x, (0, 0, 0, self.length - x.shape[1]))
        return (x - self.mean) / (2 * self.deviation)


class ClapFrontend(Frontend):
    """CLAP's features for its HTS-AT: 64 log mel bands (Slaney, 50 Hz to 14 kHz, dB), 1024-sample Hann frames.

    A clip shorter than the window is repeated as often as it fits whole, and silence follows; of a longer one the
    centre is taken (the official extractor draws a random part). As transformers' ClapFeatureExtractor with
    `truncation="rand_trunc", padding="repeatpad"` and the preprocessor settings of laion/clap-htsat-unfused.

    Args:
        seconds: the window.
    """

    sample_rate, hop_seconds, time_dim, mel_dim = 48_000, 0.010, -2, -1
    fft, hop, bins = 1024, 480, 64
    low_hz, high_hz = 50.0, 14_000.0
    window: Tensor

    def __init__(self, seconds: float = 10.0) -> None:
        super().__init__()
        self.samples = round(seconds * self.sample_rate)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)
        bank = melscale_fbanks(
            self.fft // 2 + 1, self.low_hz, self.high_hz, self.bins, self.sample_rate, "slaney", "slaney"
        )
        self.bank = MelBank(bank)  # [513, 64]

    @property
    def contract(self) -> FrontendContract:
        return FrontendContract(
            self.sample_rate, self.bins, self.fft, self.hop, self.low_hz, self.high_hz, "dB", mean=0.0, scale=1.0
        )

    def fill(self, wave: Tensor, lengths: Tensor | None) -> Tensor:
        """[B, T] to the window [B, self.samples]: each clip repeated whole, then silence, or its centre."""
        batch, width = wave.shape
        if lengths is None:
            lengths = torch.full((batch,), width)
        if lengths.device.type == "cpu" and self.samples < 2 * lengths.min() and lengths.max() <= self.samples:
            # Each clip fits once, as nearly all do at nano scale: nothing is to be looked up.
            return silence_padding(F.pad(wave[:, : self.samples], (0, max(0, self.samples - width))), lengths)
        lengths = lengths.to(wave.device)[:, None]  # [B, 1]
        once = lengths.clamp(min=1)
        repeats = (self.samples // once).clamp(min=1)
        start = (lengths - self.samples).clamp(min=0) // 2
        position = torch.arange(self.samples, device=wave.device)  # [samples]
        # Beyond the sound the index may be any; what it fetches is silenced.
        filled = wave.gather(1, (position % once + start).clamp_(max=width - 1))
        return filled.masked_fill_(position >= repeats * lengths, 0.0)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 48 kHz to [B, 1, F, 64] with F = 1 + samples // 480: 1001 frames in 10 s."""
        filled = self.fill(wave, lengths)
        return torch.cat([self._decibels(part) for part in clip_groups(filled)]).unsqueeze(1)

    def _decibels(self, wave: Tensor) -> Tensor:
        """[B, samples] to [B, F, 64]."""
        spectrum = torch.stft(
            wave, self.fft, self.hop, window=self.window, pad_mode="reflect", return_complex=True
        )  # [B, 513, F]
        return 10.0 * self.bank(power(spectrum).transpose(1, 2)).clamp(min=1e-10).log10()


class EfficientAtFrontend(Frontend):
    """EfficientAT's features: Kaldi mel bands from 0 to 15 kHz of a 25 ms window, log, roughly normalised.

    Equal to the evaluation mode of AugmentMelSTFT in fschmid56/EfficientAT: pre-emphasis 0.97, Hann window of 800
    samples (symmetric) in an FFT of 1024, frames centred, reflected at the ends. Padding is silence.

    Args:
        hop: samples between frames.
        bins: mel bands M. The authors published models for other hops and bands as well.
    """

    sample_rate, time_dim, mel_dim = 32_000, -1, -2
    frame, fft = 800, 1024
    high_hz, mean, scale = 15_000.0, -4.5, 5.0
    window: Tensor

    def __init__(self, hop: int = 320, bins: int = 128) -> None:
        super().__init__()
        self.hop = hop
        self.hop_seconds = hop / self.sample_rate
        edge = (self.fft - self.frame) // 2
        window = F.pad(torch.hann_window(self.frame, periodic=False), (edge, edge))
        self.register_buffer("window", window, persistent=False)
        bank, _ = get_mel_banks(bins, self.fft, float(self.sample_rate), 0.0, self.high_hz, 100.0, -500.0, 1.0)
        self.bank = MelBank(F.pad(bank, (0, 1)).T)  # [513, M]

    @property
    def contract(self) -> FrontendContract:
        return FrontendContract(
            self.sample_rate,
            self.bank.bands,
            self.frame,
            self.hop,
            0.0,
            self.high_hz,
            "ln",
            self.mean,
            self.scale,
        )

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 32 kHz to [B, M, F] with F = 1 + (T - 1) // hop; T at least 514."""
        mel = torch.cat([self._mel(part) for part in clip_groups(silence_padding(wave, lengths))])  # [B, F, M]
        return mel.add_(1e-5).log().sub_(self.mean).div_(self.scale).transpose(1, 2)

    def _mel(self, wave: Tensor) -> Tensor:
        """[B, T] to the power in each band [B, F, M]."""
        x = torch.sub(wave[:, 1:], wave[:, :-1], alpha=0.97)
        x = F.pad(x, (self.fft // 2, self.fft // 2), mode="reflect")
        frames = x.unfold(-1, self.fft, self.hop)  # [B, F, 1024], a view
        bands: Tensor = self.bank(power(torch.fft.rfft(frames * self.window)))
        return bands


class BeatsFrontend(Frontend):
    """BEATs' features: Kaldi filter bank with a Povey window on 16-bit amplitudes, then normalised.

    Equal to `BEATs.preprocess` of https://github.com/microsoft/unilm/tree/master/beats. Padding is silence.
    """

    sample_rate, hop_seconds, time_dim, mel_dim = 16_000, 0.010, -2, -1
    mean, deviation = 15.41663, 6.55582
    # What a frame of digital silence comes to in every band.
    silence = (math.log(_EPSILON) - mean) / (2 * deviation)

    def __init__(self) -> None:
        super().__init__()
        self.fbank = KaldiFbank(torch.hann_window(KaldiFbank.frame, periodic=False).pow(0.85))

    @property
    def contract(self) -> FrontendContract:
        return self.fbank.contract(self.mean, 2 * self.deviation)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 16 kHz to [B, F, 128] with F = (T - 400) // 160 + 1."""
        x = self.fbank(silence_padding(wave, lengths) * 2**15)
        return (x - self.mean) / (2 * self.deviation)
