"""`Predictor`: a trained model that returns calibrated probabilities of the rudiments for waveforms and recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sousaphone.data.cache.decode import in_threads, resampler, to_int16, to_mono
from sousaphone.data.readers.samples import HIGHEST_RATE, LOWEST_RATE
from sousaphone.deploy.calibration import probabilities
from sousaphone.deploy.loading import find_graphs, load_members
from sousaphone.deploy.model_folder import Calibration, ModelConfig
from sousaphone.deploy.onnx_session import refuse_without_onnx
from sousaphone.deploy.recordings import Recording, cut, scan
from sousaphone.deploy.scorers import OnnxScorer, Scorer, TorchScorer
from sousaphone.deploy.segments import GATE_DB, changes, phrases, window_starts
from sousaphone.errors import UserError
from sousaphone.runs.deployment import Runtime

SHORT_WINDOWS = 4  # recordings of at most this many window lengths, without a pause, are scored as a whole
_MOST_CHANNELS = 64
_LEAST = 1e-12  # probability


@dataclass(frozen=True)
class Segment:
    """A part of a recording with one answer."""

    start: float  # seconds
    end: float
    top: tuple[tuple[str, float], ...]  # rudiments with their confidence, the most probable first
    undecided: bool  # whether the first one's confidence is below the threshold

    @property
    def rudiment(self) -> str:
        return self.top[0][0]

    @property
    def confidence(self) -> float:
        return self.top[0][1]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for a recording."""

    recording: Recording
    segments: tuple[Segment, ...]  # in order; empty for silence
    times: npt.NDArray[np.float64]  # centre of each window, seconds [W]
    probabilities: npt.NDArray[np.float64]  # of the classes in each window [W, C]

    @property
    def name(self) -> str:
        return self.recording.name


def load(
    source: Path | str, *, weights: Path | str | None = None, device: str = "auto", runtime: Runtime = "torch"
) -> Predictor:
    """Load a trained model.

    Args:
        source: a model folder, a run directory (its best trial), or a repository of the hub (OWNER/NAME).
        weights: the base weights of an adapter, if they are not where it was trained.
        device: 'auto', 'cuda', 'mps' or 'cpu'.
        runtime: 'torch'; or 'onnx' or 'int8' for the graphs of a model folder, on the CPU and without base weights.

    Raises:
        UserError: the source is none of these, damaged, of a later version of the format, or trained on other base
            weights. Nothing in it is executed.
    """
    if runtime != "torch":
        refuse_without_onnx(f"runtime {runtime}")
        config, graphs = find_graphs(source, runtime)
        return Predictor(config, [each.calibration for each in graphs.values()], OnnxScorer(config, list(graphs)))
    config, members = load_members(source, weights)
    return Predictor(config, [each.config.calibration for each in members], TorchScorer(members, device))


