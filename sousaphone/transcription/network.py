"""The transcriber's network: log-magnitude bands of a short and a long window, then dilated convolutions over time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATE = 16_000  # Hz
HOP = 80  # samples: 5 ms
WINDOWS = (128, 512)  # samples: 8 and 32 ms
BANDS = (20, 36)  # of each window
_BAND_HERTZ = (60.0, 8_000.0)
_AROUND = 20  # frames on each side whose mean is subtracted
_FLOOR = 1e-3  # magnitudes re the loudest band of the clip: 60 dB
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
    """Waveforms to what happens in each frame of 5 ms.

    Args:
        channels: of the hidden layers.
        dilations: of the blocks before and after the clip's mean is added, which shows the room and the drum.
    """

    def __init__(
        self,
        channels: int = 96,
        dilations: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 1)),
    ) -> None:
        super().__init__()
        for window, bands in zip(WINDOWS, BANDS, strict=True):
            self.register_buffer(f"hann{window}", torch.hann_window(window), persistent=False)
            self.register_buffer(f"bands{window}", _bands(window, bands), persistent=False)
        self.inlet = nn.Conv1d(3 * sum(BANDS), channels, 5, padding=2)
        self.first = nn.Sequential(*(Block(channels, d) for d in dilations[0]))
        self.clip = nn.Linear(channels, channels)
        self.second = nn.Sequential(*(Block(channels, d) for d in dilations[1]))
        self.outlet = nn.Sequential(nn.BatchNorm1d(channels), nn.ReLU(), nn.Conv1d(channels, len(OUTPUTS), 1))

    def features(self, wave: Tensor) -> Tensor:
        """Return the log-magnitude bands of waveforms [B, T] at 16 kHz, [B, 3 bands, F].

        The levels, 0 to 1 for 60 dB; their rise; and their difference to the mean of the surrounding 0.2 s.
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
        return torch.cat([level, 8 * rise, 4 * (level - around)], dim=1)

    def forward(self, wave: Tensor) -> Tensor:
        """Return logits of onset, grace note and buzz, and the velocity in units of 127: [B, 4, F]."""
        return self.frames(self.features(wave))

    def frames(self, features: Tensor) -> Tensor:
        x = self.first(self.inlet(features))
        x = x + self.clip(x.mean(dim=2))[:, :, None]
        return self.outlet(self.second(x))


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
