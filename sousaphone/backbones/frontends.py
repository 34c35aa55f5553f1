"""Front ends: from waveform to the features that each backbone was pretrained on.

Each is a batched module without parameters. Input: a float waveform [B, T] in [-1, 1] at its own rate, on any device,
and optionally `lengths` [B], the number of valid samples in each row; the rest is padding. The layout of the output is
in `time_dim` and `mel_dim` (negative axes) and `hop_seconds`.

Sources: Kaldi's feature-fbank.cc through torchaudio.compliance.kaldi (AST, BEATs, EfficientAT's mel bank);
transformers' ClapFeatureExtractor (HTS-AT).
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks

from sousaphone.backbones.frontend_spec import FrontendContract

_EPSILON = torch.finfo(torch.float32).eps
_PREEMPHASIS = 0.97
# Samples per thread and group on a CPU; intermediates that fit its caches make a front end up to twice as fast.
GROUP_SAMPLES = 160_000
_BANDS = 32  # per block of a mel bank


class Frontend(nn.Module):
    """Base class of the front ends; the module's docstring describes the call."""

    time_dim, mel_dim = -2, -1
    has_bands = True  # whether neighbours along `mel_dim` are bands, which augmentation masks
    silent_padding = False  # whether padding adds silence to the features; otherwise they are those of the clip alone

    def __init__(self, contract: FrontendContract, window: Tensor, bank: Tensor) -> None:
        """Store the `window` of a frame and the mel `bank` [bins, M]."""
        super().__init__()
        self.contract = contract
        self.sample_rate = contract.sample_rate
        self.hop_seconds = contract.hop / contract.sample_rate
        self.window = nn.Buffer(window, persistent=False)
        self.bank = MelBank(bank)

    def period(self, lengths: Tensor) -> Tensor:
        """Frames [B] after which the features of clips of these `lengths` [B] repeat; infinite if they do not."""
        return torch.full(lengths.shape, math.inf, device=lengths.device)


def to_float(wave: Tensor) -> Tensor:
    """Convert int16 samples to float32 in [-1, 1); return float samples unchanged. Rows that overlap still do."""
    if wave.is_floating_point():
        return wave
    if (whole := overlapped(wave)) is not None:
        return to_float(whole).as_strided(wave.shape, wave.stride())
    return wave * (1 / 32768)  # exact, and in one pass


def overlapped(wave: Tensor) -> Tensor | None:
    """Return the waveform [S] of which the rows of `wave` [B, T] are overlapping views; None if they are not."""
    if torch.compiler.is_exporting() or wave.ndim != 2:
        return None
    if wave.stride(1) != 1 or not 0 < wave.stride(0) < wave.shape[1]:
        return None
    return wave.as_strided(((len(wave) - 1) * wave.stride(0) + wave.shape[1],), (1,))


def silence_padding(wave: Tensor, lengths: Tensor | None) -> Tensor:
    """Set `wave` [B, T] to zero beyond each row's length."""
    if lengths is None:
        return wave
    if wave.device.type == "cpu":  # several times as fast as a mask; on a GPU these reads would synchronise
        if int(lengths.min()) >= wave.shape[-1]:
            return wave
        silenced = wave.clone()
        for row, length in enumerate(lengths.tolist()):
            silenced[row, length:] = 0.0
        return silenced
    beyond = torch.arange(wave.shape[-1], device=wave.device) >= lengths.to(wave.device).unsqueeze(-1)  # [B, T]
    return wave.masked_fill(beyond, 0.0)