class Predictor:
    """A trained model, or an ensemble of them, whose calibrated probabilities are averaged.

    Attributes:
        classes: the rudiments, in the order of the probabilities.
        config: the content of its config.json.
    """

    def __init__(self, config: ModelConfig, calibrations: Sequence[Calibration], scorer: Scorer) -> None:
        """Use the networks of `scorer`; `calibrations` are those of its members."""
        self.config, self.classes = config, config.classes
        self.scorer, self.device = scorer, scorer.device
        self._temperatures = [(each.temperature, each.averaged_temperature) for each in calibrations]

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.config.clip_seconds * self.config.sample_rate)

    def __call__(self, wave: npt.NDArray[Any] | Tensor, rate: int) -> npt.NDArray[np.float64]:
        """Compute the probabilities [C] of a clip: the mean of its windows' logits, calibrated.

        Args:
            wave: samples [T] or [channels, T] in [-1, 1], or integers.
            rate: their sample rate, Hz.
        """
        return self.combine(self.score(*self.windows(self.prepared(wave, rate))))

    def prepared(self, wave: npt.NDArray[Any] | Tensor, rate: int) -> npt.NDArray[np.int16]:
        """Mix a waveform to mono, resample and round it, as the data for training; see `__call__`."""
        array = np.asarray(wave.detach().cpu() if isinstance(wave, Tensor) else wave)
        if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and len(array) > _MOST_CHANNELS):
            raise UserError(f"wave has the shape {list(array.shape)}; give samples [T] or [channels, T]")
        if not LOWEST_RATE <= rate <= HIGHEST_RATE or int(rate) != rate:
            raise UserError(f"rate {rate} is not a sample rate; give one from {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        full_scale = -float(np.iinfo(array.dtype).min) if array.dtype.kind == "i" else 1.0
        samples = np.atleast_2d(array).T.astype(np.float32) / np.float32(full_scale)
        if not np.isfinite(samples).all():
            raise UserError("wave contains NaN or infinity; give finite samples")
        return self.resampled(samples, int(rate))

    def resampled(self, samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.int16]:
        """Mix samples [T, channels] to mono, resample and round them."""
        mono = torch.from_numpy(np.ascontiguousarray(to_mono(samples)))
        return to_int16(resampler(rate, self.config.sample_rate)(mono))

    def windows(
        self, wave: npt.NDArray[np.int16], hop: int | None = None
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
        """Cut a waveform at the model's rate into windows [W, T] and their lengths [W], `hop` samples apart (default:
        half a window)."""
        starts = window_starts(len(wave), self.window, hop or self.window // 2)
        lengths = np.full(len(starts), min(len(wave), self.window))
        return np.stack(list(cut([wave], starts.tolist(), lengths.tolist(), self.window))), lengths

    def score(self, windows: npt.NDArray[np.int16], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the logits [M, W, C] of M members from windows [W, T] of these lengths."""
        starts = range(0, len(windows), self.scorer.batch)
        parts = (slice(start, start + self.scorer.batch) for start in starts)
        return np.concatenate([self.scorer(windows[part], lengths[part]) for part in parts], 1)

    def combine(self, logits: npt.NDArray[np.float32], single: bool = False) -> npt.NDArray[np.float64]:
        """Compute the probabilities [..., C] of answers from the logits [M, ..., W, C] of their windows, calibrated as
        those of `single` windows or of an average, and averaged over members."""
        pairs = zip(logits, self._temperatures, strict=True)
        each = [probabilities(own.mean(-2), temperatures[not single]) for own, temperatures in pairs]
        mean: npt.NDArray[np.float64] = np.mean(each, axis=0)
        return mean

    def predict(
        self,
        path: Path | str | BytesIO,
        *,
        name: str = "",
        top: int = 5,
        hop_seconds: float | None = None,
        gate_db: float = GATE_DB,
        min_confidence: float | None = None,
        advance: Callable[[float], None] = lambda seconds: None,
    ) -> Prediction:
        """Name the rudiments of a recording of any length.

        Args:
            path: an audio file.
            name: for messages; by default the path.
            top: how many rudiments an answer lists.
            hop_seconds: seconds between windows; default half a window.
            gate_db: parts quieter than the loudest by more than this are silence.
            min_confidence: answers below it are 'undecided'; default: the threshold chosen on validation, if any.
            advance: called with the additional seconds of audio processed; their sum is twice the duration.

        Raises:
            UserError: the file cannot be decoded.
        """
        source = path if isinstance(path, BytesIO) else Path(path)
        if hop_seconds is not None and not 0.05 <= hop_seconds <= self.config.clip_seconds:
            raise UserError(f"hop {hop_seconds:g} s is not from 0.05 s to a window, {self.config.clip_seconds:g} s")
        recording = scan(name or str(path), source, SHORT_WINDOWS * self.config.clip_seconds, advance)
        rate, window = self.config.sample_rate, self.window
        hop = window // 2 if hop_seconds is None else round(hop_seconds * rate)
        total = -(-recording.samples * rate // recording.rate)
        parts = phrases(recording.levels, gate_db)
        if recording.wave is not None and len(parts) == 1:  # a clip, scored as a whole like those of training
            parts = [(0.0, recording.seconds)]
        places = [(round(start * rate), min(round(end * rate), total)) for start, end in parts]
        layouts = [begin + window_starts(end - begin, window, hop) for begin, end in places]
        lengths = [np.full(len(s), min(end - b, window)) for s, (b, end) in zip(layouts, places, strict=True)]
        starts = np.concatenate([np.empty(0, np.int64), *layouts])
        logits = self._score_windows(recording, starts, np.concatenate([np.empty(0, np.int64), *lengths]), advance)
        per_window = self.combine(logits[..., None, :], single=True)
        times = (starts + window / 2) / rate
        limit = self.config.calibration.undecided_below if min_confidence is None else min_confidence
        segments, first = [], 0
        for part, layout in zip(parts, layouts, strict=True):
            own = slice(first, first := first + len(layout))
            for start, end in self._bounds(part, times[own], per_window[own], hop / rate):
                chosen = self._inside(start, end, times[own], hop / rate)
                answer = self.combine(logits[:, own][:, chosen])
                best = np.argsort(-answer, kind="stable")[:top]
                named = tuple((self.classes[label], float(answer[label])) for label in best)
                segments.append(Segment(start, end, named, named[0][1] < (limit or 0.0)))
        return Prediction(recording, tuple(segments), times, per_window)

    def _score_windows(
        self,
        recording: Recording,
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        advance: Callable[[float], None],
    ) -> npt.NDArray[np.float32]:
        """Compute the logits [M, W, C] of windows of a recording, while further ones are decoded."""
        cuts = cut(recording.resampled(self.config.sample_rate), starts.tolist(), lengths.tolist(), self.window)
        # Batches in several threads are faster than operators in several threads.
        many = self.device.type == "cpu" and recording.wave is None
        batches = zip(_batches(cuts, self.scorer.batch), _batches(lengths, self.scorer.batch), strict=True)
        scores = (in_threads if many else map)(lambda batch: self.score(*batch), batches)
        found = [np.empty((len(self._temperatures), 0, len(self.classes)), np.float32)]
        for score in scores:
            found.append(score)
            advance(recording.seconds * score.shape[1] / len(starts))
        return np.concatenate(found, axis=1)

    def _bounds(
        self,
        part: tuple[float, float],
        times: npt.NDArray[np.float64],
        per_window: npt.NDArray[np.float64],
        hop: float,
    ) -> Iterable[tuple[float, float]]:
        """Divide a phrase where its rudiment changes: halfway between the centres of two windows."""
        firsts = changes(np.log(per_window + _LEAST), min(1.0, hop / self.config.clip_seconds))
        middles = [float(times[first - 1] + times[first]) / 2 for first in firsts[1:]]
        return pairwise([part[0], *middles, part[1]])

    def _inside(self, start: float, end: float, times: npt.NDArray[np.float64], hop: float) -> npt.NDArray[np.bool_]:
        """Which windows are in a segment, up to half a hop; those with their centre in it if no window is."""
        room = max(0.0, self.config.clip_seconds - hop) / 2
        whole = (times - room >= start - 1e-6) & (times + room <= end + 1e-6)
        centred = (times >= start) & (times <= end)
        return whole if whole.any() else centred if centred.any() else np.ones(len(times), bool)


def _batches(items: Iterable[Any], size: int) -> Iterator[npt.NDArray[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield np.stack(batch)
