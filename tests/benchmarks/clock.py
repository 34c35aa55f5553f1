"""The time of each stage of a training step, processor time and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import torch

from sousaphone.data.batches import ClipSet
from sousaphone.model import RudimentClassifier
from sousaphone.training import augment, loop
from sousaphone.training.step import CapturedMicroBatch, MicroBatch

# A captured micro-batch is one stage, "both passes".
STAGES = ("data", "augmentation", "front end", "forward", "backward", "both passes", "optimiser", "other")


class Clock:
    """Seconds by stage.

    On a GPU each stage ends with a synchronisation, which takes time; clips per second are measured without a clock.

    Args:
        on: False measures nothing.
    """

    def __init__(self, device: torch.device, on: bool = True) -> None:
        self.device, self.on = device, on
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        synchronize(self.device)
        began = time.perf_counter()
        try:
            yield
        finally:
            synchronize(self.device)
            self.seconds[name] += time.perf_counter() - began

    def fractions(self, total: float) -> dict[str, float]:
        """Fractions of `total` seconds; `other` is the time of no stage."""
        found = {stage: self.seconds[stage] / total for stage in STAGES[:-1]}
        return {**found, "other": 1.0 - sum(found.values())}

    @contextlib.contextmanager
    def timing(self, optimizer: torch.optim.Optimizer, micro_batch: MicroBatch) -> Iterator[None]:
        """Time each stage of `loop.train_epoch`."""
        parts: list[tuple[str, Any, str]] = [
            ("data", loop, "to_float"),
            ("augmentation", augment, "augment_wave"),
            ("augmentation", augment, "mask_features"),
            ("augmentation", augment, "mixup"),
            ("front end", RudimentClassifier, "features"),
            ("optimiser", torch.nn.utils, "clip_grad_norm_"),
            ("optimiser", optimizer, "step"),
            ("optimiser", type(micro_batch), "begin"),
        ]
        if isinstance(micro_batch, CapturedMicroBatch):
            parts.append(("both passes", CapturedMicroBatch, "train"))
        else:
            parts += [("forward", RudimentClassifier, "classify"), ("backward", torch.Tensor, "backward")]
        with contextlib.ExitStack() as stack:
            if self.on:
                batches = self._timed_batches(ClipSet.training_batches)
                stack.enter_context(mock.patch.object(ClipSet, "training_batches", batches))
                for stage, owner, name in parts:
                    stack.enter_context(mock.patch.object(owner, name, self._timed(stage, getattr(owner, name))))
            yield

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return function(*args, **kwargs)

        return call

    def _timed_batches(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            batches = function(*args, **kwargs)
            while True:
                with self.stage("data"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        return call


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def processor_seconds() -> float:
    """Processor seconds of this process and of its running workers."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


class Peak:
    """Peak memory in MiB: of the device on CUDA, else of this process plus its workers' own memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the peak would include freed memory of an earlier contender
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM

    def read(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved() / 2**20
        own = psutil.Process().memory_info().rss / 2**20
        with contextlib.suppress(OSError):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            own = int(status["VmHWM"].split()[0]) / 2**10
        workers = 0.0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                workers += child.memory_full_info().uss / 2**20
        return own + workers
