"""Copies of a recording: re-encoded, resampled, shifted by silence, trimmed, or louder.

Each clip has a fingerprint of its strokes: the power spectrum of its envelope. It does not depend on a shift or on the
level, and since no two performances have the same timing to the millisecond, those of different clips are
uncorrelated beyond their common rate of strokes. Pairs with similar fingerprints are decoded again and compared by
their sound: the highest correlation of their waveforms at any shift.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.fft
import torch
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sousaphone.data.cache.decode import in_threads, resampler, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.text import counted, tracked

_ENVELOPE_HERTZ = 1000
_BAND_HERTZ, _BINS, _TREND = (10.0, 200.0), 512, 5  # of the envelope's spectrum, and bins of its trend on each side
_SIMILAR = 0.35  # correlation of fingerprints; one in a million pairs of different performances exceeds it
_MOST_PAIRS = 20_000  # most similar pairs whose waveforms are compared
_BATCH, _ROWS = 64, 1024
_RATE, _SOUND_HERTZ = 16_000, (100.0, 3500.0)  # of the waveforms that are compared
_SMOOTHING_HERTZ = 200.0
_SAME = 0.7  # correlation of waveforms: at least 0.9 of copies, at most 0.4 of different performances
_OVERLAP = 0.5  # of each clip's energy


def fingerprint(wave: np.ndarray, rate: int) -> np.ndarray:
    """Return the normalised spectrum of a clip's envelope, float16 [512]; zeros for a clip without variation.

    Args:
        wave: float32 [T], mono, at `rate` Hz.
    """
    edges = np.arange(len(wave) * _ENVELOPE_HERTZ // rate) * rate // _ENVELOPE_HERTZ
    if len(edges) < 2:
        return np.zeros(_BINS, np.float16)
    rise = np.diff(np.sqrt(np.add.reduceat(wave**2, edges)))
    size = 2 ** int(np.ceil(np.log2(max(2 * len(rise), 2**14))))
    power = np.abs(scipy.fft.rfft(rise, size)) ** 2
    hertz = np.linspace(*_BAND_HERTZ, _BINS + 2 * _TREND + 1)
    bins = np.searchsorted(scipy.fft.rfftfreq(size, 1 / _ENVELOPE_HERTZ), hertz)
    level = np.log(np.add.reduceat(power, bins)[:-1] / np.diff(bins) + 1e-15)
    detail = (level - uniform_filter1d(level, 2 * _TREND + 1))[_TREND:-_TREND]
    detail -= detail.mean()
    norm = np.linalg.norm(detail)
    return (detail / norm if norm > 1e-6 else 0 * detail).astype(np.float16)


def find_copies(dataset: Dataset, fingerprints: np.ndarray) -> list[list[int]]:
    """Return the groups of clips, by index, that are the same recording.

    Clips of the same `group_id`, renderings of one performance, are not compared.

    Args:
        fingerprints: [N, 512], one of each clip.

    Raises:
        UserError: a clip with a similar fingerprint is not decodable.
    """
    similar = _similar(fingerprints.astype(np.float32), pd.factorize(dataset.clips.group_id.replace("", None))[0])
    if not similar:
        return []
    starts = range(0, len(similar), _BATCH)
    title = f"comparing {counted(len(similar), 'pair')} of similar clips"
    clips = len(dataset.clips)
    copies, groups = np.zeros((0, 2), int), np.arange(clips)
    for start in tracked(starts, title, len(starts)):
        # Of many copies of one recording, few pairs are needed.
        if batch := [pair for pair in similar[start : start + _BATCH] if groups[pair[0]] != groups[pair[1]]]:
            copies = np.concatenate([copies, np.array(_same_sound(dataset, batch), int).reshape(-1, 2)])
            graph = coo_array((np.ones(len(copies)), copies.T), shape=(clips, clips))
            groups = connected_components(graph, directed=False)[1]
    rows = pd.Series(range(clips)).groupby(groups).groups.values()
    return [own.tolist() for own in rows if len(own) > 1]


def _similar(fingerprints: np.ndarray, groups: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of clips, by index, with similar fingerprints: the most similar ones if there are too many.

    Args:
        groups: int [N], -1 for none.
    """
    found = np.zeros((0, 2), int)
    values = np.zeros(0, np.float32)
    starts = range(0, len(fingerprints), _ROWS)
    for start in tracked(starts, f"comparing {len(fingerprints):,} fingerprints", len(starts)):
        correlation = fingerprints[start : start + _ROWS] @ fingerprints[start:].T
        first, second = np.nonzero(correlation > _SIMILAR)
        value = correlation[first, second]
        first, second = first + start, second + start
        valid = (first < second) & ((groups[first] < 0) | (groups[first] != groups[second]))
        values = np.concatenate([values, value[valid]])
        found = np.concatenate([found, np.stack([first, second], axis=1)[valid]])
        if len(values) > _MOST_PAIRS:
            best = np.sort(np.argpartition(-values, _MOST_PAIRS)[:_MOST_PAIRS])
            values, found = values[best], found[best]
    return [(int(first), int(second)) for first, second in found]


