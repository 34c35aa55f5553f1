"""How fast an arm trains on this machine: a few real steps of it on noise, remembered from one launch to the next.

What costs the same is a workload: trials that differ in nothing but their seed, their data and how long they train.
Cost does not depend on content, so noise clips in memory do; the steps are those of `training.loop`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import socket
import time
from collections import Counter, defaultdict
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
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name, is_here
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import TrialRecord, now
from sousaphone.training import augment, loop
from sousaphone.training.out_of_memory import free_memory, is_out_of_memory
from sousaphone.training.step import micro_batch_of

if TYPE_CHECKING:
    from sousaphone.data.cache.build import WaveformCache

FILE = "timings.json"
STEPS = 2
_GENERATION = 2  # raised whenever training itself gets faster: older figures are forgotten
# Fields without a say in the cost of a clip. Any other, a new one too, makes another workload.
_COSTLESS = {"seed", "dataset", "data_dir", "cache_dir", "epochs", "patience", "learning_rate", "weight_decay"}
_COSTLESS |= {"score_test", "warmup_epochs", "max_grad_norm", "label_smoothing", "lora_alpha", "gain_db", "freq_mask"}
_COSTLESS |= {"noise_snr_db", "time_mask_ms", "limit_train_batches", "limit_eval_batches"}


@dataclass(frozen=True)
class Speed:
    """What an arm costs while no trial runs."""

    train: float  # clips per second in training steps: front end, augmentation, both passes and the optimiser
    evaluation: float  # clips per second in evaluation
    memory_mb: float | None = None  # peak, of the process on a CPU, of the device otherwise; None: it cannot be told


@dataclass(frozen=True)
class Budget:
    """How much time the timing itself may take."""

    seconds: float = 60.0  # after which no further arm is begun
    share: float | None = 0.03  # of the time of an arm's trials that timing it may take; None: any
    base_on_cpu: bool = False  # whether full-size models are timed on a CPU, where a step takes long


@functools.cache  # a configuration checks all its fields when it is made
def workload(trial: TrainConfig) -> TrainConfig:
    """The trial with every field that costs nothing at its default: equal for all trials of a workload."""
    defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in _COSTLESS}
    return dataclasses.replace(trial, **defaults)


def epochs_left(trial: TrainConfig, record: TrialRecord | None) -> int:
    """Those that an earlier start has not trained."""
    return max(0, trial.epochs - (len(record.history) if record else 0))


def train_steps(trial: TrainConfig, clips: int) -> int:
    """Optimiser steps in an epoch over so many training clips."""
    steps = math.ceil(clips / (trial.micro_batch * trial.accumulation))
    return steps if trial.limit_train_batches is None else min(steps, trial.limit_train_batches)


def measure(config: TrainConfig, model: RudimentClassifier, steps: int = STEPS) -> Speed:
    """Take real training steps and score one evaluation batch. Model and random state are left as they were.

    Args:
        model: as `build_model(config)` gives it.
        steps: counted ones, after a first that is not; 0: that first one is what counts.
    """
    device, home = torch.device(config.device), next(model.parameters()).device
    before, usual = model.trained_state(), torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else ()):
            # A rate of zero cannot diverge, whatever the noise, and costs the same.
            config = dataclasses.replace(config, learning_rate=0.0, limit_eval_batches=None)
            # What is frozen is rounded on CUDA, so a copy goes there.
            placed = copy.deepcopy(model) if device.type == "cuda" else model
            return _measure(config, placed.place(device), steps, device)
    finally:
        torch.set_num_threads(usual)
        model.zero_grad(set_to_none=True)
        model.load_trained_state(before)
        model.to(home)
        free_memory(device)


def _measure(config: TrainConfig, model: RudimentClassifier, steps: int, device: torch.device) -> Speed:
    clips = _noise_clips(config, model.backbone.spec.sample_rate, max(1, steps), device)
    optimizer, micro_batch = loop.make_optimizer(model, config), micro_batch_of(config, model)
    _reset_peak()
    for limit in (1, steps) if steps else (1,):
        limited = dataclasses.replace(config, limit_train_batches=limit)
        row = loop.train_epoch(limited, model, clips, optimizer, micro_batch, 1)
    rows = [i % len(clips) for i in range(config.eval_batch)]
    loop.evaluate(config, model, clips, rows[:2], micro_batch=micro_batch)
    began = time.perf_counter()
    # Its scores come to the CPU, so nothing is left under way.
    loop.evaluate(config, model, clips, rows, micro_batch=micro_batch)
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
    """The speed of each arm by `workload(trial)`, known from an earlier launch or measured now; None: neither.

    Args:
        trials: those to be trained.
        clips: by split.
        records: what earlier starts left, by trial.
    """
    steps: Counter[TrainConfig] = Counter()
    for trial in trials:
        steps[workload(trial)] += epochs_left(trial, records.get(trial.trial_id)) * train_steps(trial, clips["train"])
    known = _read(cache_dir)
    speeds = {which: _speed(known.get(_key(which))) for which in steps}
    missing: list[TrainConfig] = []
    skipped: defaultdict[str, list[str]] = defaultdict(list)  # arms by why they are
    for which in (which for which, speed in speeds.items() if speed is None):
        if why := _not_worth(which, steps[which], budget):
            skipped[why].append(which.arm_name)
        else:
            missing.append(which)
    earlier, began, timed = sum(speed is not None for speed in speeds.values()), time.perf_counter(), 0
    if missing:
        listed = ", ".join(which.arm_name for which in missing)
        announce(f"timing a few steps of {listed}; none is begun after {budget.seconds:g} s")
    for which in missing:
        if time.perf_counter() - began >= budget.seconds:
            skipped[f"the {budget.seconds:g} s for timing were used up"].append(which.arm_name)
            continue
        try:
            speeds[which] = speed = _measure_arm(which)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            skipped[f"out of memory with micro_batch={which.micro_batch}"].append(which.arm_name)
            continue
        timed += 1
        _remember(cache_dir, which, speed)
    if missing:
        free_memory(torch.device(missing[0].device))  # also of what an arm held that ran out of memory
    words = [f"{timed} timed in {time.perf_counter() - began:.0f} s"] if timed else []
    words += [f"{earlier} known from an earlier launch"] if earlier else []
    if words:
        announce(f"speed of {timed + earlier} of {len(speeds)} arms: {', '.join(words)}")
    for why, names in skipped.items():
        announce(f"not timed: {', '.join(names)} ({why})")
    return speeds


def _not_worth(which: TrainConfig, steps: int, budget: Budget) -> str:
    """Why an arm with so many optimiser steps before it is not to be timed; empty if it is."""
    if not is_here(which.device):
        return f"this machine has no {which.device} device"
    if _is_heavy(which) and not budget.base_on_cpu:
        return "a full-size model on a CPU; pass --timing to time it all the same"
    if budget.share is not None and budget.share * steps < 1 + STEPS:
        return "too short to be worth it"
    return ""


def _is_heavy(which: TrainConfig) -> bool:
    return which.scale == "base" and which.device == "cpu"


def _measure_arm(which: TrainConfig) -> Speed:
    steps = STEPS
    if _is_heavy(which):  # a micro-batch tells the cost of a clip as well as the many that make its step
        which, steps = dataclasses.replace(which, accumulation=1), 1
    return measure(which, build_model(which, len(SLUGS)), steps)


@dataclass(frozen=True)
class _Noise:
    """What `ClipSet` wants of a WaveformCache: equally long clips of noise, in memory."""

    wave: np.ndarray
    offsets: np.ndarray
    sample_rate: int

    def __len__(self) -> int:
        return len(self.offsets) - 1


def _noise_clips(config: TrainConfig, rate: int, steps: int, device: torch.device) -> ClipSet:
    """Clips enough for so many steps, each as long as the window that training hears."""
    count, samples = steps * config.micro_batch * config.accumulation, round(augment.window_seconds(config) * rate)
    wave = np.random.default_rng(0).integers(-(2**13), 2**13, count * samples, dtype=np.int16)
    noise = cast("WaveformCache", _Noise(wave, np.arange(count + 1, dtype=np.int64) * samples, rate))
    table = pd.DataFrame({"split": "train", "label": np.arange(count) % len(SLUGS)})
    return ClipSet(noise, table, "train", config.clip_seconds, device, config.seed)


def _reset_peak() -> None:
    """Linux counts a process's peak from here on; else an earlier arm's would stand for this one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _peak_mb(device: torch.device) -> float:
    """The process's peak where the kernel tells it (it sees what lies between two samples), or the card's, with what
    recordings hold; else 0."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    if device.type != "cpu":
        return 0.0
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _key(which: TrainConfig) -> str:
    """SHA-256 of all that a figure depends on."""
    device = device_name(which.device) if is_here(which.device) else which.device
    versions = [__version__, _GENERATION, torch.__version__, importlib.metadata.version("transformers")]
    costs = {name: value for name, value in dataclasses.asdict(which).items() if name not in _COSTLESS}
    content = json.dumps([socket.gethostname(), device, versions, costs], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _read(cache_dir: Path) -> dict[str, Any]:
    """All that is remembered; nothing if the file is not there or damaged."""
    try:
        content = json.loads((cache_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _speed(entry: Any) -> Speed | None:
    """A remembered figure; None if it is none."""
    try:
        memory = entry["memory_mb"]
        speed = Speed(float(entry["train"]), float(entry["evaluation"]), None if memory is None else float(memory))
    except (KeyError, TypeError, ValueError):
        return None
    return speed if 0 < speed.train < math.inf and 0 < speed.evaluation < math.inf else None


def _remember(cache_dir: Path, which: TrainConfig, speed: Speed) -> None:
    # Read again: another launch may have added its own meanwhile.
    content = {**_read(cache_dir), _key(which): {"arm": which.arm_name, "at": now(), **dataclasses.asdict(speed)}}
    with contextlib.suppress(OSError):  # a figure that is not kept is measured again
        cache_dir.mkdir(parents=True, exist_ok=True)
        with atomic_write(cache_dir / FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
