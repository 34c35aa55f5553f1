"""The transcriber's network: log-magnitude bands of a short and a long window, then dilated convolutions over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor, nn

RATE = 16_000  # Hz
HOP = 80  # samples: 5 ms
WINDOWS = (128, 512)  # samples: 8 and 32 ms
BANDS = (20, 36)  # of each window
_BAND_HERTZ = (60.0, 8_000.0)
_AROUND = 20  # frames on each side whose mean is subtracted
_TEMPLATE = 1024  # samples of a template: 64 ms
_WHITENING_HERTZ = 60.0  # half width of the mean spectrum
_FLOOR = 1e-3  # magnitudes re the loudest band of the clip: 60 dB
TEMPLATES = 3  # strokes of the clip with which it is compared
INPUTS = 3 * sum(BANDS) + 2 * (TEMPLATES + 1)
_WIDTH = 112  # channels of the hidden layers
# Of the blocks before and after the clip's mean and maximum are added, which show room and drum.
_DILATIONS = ((1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 1))
OUTPUTS = ("onset", "velocity", "grace", "buzz")


class Block(nn.Module):
    """A residual block: a dilated convolution over time, then a mixing of channels; [B, C, F] to the same."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)
        self.time = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(torch.relu(self.time(torch.relu(self.norm(x)))))


