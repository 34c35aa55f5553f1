"""`Predictor`: a trained model that returns calibrated probabilities of the rudiments for waveforms and recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sousaphone.config import DEVICES, PRECISIONS
from sousaphone.data.cache.decode import in_threads, resampler, to_int16, to_mono
from sousaphone.data.readers.samples import HIGHEST_RATE, LOWEST_RATE, MOST_FLOAT
from sousaphone.deploy.calibration import probabilities
from sousaphone.deploy.loading import find_graphs, load_members
from sousaphone.deploy.model_folder import Calibration, ModelConfig
from sousaphone.deploy.onnx_session import GRAPHS, refuse_without_onnx
from sousaphone.deploy.recordings import Recording, Samples, decoded
from sousaphone.deploy.scorers import OnnxScorer, Scorer, TorchScorer
from sousaphone.deploy.segments import GATE_DB, divide, phrases, window_starts
from sousaphone.errors import UserError
from sousaphone.runs.deployment import Runtime
from sousaphone.text import one_line

SHORT_WINDOWS = 4  # recordings of at most this many window lengths, without a pause, are scored with the silence around
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
    source: Path | str,
    *,
    weights: Path | str | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: Runtime = "torch",
) -> Predictor:
    """Load a trained model.

    Args:
        source: a model folder, a run directory (its best trial), or a repository of the hub (OWNER/NAME).
        weights: the base weights of an adapter, if they are not where it was trained; only for an adapter.
        device: 'auto', 'cuda', 'mps' or 'cpu'.
        precision: 'float32', 'bfloat16', or 'auto': bfloat16 on CUDA, and on a CPU with instructions for it if the
            model has full size and was trained in bfloat16.
        runtime: 'torch'; or 'onnx' or 'int8' for a model folder's graphs, on the CPU in float32, without `weights`.

    Raises:
        UserError: an option is unknown or contradicts another; or the source is none of these, damaged, of a later
            version of the format, or trained on other base weights. Nothing in it is executed.
    """
    for option, value, known in (
        ("device", device, ("auto", *DEVICES)),
        ("precision", precision, PRECISIONS),
        ("runtime", runtime, ("torch", *GRAPHS)),
    ):
        if value not in known:
            raise UserError(f"{option} {value!r} is unknown; choose from: {', '.join(known)}")
    if runtime != "torch":
        if device not in ("auto", "cpu") or precision == "bfloat16" or weights is not None:
            raise UserError(
                f"runtime {runtime} computes on the CPU in float32, without base weights; omit device, precision and "
                "weights"
            )
        refuse_without_onnx(f"runtime {runtime}")
        config, graphs = find_graphs(source, runtime)
        return Predictor(config, [each.calibration for each in graphs.values()], OnnxScorer(config, graphs))
    config, members = load_members(source, weights)
    if weights is not None and not any(each.config.kind == "adapter" for each in members):
        raise UserError(f"{source} has all of its tensors and reads no base weights; leave weights out")
    return Predictor(config, [each.config.calibration for each in members], TorchScorer(members, device, precision))


class Predictor:
    """A trained model, or an ensemble of them, whose calibrated probabilities are averaged.

    Attributes:
        classes: the rudiments, in the order of the probabilities.
        config: the content of its config.json.
        batch: windows that are scored at once.
    """

    def __init__(self, config: ModelConfig, calibrations: Sequence[Calibration], scorer: Scorer) -> None:
        """Use the networks of `scorer`; `calibrations` are those of its members."""
        self.config, self.classes = config, config.classes
        self.scorer, self.device, self.batch = scorer, scorer.device, scorer.batch
        self._temperatures = [(each.temperature, each.averaged_temperature) for each in calibrations]

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.config.clip_seconds * self.config.sample_rate)

    def __call__(self, wave: npt.NDArray[Any] | Tensor, rate: int) -> npt.NDArray[np.float64]:
        """Compute the probabilities [C] of a clip: the mean of its windows' logits, calibrated.

        Args:
            wave: samples [T] or [channels, T]: floats in [-1, 1], or integers of 8, 16 or 32 bits at the full scale of
                their type.
            rate: their sample rate, Hz.
        """
        return self.combine(self.score(*self.windows(self.prepared(wave, rate))))

    def prepared(self, wave: npt.NDArray[Any] | Tensor, rate: int) -> npt.NDArray[np.int16]:
        """Mix a waveform to mono, resample and round it, as the data for training; see `__call__`."""
        try:
            if isinstance(wave, Tensor):
                wave = (wave.float() if wave.is_floating_point() else wave).detach().cpu()
            array = np.asarray(wave)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"wave is not an array ({one_line(error)}); give samples [T] or [channels, T]") from None
        if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and len(array) > _MOST_CHANNELS):
            raise UserError(f"wave has the shape {list(array.shape)}; give samples [T] or [channels, T]")
        if not isinstance(rate, Real) or not LOWEST_RATE <= rate <= HIGHEST_RATE or int(rate) != rate:
            raise UserError(f"rate {rate} is not a sample rate; give one from {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        if array.dtype.kind not in "if":
            raise UserError(f"wave has the type {array.dtype}; give float samples in [-1, 1], or signed integers")
        if array.dtype.kind == "i" and array.dtype.itemsize > 4:
            raise UserError(f"wave has the type {array.dtype}, which no audio has; convert it to int16")
        full_scale = -float(np.iinfo(array.dtype).min) if array.dtype.kind == "i" else 1.0
        samples = np.atleast_2d(array).T.astype(np.float32) / np.float32(full_scale)
        if not np.isfinite(samples).all():
            raise UserError("wave contains NaN or infinity; give finite samples")
        if (peak := np.abs(samples).max()) > MOST_FLOAT:
            raise UserError(
                f"wave contains float samples of up to {peak:,.0f}; scale them to [-1, 1], or give integers"
            )
        if 0 < peak * 32768 <= 0.5 and array.dtype.kind == "i":
            raise UserError(
                f"wave contains {array.dtype} samples of up to {peak * full_scale:,.0f}, which are silence at the full "
                "scale of that type; convert them to the type that they were recorded in, such as int16"
            )
        return self.resampled(samples, int(rate))

    def resampled(self, samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.int16]:
        """Mix samples [T, channels] to mono, resample and round them."""
        mono = torch.from_numpy(np.ascontiguousarray(to_mono(samples)))
        return to_int16(resampler(rate, self.config.sample_rate)(mono))

    def windows(self, wave: npt.NDArray[np.int16]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int64]]:
        """Cut a waveform at the model's rate into windows [W, T] and their lengths [W], half a window apart."""
        starts = window_starts(len(wave), self.window, self.window // 2)
        padded = np.pad(wave, (0, max(0, self.window - len(wave))))
        cut = np.stack([padded[start : start + self.window] for start in starts])
        return cut, np.full(len(starts), min(len(wave), self.window))

    def score(self, windows: npt.NDArray[np.int16], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the logits [M, W, C] of M members from windows [W, T] of these lengths; raises a UserError if they
        are not finite."""
        starts = range(0, len(windows), self.batch)
        parts = (slice(start, start + self.batch) for start in starts)
        logits = np.concatenate([self.scorer(windows[part], lengths[part]) for part in parts], 1)
        if not np.isfinite(logits).all():
            raise UserError("the model computes NaN or infinity; its tensors are damaged: export it again")
        return logits

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
            UserError: the file cannot be decoded, or a number is out of range.
        """
        if top < 1:
            raise UserError(f"top {top}: give 1 or more")
        if not gate_db > 0:
            raise UserError(f"gate_db {gate_db:g}: give a number of dB above 0")
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise UserError(f"min_confidence {min_confidence:g}: give a number from 0 to 1")
        if hop_seconds is not None and not 0.05 <= hop_seconds <= self.config.clip_seconds:
            raise UserError(f"hop {hop_seconds:g} s is not from 0.05 s to a window, {self.config.clip_seconds:g} s")
        rate, window = self.config.sample_rate, self.window
        hop = window // 2 if hop_seconds is None else round(hop_seconds * rate)
        limit = self.config.calibration.undecided_below if min_confidence is None else min_confidence
        source = path if isinstance(path, BytesIO) else Path(path)
        with decoded(name or str(path), source, rate, advance) as (recording, samples):
            parts = phrases(recording.levels, gate_db)
            if len(parts) == 1 and recording.seconds <= SHORT_WINDOWS * self.config.clip_seconds:
                parts = [(0.0, recording.seconds)]  # a clip, with the silence around it, like those of training
            places = [(round(start * rate), min(round(end * rate), len(samples))) for start, end in parts]
            layouts = [begin + window_starts(end - begin, window, hop) for begin, end in places]
            starts = np.concatenate([np.empty(0, np.int64), *layouts])
            ends = np.repeat([end for _, end in places], [len(layout) for layout in layouts])
            scores = _Scores(self, samples)
            scores.add(starts, np.minimum(ends - starts, window), lambda part: advance(part * recording.seconds))
            segments = []
            for place in places:
                for start, end in pairwise(divide(*place, window, hop, scores.log_probabilities)):
                    answer = self.combine(scores.logits(start + window_starts(end - start, window, hop)))
                    best = np.argsort(-answer, kind="stable")[:top]
                    named = tuple((self.classes[label], float(answer[label])) for label in best)
                    segments.append(Segment(start / rate, end / rate, named, named[0][1] < (limit or 0.0)))
            probabilities = scores.probabilities(starts) if len(starts) else np.empty((0, len(self.classes)))
        return Prediction(recording, tuple(segments), (starts + window / 2) / rate, probabilities)


class _Scores:
    """Scores of windows of a recording, given by their first samples [W]. Each window is scored once."""

    def __init__(self, model: Predictor, samples: Samples) -> None:
        self._model, self._samples = model, samples
        self._known: dict[int, npt.NDArray[np.float32]] = {}  # logits [M, C]

    def add(
        self,
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        advance: Callable[[float], None] = lambda part: None,
    ) -> None:
        """Score windows of `lengths` [W]; `advance` is called with the additional fraction of them."""
        model, places = self._model, list(zip(starts.tolist(), lengths.tolist(), strict=True))
        batches = [places[first : first + model.batch] for first in range(0, len(places), model.batch)]

        def score(batch: list[tuple[int, int]]) -> npt.NDArray[np.float32]:
            lengths = np.array([length for _, length in batch])
            return model.score(self._windows([start for start, _ in batch], lengths), lengths)

        # Batches in several threads are faster than operators in several threads.
        in_turn = in_threads if model.device.type == "cpu" and len(batches) > 1 else map
        for batch, logits in zip(batches, in_turn(score, batches), strict=True):
            self._known |= {start: each for (start, _), each in zip(batch, logits.swapaxes(0, 1), strict=True)}
            advance(len(batch) / len(places))

    def _windows(self, starts: list[int], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int16]:
        """Return windows [W, T]; as views of one stretch of the recording if they are complete and evenly spaced."""
        width, hops = self._model.window, {b - a for a, b in pairwise(starts)}
        if len(hops) == 1 and 0 < (hop := hops.pop()) < width and lengths.min() == width:
            length = starts[-1] - starts[0] + width
            stretch = self._samples.read(starts[0], length, length)
            # torch warns of arrays that are not writable.
            return np.lib.stride_tricks.sliding_window_view(stretch, width, writeable=True)[::hop]
        return np.stack(
            [self._samples.read(start, length, width) for start, length in zip(starts, lengths, strict=True)]
        )

    def logits(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return logits [M, W, C]; windows that have not been added have the full length."""
        new = np.array([start for start in dict.fromkeys(starts.tolist()) if start not in self._known], np.int64)
        self.add(new, np.full(len(new), self._model.window))
        return np.stack([self._known[start] for start in starts.tolist()], axis=1)

    def probabilities(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities [W, C]."""
        return self._model.combine(self.logits(starts)[..., None, :], single=True)

    def log_probabilities(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        return np.log(self.probabilities(starts) + _LEAST)
