"""Where the time of a training step goes, and what it takes of the machine: time by stage, processor time, memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import psutil
import torch

from sousaphone.data.batches import ClipSet
from sousaphone.model import RudimentClassifier
from sousaphone.planning.throughput import _peak_mb, _reset_peak
from sousaphone.training import augment, loop
from sousaphone.training.step import CapturedMicroBatch, MicroBatch

# Both passes together are what a recorded micro-batch is.
STAGES = ("data", "augmentation", "front end", "forward", "backward", "both passes", "optimiser", "other")


class Clock:
    """Seconds by stage. On a GPU each stage is waited for, which costs time of its own: shares and clips per second
    are measured apart there.

    Args:
        on: whether anything is measured at all.
    """

    def __init__(self, device: torch.device, on: bool = True) -> None:
        self.device, self.on = device, on
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        wait(self.device)
        began = time.perf_counter()
        try:
            yield
        finally:
            wait(self.device)
            self.seconds[stage] += time.perf_counter() - began

    def shares(self, whole: float) -> dict[str, float]:
        """Of `whole` seconds; what no stage accounts for is `other`."""
        found = {stage: self.seconds[stage] / whole for stage in STAGES[:-1]}
        return {**found, "other": 1.0 - sum(found.values())}

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.of(stage):
                return function(*args, **kwargs)

        return call

    def _batches(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
            batches = function(*args, **kwargs)
            while True:
                with self.of("data"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        return call

    @contextlib.contextmanager
    def watching(self, optimizer: torch.optim.Optimizer, micro_batch: MicroBatch) -> Iterator[None]:
        """`loop.train_epoch` itself, each part of it timed; nothing else of it changes."""
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
                batches = self._batches(ClipSet.training_batches)
                stack.enter_context(mock.patch.object(ClipSet, "training_batches", batches))
                for stage, owner, name in parts:
                    stack.enter_context(mock.patch.object(owner, name, self.timed(stage, getattr(owner, name))))
            yield


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def processor_seconds() -> float:
    """Of this process and of its workers so far."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system
    return total


class Peak:
    """Peak memory in MB: of the device on CUDA, else of this process with what its workers hold for themselves."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # else an earlier contender's peak would stand for this one's
        _reset_peak()

    def read(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_reserved() / 2**20
        own = _peak_mb(torch.device("cpu")) or psutil.Process().memory_info().rss / 2**20
        workers = 0.0
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                workers += child.memory_full_info().uss / 2**20
        return own + workers
