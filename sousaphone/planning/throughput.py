"""Training speed of an arm on this machine, measured with a few real steps on noise and cached between launches.

Trials of the same workload take the same time: they differ only in seed, data, learning rate and length of training.
The time does not depend on content, so noise clips in memory suffice; the steps are those of `training.loop`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch

from sousaphone import __version__
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.files import write_json
from sousaphone.hardware import device_name, is_here, torch_threads
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import TrialRecord, now
from sousaphone.training import augment, loop, scoring
from sousaphone.training.out_of_memory import free_memory, is_out_of_memory
from sousaphone.training.step import micro_batch_of

if TYPE_CHECKING:
    from sousaphone.data.cache.build import WaveformCache

FILE = "timings.json"
STEPS = 2
_GENERATION = 2  # raised when training becomes faster, so that older measurements are not used
# Fields that do not affect the time per clip. Any other field, new ones included, defines another workload.
_COSTLESS = {"seed", "tag", "dataset", "data_dir", "cache_dir", "epochs", "patience", "learning_rate", "weight_decay"}
_COSTLESS |= {"score_test", "warmup_epochs", "max_grad_norm", "label_smoothing", "lora_alpha", "gain_db", "freq_mask"}
_COSTLESS |= {"noise_snr_db", "time_mask_ms", "limit_train_batches", "limit_eval_batches"}


@dataclass(frozen=True)
class Speed:
    """Speed and memory of an arm while nothing else runs."""

    train: float  # clips per second in training: front end, augmentation, forward, backward and optimiser
    evaluation: float  # clips per second in evaluation
    memory_mb: float | None = None  # peak of the process on a CPU, else of the device; None: unknown


@dataclass(frozen=True)
class Budget:
    """Limits of the time spent on timing."""

    seconds: float = 60.0  # after which no further arm is timed
    fraction: float | None = 0.03  # maximum fraction of an arm's training time; None: no limit
    base_on_cpu: bool = False  # whether full-size models are timed on a CPU, where a step takes long


@functools.cache  # creating a configuration checks all its fields
def workload(trial: TrainConfig) -> TrainConfig:
    """Return the trial with all fields that do not affect its speed at their defaults."""
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in _COSTLESS}
    return dataclasses.replace(trial, **defaults)


def epochs_left(trial: TrainConfig, record: TrialRecord | None) -> int:
    """Return the number of epochs that earlier starts have not trained."""
    return max(0, trial.epochs - (len(record.history) if record else 0))


def train_steps(trial: TrainConfig, clips: int) -> int:
    """Return the optimiser steps of an epoch over so many training clips."""
    steps = math.ceil(clips / (trial.micro_batch * trial.accumulation))
    return steps if trial.limit_train_batches is None else min(steps, trial.limit_train_batches)


def measure(arm: TrainConfig) -> Speed:
    """Build an arm's model and time `STEPS` training steps after an untimed one, and an evaluation batch.

    The random state is restored.
    """
    # At a learning rate of zero training on noise cannot diverge, and takes the same time.
    config, steps = dataclasses.replace(arm, learning_rate=0.0, limit_eval_batches=None), STEPS
    if _is_slow(arm):  # the time per clip of one micro-batch is that of a whole step
        config, steps = dataclasses.replace(config, accumulation=1), 1
    device = torch.device(config.device)
    cuda = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch_threads(config.threads), torch.random.fork_rng(devices=cuda):
        return _measure(config, build_model(config, len(SLUGS)).place(config), steps, device)


def _measure(config: TrainConfig, model: RudimentClassifier, steps: int, device: torch.device) -> Speed:
    clips = _noise_clips(config, model.backbone.spec.sample_rate, steps, device)
    optimizer, micro_batch = loop.make_optimizer(model, config), micro_batch_of(config, model)
    _reset_peak()
    for limit in (1, steps):
        limited = dataclasses.replace(config, limit_train_batches=limit)
        row = loop.train_epoch(limited, model, clips, optimizer, micro_batch, 1)
    rows = [i % len(clips) for i in range(config.eval_batch)]
    scoring.evaluate(config, model, clips, rows[:2], micro_batch=micro_batch)
    began = time.perf_counter()
    # The scores are copied to the CPU, so the device has finished.
    scoring.evaluate(config, model, clips, rows, micro_batch=micro_batch)
    evaluation = len(rows) / (time.perf_counter() - began)
    return Speed(row["samples_per_second"], evaluation, max(row["peak_memory_mb"], _peak_mb(device)) or None)


def time_arms(
    trials: Sequence[TrainConfig],
    clips: Mapping[str, int],
    cache_dir: Path,
    budget: Budget,
    announce: Callable[[str], None],
    records: Mapping[str, TrialRecord] = MappingProxyType({}),
) -> dict[TrainConfig, Speed | None]:
    """Return the speed of each arm by `workload(trial)`, cached or measured now; None if it is not timed.

    `clips` are the numbers of clips by split, `records` the records of earlier starts by trial.
    """
    steps: Counter[TrainConfig] = Counter()
    for trial in trials:
        steps[workload(trial)] += epochs_left(trial, records.get(trial.trial_id)) * train_steps(trial, clips["train"])
    cached = _read(cache_dir)
    speeds = {arm: _speed(cached.get(_key(arm))) for arm in steps}
    earlier = sum(speed is not None for speed in speeds.values())
    skipped = {arm: _skip_reason(arm, steps[arm], budget) for arm, speed in speeds.items() if speed is None}
    missing = [arm for arm, reason in skipped.items() if not reason]
    if missing:
        names = ", ".join(dict.fromkeys(arm.arm_name for arm in missing))
        announce(f"timing a few steps of {names}, for about {budget.seconds:g} s at most")
    began, timed = time.perf_counter(), 0
    for arm in missing:
        if time.perf_counter() - began >= budget.seconds:
            skipped[arm] = f"the {budget.seconds:g} s for timing were used up"
            continue
        try:
            speeds[arm] = speed = measure(arm)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            skipped[arm] = f"out of memory with micro_batch={arm.micro_batch}"
            continue
        finally:
            free_memory(torch.device(arm.device))
        timed += 1
        _remember(cache_dir, arm, speed)
    counts = [f"{timed} timed in {time.perf_counter() - began:.0f} s"] if timed else []
    counts += [f"{earlier} known from an earlier launch"] if earlier else []
    if counts:
        announce(f"speed of {timed + earlier} of {len(speeds)} arms: {', '.join(counts)}")
    for reason in dict.fromkeys(filter(None, skipped.values())):
        names = ", ".join(dict.fromkeys(arm.arm_name for arm in skipped if skipped[arm] == reason))
        announce(f"not timed: {names} ({reason})")
    return speeds


def _skip_reason(arm: TrainConfig, steps: int, budget: Budget) -> str:
    """Return why an arm with so many optimiser steps left is not timed; empty if it is."""
    if not is_here(arm.device):
        return f"this machine has no {arm.device} device"
    if _is_slow(arm) and not budget.base_on_cpu:
        return "a full-size model on a CPU; pass --timing to time it"
    if budget.fraction is not None and budget.fraction * steps < 1 + STEPS:
        return "its training is too short for timing to be worthwhile"
    return ""


def _is_slow(arm: TrainConfig) -> bool:
    return arm.scale == "base" and arm.device == "cpu"


@dataclass(frozen=True)
class _Noise:
    """Clips of noise of equal length in memory, with the attributes of a WaveformCache that `ClipSet` uses."""

    wave: np.ndarray
    offsets: np.ndarray
    sample_rate: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def _noise_clips(config: TrainConfig, rate: int, steps: int, device: torch.device) -> ClipSet:
    """Return clips for so many steps, each as long as a training window."""
    count, samples = steps * config.micro_batch * config.accumulation, round(augment.window_seconds(config) * rate)
    wave = np.random.default_rng(0).integers(-(2**13), 2**13, count * samples, dtype=np.int16)
    noise = cast("WaveformCache", _Noise(wave, np.arange(count + 1, dtype=np.int64) * samples, rate))
    table = pd.DataFrame({"split": "train", "label": np.arange(count) % len(SLUGS)})
    return ClipSet(noise, table, "train", config.clip_seconds, device, config.seed)


def _reset_peak() -> None:
    """Reset the process's peak memory (on Linux), which would otherwise include earlier arms."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _peak_mb(device: torch.device) -> float:
    """Return the kernel's peak of the process on a CPU, or the device's peak on CUDA, memory of captured graphs
    included; 0 if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    if device.type != "cpu":
        return 0.0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _key(arm: TrainConfig) -> str:
    """Return the SHA-256 of everything that a measurement depends on."""
    device = device_name(arm.device) if is_here(arm.device) else arm.device
    versions = [__version__, _GENERATION, torch.__version__, importlib.metadata.version("transformers")]
    fields = {name: value for name, value in dataclasses.asdict(arm).items() if name not in _COSTLESS}
    content = json.dumps([socket.gethostname(), device, versions, fields], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(cache_dir: Path) -> dict[str, Any]:
    """Read the cached measurements; empty if the file is missing or damaged."""
    try:
        content = json.loads((cache_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _speed(entry: Any) -> Speed | None:
    """Return a cached measurement; None if it is missing or damaged."""
    try:
        memory = entry["memory_mb"]
        speed = Speed(float(entry["train"]), float(entry["evaluation"]), None if memory is None else float(memory))
    except (KeyError, TypeError, ValueError):
        return None
    return speed if 0 < speed.train < math.inf and 0 < speed.evaluation < math.inf else None


def _remember(cache_dir: Path, arm: TrainConfig, speed: Speed) -> None:
    # Read again: another launch may have added measurements in the meantime.
    content = {**_read(cache_dir), _key(arm): {"arm": arm.arm_name, "at": now(), **dataclasses.asdict(speed)}}
    with contextlib.suppress(OSError):  # without the file, the arm is measured again
        cache_dir.mkdir(parents=True, exist_ok=True)
        write_json(cache_dir / FILE, content, indent=1)
