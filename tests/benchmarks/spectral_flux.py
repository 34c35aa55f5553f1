"""Onset detection by spectral flux."""

from __future__ import annotations

import functools

import numpy as np
import torch

_FRAME_SECONDS, _HOP_SECONDS = 0.0116, 0.0029
_BANDS, _BAND_HERTZ = 16, (200.0, 16_000.0)
_COMPRESSION = 10.0
_LAG = 3  # hops between the two spectra whose difference is the flux
_PEAK_HOPS, _MEAN_HOPS = 7, 34  # half widths of the windows of the peak and of the mean: 20 and 100 ms
_THRESHOLD = 0.25  # above the mean, as a fraction of the 98th percentile of the flux


def onsets(wave: np.ndarray, rate: int) -> np.ndarray:
    """Detect stroke onsets as peaks of the spectral flux; return their times in seconds, float [N].

    The flux is the summed rise, over three hops of 3 ms, of log-compressed bands (S. Dixon, "Onset detection
    revisited", 2006). A peak is an onset if it is the highest within 20 ms and exceeds the mean of the surrounding
    100 ms on each side by a fraction of the clip's strongest onsets. Grace notes and soft strokes masked by the decay
    of a loud one are missed.

    Args:
        wave: float32 [T], mono, at `rate` Hz.
    """
    hop, frame = max(1, round(_HOP_SECONDS * rate)), max(2, round(_FRAME_SECONDS * rate))
    if len(wave) < frame + _LAG * hop:
        return np.zeros(0)
    padded = torch.nn.functional.pad(torch.from_numpy(wave), (frame, 0))
    spectrum = torch.stft(padded, frame, hop, window=torch.hann_window(frame), center=False, return_complex=True)
    bands = (_bands(frame, rate) @ spectrum.abs().square()).sqrt()  # [bands, F]
    loud = torch.log1p(_COMPRESSION * bands / bands.amax(dim=1, keepdim=True).clamp(min=1e-9))
    flux = (loud[:, _LAG:] - loud[:, :-_LAG]).clamp(min=0).mean(dim=0)[None]  # [1, F - lag]
    highest = torch.nn.functional.max_pool1d(flux, 2 * _PEAK_HOPS + 1, 1, _PEAK_HOPS)
    mean = torch.nn.functional.avg_pool1d(flux, 2 * _MEAN_HOPS + 1, 1, _MEAN_HOPS, count_include_pad=False)
    threshold = mean + _THRESHOLD * torch.quantile(flux, 0.98)
    peaks = torch.nonzero((flux == highest) & (flux > threshold))[:, 1].numpy()
    return (peaks + _LAG) * hop / rate


@functools.cache
def _bands(frame: int, rate: int) -> torch.Tensor:
    """Averaging matrix of logarithmic bands, float [bands, bins]; bands without a bin are omitted."""
    hertz = torch.arange(frame // 2 + 1) * (rate / frame)
    edges = torch.from_numpy(np.geomspace(*_BAND_HERTZ, _BANDS + 1)).float()
    inside = (torch.bucketize(hertz, edges) - 1 == torch.arange(_BANDS)[:, None]).float()
    inside = inside[inside.sum(dim=1) > 0]
    return inside / inside.sum(dim=1, keepdim=True)