def clip_groups(wave: Tensor) -> tuple[Tensor, ...]:
    """Split a batch [B, T] into groups of clips that fit a CPU's caches; one group on a GPU and in an exported graph,
    whose batch size is not known."""
    if torch.compiler.is_exporting():
        return (wave,)
    if wave.device.type != "cpu":
        return wave.split(max(1, len(wave)))
    return wave.split(max(1, GROUP_SAMPLES // max(1, wave.shape[-1])) * torch.get_num_threads())


def power_spectrum(frames: Tensor, fft: int) -> Tensor:
    """Squared magnitudes of the discrete Fourier transform of frames [..., W], padded to `fft`: [..., fft // 2 + 1]."""
    if torch.compiler.is_exporting():  # ONNX has no complex numbers
        cosine, sine = (frames @ part for part in fourier_matrices(frames.shape[-1], fft))
        return cosine.square() + sine.square()
    squares = torch.view_as_real(torch.fft.rfft(frames, n=fft)).square()  # one contiguous read
    return squares[..., 0] + squares[..., 1]


def fourier_matrices(window: int, fft: int) -> tuple[Tensor, Tensor]:
    """Real and negative imaginary part of the discrete Fourier transform as matrices [window, fft // 2 + 1]."""
    # In NumPy, so that an exported graph has the numbers and not the operations. Angles are reduced to one turn first,
    # for the accuracy of the sines.
    angles = np.outer(np.arange(window), np.arange(fft // 2 + 1)) % fft * (2 * np.pi / fft)
    return torch.from_numpy(np.cos(angles).astype(np.float32)), torch.from_numpy(np.sin(angles).astype(np.float32))


class MelBank(nn.Module):
    """Multiplication of power spectra by a mel matrix [bins, M], which is zero except for a diagonal of triangles.

    On a CPU it multiplies blocks of adjacent bands by their nonzero bins only, a quarter of the operations.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Buffer(matrix.contiguous(), persistent=False)
        self.bands = matrix.shape[1]
        # (first bin, one past the last, first band, one past the last)
        self.blocks: list[tuple[int, int, int, int]] = []
        for first in range(0, self.bands, _BANDS):
            last = min(first + _BANDS, self.bands)
            bins = matrix[:, first:last].any(1).nonzero()
            low, high = (int(bins.min()), int(bins.max()) + 1) if len(bins) else (0, 1)
            self.blocks.append((low, high, first, last))

    def forward(self, power: Tensor) -> Tensor:
        """[..., bins] to [..., M]."""
        # `out` has no gradient.
        if power.device.type != "cpu" or power.requires_grad or torch.compiler.is_exporting():
            return power @ self.matrix
        flat = power.reshape(-1, power.shape[-1])
        bands = flat.new_empty(len(flat), self.bands)
        for a, b, c, d in self.blocks:
            torch.mm(flat[:, a:b], self.matrix[a:b, c:d], out=bands[:, c:d])
        return bands.view(*power.shape[:-1], self.bands)


def kaldi_bank(contract: FrontendContract) -> Tensor:
    bands = (contract.low_hz, contract.high_hz, 100.0, -500.0, 1.0)
    bank, _ = get_mel_banks(contract.mels, contract.fft, float(contract.sample_rate), *bands)
    return F.pad(bank, (0, 1)).T  # Kaldi's bank has no Nyquist bin


class KaldiFrontend(Frontend):
    """Kaldi's log mel filter bank as `torchaudio.compliance.kaldi.fbank` computes it, batched.

    Pre-emphasis 0.97, mean of each frame removed, no dither, incomplete frames dropped (snip_edges). The window [W] is
    applied after pre-emphasis.
    """

    def log_mels(self, wave: Tensor) -> Tensor:
        """[B, T] to [B, F, M] with F = (T - W) // hop + 1."""
        window, hop = self.contract.window, self.contract.hop
        if wave.shape[-1] < window:
            return wave.new_zeros(wave.shape[0], 0, self.contract.mels)
        whole, step = overlapped(wave), wave.stride(0)
        if whole is None or step % hop:
            return torch.cat([self._log_mels(part) for part in clip_groups(wave)])
        # Windows share the frames in which they overlap. Each row has the frames that begin in one step.
        rows = F.pad(whole, (0, step)).unfold(0, step + window - hop, step)
        frames = torch.cat([self._log_mels(part) for part in clip_groups(rows)]).flatten(0, 1)  # [F, M]
        return frames.unfold(0, (wave.shape[-1] - window) // hop + 1, step // hop)[: len(wave)].transpose(1, 2)

    def _log_mels(self, wave: Tensor) -> Tensor:
        x = wave.unfold(-1, self.contract.window, self.contract.hop)  # [B, F, W]
        x = x - x.mean(-1, keepdim=True)
        x = x - _PREEMPHASIS * F.pad(x, (1, 0), mode="replicate")[..., :-1]
        return self.bank(power_spectrum(x * self.window, self.contract.fft)).clamp_min(_EPSILON).log()


class AstFrontend(KaldiFrontend):
    """AST's features: Kaldi filter bank with a Hann window, cut or zero-padded to `frames`, then normalised.

    Equal to transformers' ASTFeatureExtractor (AudioSet mean and deviation).
    """

    def __init__(self, contract: FrontendContract, frames: int = 1024) -> None:
        super().__init__(contract, torch.hann_window(contract.window, periodic=False), kaldi_bank(contract))
        self.length = frames

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 16 kHz to [B, frames, 128]."""
        x = self.log_mels(wave)[:, : self.length]  # [B, F, M]
        if lengths is not None:
            complete = (lengths.to(x.device) - self.contract.window) // self.contract.hop + 1  # frames [B]
            padding = torch.arange(x.shape[1], device=x.device) >= complete[:, None]
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        x = F.pad(x, (0, 0, 0, self.length - x.shape[1]))
        return (x - self.contract.mean) / self.contract.scale


class ClapFrontend(Frontend):
    """CLAP's features for its HTS-AT: log mel bands (Slaney, dB) of Hann frames.

    A clip shorter than the window of `seconds` is repeated as often as it fits completely, followed by silence. A
    longer one is cut to its centre (the official extractor cuts a random part). Otherwise equal to transformers'
    ClapFeatureExtractor with `truncation="rand_trunc", padding="repeatpad"` and the preprocessor settings of
    laion/clap-htsat-unfused.
    """

    def __init__(self, contract: FrontendContract, seconds: float = 10.0) -> None:
        bands = (contract.low_hz, contract.high_hz, contract.mels, contract.sample_rate)
        bank = melscale_fbanks(contract.fft // 2 + 1, *bands, "slaney", "slaney")  # [513, 64]
        super().__init__(contract, torch.hann_window(contract.fft), bank)
        self.samples = round(seconds * contract.sample_rate)

    def fill(self, wave: Tensor, lengths: Tensor | None) -> Tensor:
        """Fill the window: [B, T] to [B, self.samples]."""
        width = wave.shape[-1]
        if lengths is None:
            central = wave[:, max(0, width - self.samples) // 2 :][:, : self.samples]
            repeated = central.repeat(1, max(1, self.samples // width))
            return F.pad(repeated, (0, self.samples - repeated.shape[-1]))
        if lengths.device.type == "cpu" and self.samples < 2 * lengths.min() and lengths.max() <= self.samples:
            # Fast path: every clip fits exactly once, the usual case at nano scale.
            return silence_padding(F.pad(wave[:, : self.samples], (0, max(0, self.samples - width))), lengths)
        lengths = lengths.to(wave.device)[:, None]  # [B, 1]
        once = lengths.clamp(min=1)
        repeats = (self.samples // once).clamp(min=1)
        start = (lengths - self.samples).clamp(min=0) // 2
        position = torch.arange(self.samples, device=wave.device)  # [samples]
        # Indices beyond the repeats are arbitrary; the result is masked.
        filled = wave.gather(1, (position % once + start).clamp_(max=width - 1))
        return filled.masked_fill_(position >= repeats * lengths, 0.0)

    def period(self, lengths: Tensor) -> Tensor:
        return torch.where(2 * lengths <= self.samples, lengths.clamp(min=1) / self.contract.hop, math.inf)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 48 kHz to [B, 1, F, 64] with F = 1 + samples // 480: 1001 frames in 10 s."""
        filled = self.fill(wave, lengths)
        return torch.cat([self._decibels(part) for part in clip_groups(filled)]).unsqueeze(1)

    def _decibels(self, wave: Tensor) -> Tensor:
        """[B, samples] to [B, F, 64]."""
        fft = self.contract.fft
        padded = F.pad(wave, (fft // 2, fft // 2), mode="reflect")
        frames = padded.unfold(-1, fft, self.contract.hop)  # [B, F, 1024]
        return 10.0 * self.bank(power_spectrum(frames * self.window, fft)).clamp(min=1e-10).log10()


class EfficientAtFrontend(Frontend):
    """EfficientAT's features: log Kaldi mel bands of a 25 ms window, approximately normalised.

    Equal to AugmentMelSTFT in fschmid56/EfficientAT in evaluation mode: pre-emphasis 0.97, symmetric Hann window of 800
    samples in an FFT of 1024, centred frames, reflection at the ends. Padding is silence.
    """

    time_dim, mel_dim = -1, -2
    silent_padding = True

    def __init__(self, contract: FrontendContract) -> None:
        edge = (contract.fft - contract.window) // 2
        window = F.pad(torch.hann_window(contract.window, periodic=False), (edge, edge))
        super().__init__(contract, window, kaldi_bank(contract))

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 32 kHz to [B, M, F] with F = 1 + (T - 1) // hop; T at least 514."""
        mel = torch.cat([self._mel(part) for part in clip_groups(silence_padding(wave, lengths))])  # [B, F, M]
        return mel.add_(1e-5).log().sub_(self.contract.mean).div_(self.contract.scale).transpose(1, 2)

    def _mel(self, wave: Tensor) -> Tensor:
        """[B, T] to the power in each band [B, F, M]."""
        x = torch.sub(wave[:, 1:], wave[:, :-1], alpha=_PREEMPHASIS)
        fft = self.contract.fft
        frames = F.pad(x, (fft // 2, fft // 2), mode="reflect").unfold(-1, fft, self.contract.hop)  # [B, F, 1024]
        return self.bank.forward(power_spectrum(frames * self.window, fft))


class BeatsFrontend(KaldiFrontend):
    """BEATs' features: Kaldi filter bank with a Povey window on 16-bit amplitudes, then normalised.

    Equal to `BEATs.preprocess` of https://github.com/microsoft/unilm/tree/master/beats. Padding is silence; `silence`
    is the value of every band of a silent frame.
    """

    silent_padding = True

    def __init__(self, contract: FrontendContract) -> None:
        # On 16-bit amplitudes. Scaling by a power of two is exact.
        window = torch.hann_window(contract.window, periodic=False).pow(0.85) * 2**15
        super().__init__(contract, window, kaldi_bank(contract))
        self.silence = (math.log(_EPSILON) - contract.mean) / contract.scale

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """[B, T] at 16 kHz to [B, F, 128] with F = (T - 400) // 160 + 1."""
        x = self.log_mels(silence_padding(wave, lengths))
        return (x - self.contract.mean) / self.contract.scale
