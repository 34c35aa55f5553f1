"""The project's own training and evaluation, `loop.train_epoch` and `loop.evaluate`, on cached clips."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, cast

import torch

from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier
from sousaphone.training import loop
from sousaphone.training.step import micro_batch_of

from .clips import Clips
from .clock import Clock, Peak, processor_seconds, wait
from .result import Round


class Ours:
    """One trial as the sweep runs it, with all the threads that it is given."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier, clips: Clips, cache: object) -> None:
        self.config, self.model = config, model
        self.device = torch.device(config.device)
        self.clips = ClipSet(cast(Any, cache), clips.dataset.clips, "train", config.clip_seconds, self.device, seed=0)
        self.optimizer = loop.make_optimizer(model, config)
        self.micro_batch = micro_batch_of(config, model)
        self.batch = config.micro_batch * config.accumulation

    def train(self, steps: int, shares: bool) -> Round:
        """So many steps; `shares`: with the time of each stage."""
        config = dataclasses.replace(self.config, limit_train_batches=steps)
        use_fused(self.model, True)
        clock, peak = Clock(self.device, shares), Peak(self.device)
        wait(self.device)
        busy = processor_seconds()
        with clock.watching(self.optimizer, self.micro_batch):
            row = loop.train_epoch(config, self.model, self.clips, self.optimizer, self.micro_batch, 1)
        seconds = row["epoch_seconds"]
        return Round(
            clips=round(row["samples_per_second"] * seconds),
            seconds=seconds,
            processor=processor_seconds() - busy,
            peak_mb=max(peak.read(), row["peak_memory_mb"] if self.device.type == "mps" else 0.0),
            shares=clock.shares(seconds) if shares else {},
        )

    def evaluate(self, clips: int) -> Round:
        use_fused(self.model, True)
        rows = [i % len(self.clips) for i in range(clips)]
        began, busy = time.perf_counter(), processor_seconds()
        loop.evaluate(self.config, self.model, self.clips, rows, micro_batch=self.micro_batch)
        return Round(clips, time.perf_counter() - began, processor_seconds() - busy)

    def close(self) -> None:
        del self.micro_batch  # its recordings hold memory
