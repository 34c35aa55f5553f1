"""What a clip costs an arm on one CPU core: waveform in, logits out, one clip at a time, front end included."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import InferenceTime

REPEATS = (2, 20)  # at least and at most
_SECONDS = 3.0  # after which the least repeats are enough


def models(trials: Iterable[TrainConfig]) -> dict[tuple[str, str, str], TrainConfig]:
    """The first trial of each model: trials whose models are built alike cost the same, augmented or not."""
    found: dict[tuple[str, str, str], TrainConfig] = {}
    for trial in trials:
        found.setdefault((trial.model, trial.strategy, trial.lora_targets), trial)
    return found


def time_arm(trial: TrainConfig) -> InferenceTime:
    """Build the arm's model and time it on the CPU.

    Raises:
        RuntimeError, MemoryError: out of memory.
        UserError: its weights cannot be read.
    """
    milliseconds = time_model(build_model(trial, len(SLUGS)), trial.clip_seconds)
    # Whatever else the machine does can make a pass longer, and none shorter.
    return InferenceTime(trial.model, trial.strategy, trial.lora_targets, min(milliseconds), len(milliseconds))


def time_model(model: RudimentClassifier, clip_seconds: float) -> list[float]:
    """Milliseconds of each of some passes of one clip, after one that is not counted.

    The model is on the CPU; it has one thread of it, and is left in evaluation mode.
    """
    rate = model.backbone.spec.sample_rate
    # Cost does not depend on content. A generator of its own: the caller's random state stays as it is.
    noise = torch.rand(1, round(clip_seconds * rate), generator=torch.Generator().manual_seed(0)) - 0.5
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            model.eval()(noise)
            taken: list[float] = []
            while len(taken) < REPEATS[0] or (len(taken) < REPEATS[1] and sum(taken) < 1000 * _SECONDS):
                began = time.perf_counter()
                model(noise)
                taken.append(1000 * (time.perf_counter() - began))
    finally:
        torch.set_num_threads(usual)
    return taken