def _same_sound(dataset: Dataset, batch: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Decode the clips of the pairs, and return the pairs whose waveforms correlate."""

    def decode(clip: tuple[str, Path | BytesIO]) -> tuple[np.ndarray, int]:
        samples, rate = read_samples(*clip)
        return resampler(rate, _RATE)(torch.from_numpy(to_mono(samples))).numpy(), rate

    rows = sorted({row for pair in batch for row in pair})
    decoded = in_threads(decode, open_clips(dataset.root, dataset.clips.audio_path.iloc[rows].tolist()))
    sounds = dict(zip(rows, decoded, strict=True))
    scores = in_threads(lambda pair: correlation(*(sounds[row] for row in pair)), batch)
    return [pair for pair, score in zip(batch, scores, strict=True) if score > _SAME]


def correlation(a: tuple[np.ndarray, int], b: tuple[np.ndarray, int]) -> float:
    """Return the highest absolute correlation of two waveforms at any shift, 0 to 1.

    Of both, a band that even narrow codecs keep is flattened halfway, so that a common resonance of the drum does not
    count as much as the strokes.

    Args:
        a, b: each the waveform [T], resampled to 16 kHz, and the original rate in Hz.
    """
    length = len(a[0]) + len(b[0])
    size = scipy.fft.next_fast_len(length, real=True)
    hertz = scipy.fft.rfftfreq(size, 1 / _RATE)
    band = (hertz >= _SOUND_HERTZ[0]) & (hertz <= min(_SOUND_HERTZ[1], 0.45 * a[1], 0.45 * b[1]))
    spectra, waves = [], []
    for wave, _ in (a, b):
        spectrum = scipy.fft.rfft(wave, size) * band
        power = uniform_filter1d(np.abs(spectrum) ** 2, max(1, round(_SMOOTHING_HERTZ * size / _RATE)))
        spectrum = np.where(band, spectrum / np.maximum(power, 1e-12 * power.max() + 1e-30) ** 0.25, 0)
        spectra.append(spectrum)
        waves.append(scipy.fft.irfft(spectrum, size)[: len(wave)].astype(np.float64))
    products = np.abs(scipy.fft.irfft(spectra[0] * spectra[1].conj(), size))
    energies = [np.concatenate([[0], np.cumsum(wave**2)]) for wave in waves]
    shifts = np.arange(1 - len(waves[1]), len(waves[0]))
    starts, ends = np.maximum(shifts, 0), np.minimum(shifts + len(waves[1]), len(waves[0]))
    common = [energies[0][ends] - energies[0][starts], energies[1][ends - shifts] - energies[1][starts - shifts]]
    valid = (common[0] > _OVERLAP * energies[0][-1]) & (common[1] > _OVERLAP * energies[1][-1])
    if not valid.any():
        return 0.0
    return float((products[shifts[valid] % size] / np.sqrt(common[0][valid] * common[1][valid])).max())
