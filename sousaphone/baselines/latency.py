"""Inference time of an arm on one CPU core: from waveform to logits, one clip at a time, front end included."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable

import torch

from sousaphone.config import TrainConfig
from sousaphone.hardware import torch_threads
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import InferenceTime, TimeKey
from sousaphone.training.step import autocast

REPEATS = (2, 20)  # minimum and maximum
_SECONDS = 3.0  # time limit after the minimum of repeats


def distinct_models(trials: Iterable[TrainConfig]) -> dict[TimeKey, TrainConfig]:
    """The first trial of each model that is timed; learning rates, augmentation and seeds do not change the time."""
    found: dict[TimeKey, TrainConfig] = {}
    for trial in trials:
        found.setdefault(InferenceTime.of(vars(trial)).key, trial)
    return found


def time_arm(trial: TrainConfig) -> InferenceTime:
    """Build the arm's model and time it on the CPU, in the precision of its training if it trains there."""
    model = build_model(trial, len(SLUGS))
    on_cpu = trial if trial.device == "cpu" else dataclasses.replace(trial, device="cpu", precision="float32")
    with autocast(on_cpu):
        milliseconds = time_model(model.place(on_cpu), trial.clip_seconds)
    # The minimum is least disturbed by other processes.
    return InferenceTime.of(vars(trial), min(milliseconds), len(milliseconds))


def time_model(model: RudimentClassifier, clip_seconds: float) -> list[float]:
    """Milliseconds of repeated forward passes of one clip on one thread, after a warm-up pass.

    The model must be on the CPU; it is left in evaluation mode.
    """
    rate = model.backbone.spec.sample_rate
    # The content does not matter. A separate generator leaves the global random state unchanged.
    noise = torch.rand(1, round(clip_seconds * rate), generator=torch.Generator().manual_seed(0)) - 0.5
    with torch_threads(1), torch.inference_mode():
        model.eval()(noise)
        times: list[float] = []
        while len(times) < REPEATS[0] or (len(times) < REPEATS[1] and sum(times) < 1000 * _SECONDS):
            start = time.perf_counter()
            model(noise)
            times.append(1000 * (time.perf_counter() - start))
    return times
