"""When something is struck: the peaks of the spectral flux."""

from __future__ import annotations

import functools

import numpy as np
import torch

# The onset counter: see `onsets`.
_FRAME_SECONDS, _HOP_SECONDS = 0.0116, 0.0029
_BANDS, _BAND_HERTZ = 16, (200.0, 16_000.0)
_COMPRESSION = 10.0
_LAG = 3  # hops over which a band's rise is taken
_APART_HOPS, _AROUND_HOPS = 7, 34  # 20 and 100 ms
_SHARE = 0.25  # of the strongest onsets, by which one must stand out


def onsets(wave: np.ndarray, rate: int) -> np.ndarray:
    """When something is struck, in seconds, float [N]: the peaks of the spectral flux.

    The flux is the summed rise, over three hops of 3 ms, of log-compressed bands (S. Dixon, "Onset detection
    revisited", 2006). A peak counts that is the highest within 20 ms and stands out from the mean of 100 ms on both
    sides by a share of the clip's strongest ones. Grace notes and soft strokes under a loud one's decay are missed.

    Args:
        wave: float32 [T], mono.
        rate: Hz.
    """
    hop, frame = max(1, round(_HOP_SECONDS * rate)), max(2, round(_FRAME_SECONDS * rate))
    if len(wave) < frame + _LAG * hop:
        return np.zeros(0)
    padded = torch.nn.functional.pad(torch.from_numpy(wave), (frame, 0))
    spectrum = torch.stft(padded, frame, hop, window=torch.hann_window(frame), center=False, return_complex=True)
    bands = (_bands(frame, rate) @ spectrum.abs().square()).sqrt()  # [bands, F]
    loud = torch.log1p(_COMPRESSION * bands / bands.amax(dim=1, keepdim=True).clamp(min=1e-9))
    flux = (loud[:, _LAG:] - loud[:, :-_LAG]).clamp(min=0).mean(dim=0)[None]  # [1, F - lag]
    highest = torch.nn.functional.max_pool1d(flux, 2 * _APART_HOPS + 1, 1, _APART_HOPS)
    mean = torch.nn.functional.avg_pool1d(flux, 2 * _AROUND_HOPS + 1, 1, _AROUND_HOPS, count_include_pad=False)
    threshold = mean + _SHARE * torch.quantile(flux, 0.98)
    peaks = torch.nonzero((flux == highest) & (flux > threshold))[:, 1].numpy()
    return (peaks + _LAG) * hop / rate


@functools.cache
def _bands(frame: int, rate: int) -> torch.Tensor:
    """Means over the bins of logarithmic bands, float [bands, bins]; bands without a bin are left out."""
    hertz = torch.arange(frame // 2 + 1) * (rate / frame)
    edges = torch.from_numpy(np.geomspace(*_BAND_HERTZ, _BANDS + 1)).float()
    inside = (torch.bucketize(hertz, edges) - 1 == torch.arange(_BANDS)[:, None]).float()
    inside = inside[inside.sum(dim=1) > 0]
    return inside / inside.sum(dim=1, keepdim=True)