class StrokeNetwork(nn.Module):
    """Waveforms to what happens in each frame of 5 ms."""

    def __init__(self) -> None:
        super().__init__()
        for window, bands in zip(WINDOWS, BANDS, strict=True):
            self.register_buffer(f"hann{window}", torch.hann_window(window), persistent=False)
            self.register_buffer(f"bands{window}", _bands(window, bands), persistent=False)
        # Two frames are one position of the hidden layers, which halves their cost.
        self.inlet = nn.Conv1d(INPUTS, _WIDTH, 6, stride=2, padding=2)
        self.first = nn.Sequential(*(Block(_WIDTH, d) for d in _DILATIONS[0]))
        self.clip = nn.Linear(2 * _WIDTH, _WIDTH)
        self.second = nn.Sequential(*(Block(_WIDTH, d) for d in _DILATIONS[1]))
        self.outlet = nn.Sequential(nn.BatchNorm1d(_WIDTH), nn.ReLU(), nn.Conv1d(_WIDTH, 2 * len(OUTPUTS), 1))

    def features(self, wave: Tensor) -> Tensor:
        """Return the log-magnitude bands of waveforms [B, T] at 16 kHz, [B, INPUTS, F].

        The levels, 0 to 1 for 60 dB; their rise; their difference to the mean of the surrounding 0.2 s; and how far
        each frame begins like one of the clip's clearest strokes (`self_similarity`), with its difference to its mean.
        """
        features = []
        for window, _ in zip(WINDOWS, BANDS, strict=True):
            size = max(window, 256)
            spectrum = torch.stft(
                F.pad(wave, (size // 2, size // 2)),
                size,
                HOP,
                window,
                getattr(self, f"hann{window}"),
                center=False,
                return_complex=True,
            )
            bands = (getattr(self, f"bands{window}") @ spectrum.abs().square()).sqrt()
            loudest = bands.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
            features.append(1 - (bands / loudest).clamp(min=_FLOOR).log() / torch.tensor(_FLOOR).log())
        level = torch.cat(features, dim=1)
        rise = F.pad(level.diff(dim=2), (1, 0))
        around = F.avg_pool1d(level, 2 * _AROUND + 1, 1, _AROUND, count_include_pad=False)
        same = 1 + self_similarity(wave).clamp(min=0.01).log10() / 2
        sharp = same - F.avg_pool1d(same, 2 * _AROUND + 1, 1, _AROUND, count_include_pad=False)
        return torch.cat([level, 8 * rise, 4 * (level - around), same, 2 * sharp], dim=1)

    def forward(self, wave: Tensor) -> Tensor:
        """Return logits of onset, grace note and buzz, and the velocity in units of 127: [B, 4, F]."""
        return self.frames(self.features(wave))

    def frames(self, features: Tensor) -> Tensor:
        """Return the outputs of features [B, INPUTS, F]: [B, 4, F]."""
        count = features.shape[2]
        x = self.first(self.inlet(F.pad(features, (0, count % 2))))
        x = x + self.clip(torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1))[:, :, None]
        pairs = self.outlet(self.second(x)).unflatten(1, (len(OUTPUTS), 2))  # [B, 4, 2, F / 2]
        return pairs.transpose(2, 3).flatten(2)[:, :, :count]


def self_similarity(wave: Tensor) -> Tensor:
    """Compare each frame with the beginnings of the clip's clearest strokes.

    A room and a drum answer every stroke alike, so a stroke is found by its likeness to another one even where the
    sound of earlier strokes is louder. The clip is whitened (its mean spectrum is divided out), and correlated with 64
    ms from each of the frames that rise most over the preceding 60 ms.

    Args:
        wave: [B, T] at 16 kHz.

    Returns:
        The largest absolute correlation in each frame, relative to that of a template with itself, for each template
        and the greatest of them: [B, TEMPLATES + 1, F].
    """
    batch, samples = wave.shape
    wave = F.pad(wave, (0, max(0, 4 * _TEMPLATE - samples)))
    count, rows = wave.shape[1] // HOP + 1, torch.arange(batch, device=wave.device)
    size = next_fast_len(wave.shape[1] + _TEMPLATE, real=True)
    spectrum = torch.fft.rfft(wave, size)
    mean = _moving_mean(spectrum.abs(), round(_WHITENING_HERTZ * size / RATE))
    spectrum = spectrum / (mean + 1e-3 * mean.amax(1, keepdim=True) + 1e-9)
    white = torch.fft.irfft(spectrum, size)[:, : wave.shape[1]]
    energy = F.pad(white.square(), (0, count * HOP - wave.shape[1])).unflatten(1, (count, HOP)).mean(2)
    after = F.avg_pool1d(F.pad(energy, (0, 2))[:, None], 3, 1)[:, 0]
    before = F.avg_pool1d(F.pad(energy, (12, 0))[:, None], 12, 1)[:, 0, :count]
    loudest = after.amax(1, keepdim=True) + 1e-12
    clear = (after / (before + 1e-4 * loudest)).clamp(max=100).log() + 0.5 * (after / loudest + 1e-6).log()
    clear[:, count - _TEMPLATE // HOP - 2 :] = -torch.inf
    fade, window = (
        torch.linspace(1, 0, _TEMPLATE, device=wave.device).sqrt(),
        torch.arange(_TEMPLATE, device=wave.device),
    )
    found = []
    for _ in range(TEMPLATES):
        frame = clear.argmax(1)
        start = (frame * HOP - HOP // 2).clamp(min=0)
        template = white[rows[:, None], start[:, None] + window] * fade
        product = spectrum * torch.fft.rfft(template, size).conj()
        like = torch.fft.irfft(product, size)[:, : wave.shape[1]].abs()
        like = like / (template.square().sum(1, keepdim=True) + 1e-9)
        found.append(F.max_pool1d(F.pad(like, (0, count * HOP - wave.shape[1]))[:, None], HOP)[:, 0])
        clear = clear.masked_fill((torch.arange(count, device=wave.device) - frame[:, None]).abs() < 12, -torch.inf)
    similar = torch.stack(found, 1)[:, :, : samples // HOP + 1]
    return torch.cat([similar, similar.amax(1, keepdim=True)], dim=1)


def _moving_mean(x: Tensor, around: int) -> Tensor:
    """Mean of [B, N] over the elements up to `around` away, by sums: a pooling takes time in proportion to `around`."""
    exact = (x.cpu() if x.device.type == "mps" else x).double()  # mps has no float64
    sums, place = F.pad(exact.cumsum(1), (1, 0)), torch.arange(x.shape[1], device=exact.device)
    low, high = (place - around).clamp(min=0), (place + around + 1).clamp(max=x.shape[1])
    return ((sums[:, high] - sums[:, low]) / (high - low)).to(x)


def _bands(window: int, count: int) -> Tensor:
    """Averaging matrix of triangular bands, narrow below and logarithmic above, float [bands, bins]."""
    size = max(window, 256)
    hertz = torch.arange(size // 2 + 1) * (RATE / size)
    low, high = (torch.tensor(h / 400 + 1).log() for h in _BAND_HERTZ)
    edges = 400 * (torch.linspace(float(low), float(high), count + 2).exp() - 1)
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    bands = torch.minimum(rise, fall).clamp(min=0)
    nearest = F.one_hot((hertz - edges[1:-1, None]).abs().argmin(dim=1), len(hertz)).float()
    bands = torch.where(bands.sum(dim=1, keepdim=True) > 0, bands, nearest)
    return bands / bands.sum(dim=1, keepdim=True)
