"""Our own training and evaluation, `loop.train_epoch` and `scoring.evaluate`, on cached clips."""

from __future__ import annotations

import dataclasses
import time

import torch

from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import WaveformCache
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier
from sousaphone.training import loop, scoring
from sousaphone.training.step import micro_batch_of

from .clips import Clips
from .clock import Clock, Peak, processor_seconds, synchronize
from .result import Round


class Ours:
    """One trial as the sweep runs it, with all configured threads."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier, clips: Clips, cache: WaveformCache) -> None:
        self.config, self.model = config, model
        self.device = torch.device(config.device)
        self.clips = ClipSet(cache, clips.dataset.clips, "train", config.clip_seconds, self.device, seed=0)
        self.optimizer = loop.make_optimizer(model, config)
        self.micro_batch = micro_batch_of(config, model)

    def train(self, steps: int, by_stage: bool) -> Round:
        config = dataclasses.replace(self.config, limit_train_batches=steps)
        use_fused(self.model, True)
        clock, peak = Clock(self.device, by_stage), Peak(self.device)
        synchronize(self.device)
        processor = processor_seconds()
        with clock.timing(self.optimizer, self.micro_batch):
            row = loop.train_epoch(config, self.model, self.clips, self.optimizer, self.micro_batch, 1)
        seconds = row["epoch_seconds"]
        return Round(
            clips=round(row["samples_per_second"] * seconds),
            seconds=seconds,
            processor=processor_seconds() - processor,
            peak_mb=max(peak.read(), row["peak_memory_mb"] if self.device.type == "mps" else 0.0),
            fractions=clock.fractions(seconds) if by_stage else {},
        )

    def evaluate(self, clips: int) -> Round:
        use_fused(self.model, True)
        rows = [i % len(self.clips) for i in range(clips)]
        began, processor = time.perf_counter(), processor_seconds()
        scoring.evaluate(self.config, self.model, self.clips, rows, micro_batch=self.micro_batch)
        return Round(clips, time.perf_counter() - began, processor_seconds() - processor)

    def close(self) -> None:
        del self.micro_batch  # its captured graphs hold memory
