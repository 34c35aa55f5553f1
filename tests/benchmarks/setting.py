"""What is measured and how long, and the wait for a quiet machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import CLIP_SECONDS, TrainConfig

from .clock import processor_seconds


@dataclass(frozen=True)
class Setting:
    """What is measured, and how long.

    Attributes:
        cores: workers of the careful baseline.
        threads: of ours and of the baselines' main process.
        batch: clips in a step.
        steps: in a round.
    """

    scale: str
    device: str
    cores: int
    threads: int
    batch: int
    steps: int
    rounds: int

    @property
    def heavy(self) -> bool:
        """A full-size model on a CPU, where a step takes half a minute."""
        return self.scale == "base" and self.device == "cpu"

    def config(self, model: str) -> TrainConfig:
        """Of a trial of the sweep, but that its steps leave the model as it is (a learning rate of zero)."""
        micro = min(self.batch, REGISTRY[model].micro_batches[self.scale][self.device])
        return TrainConfig(
            model=model,
            scale=self.scale,
            clip_seconds=CLIP_SECONDS[self.scale],
            augment=False,
            learning_rate=0.0,
            micro_batch=micro,
            accumulation=self.batch // micro,
            eval_batch=4 if self.heavy else 64,
            device=self.device,
            threads=self.threads,
        )


def rest(most: float = 3.0) -> None:
    """Until the careful baseline's workers have filled their queues and other programs are quiet, but for those that
    run at a lower priority (nice); after `most` seconds without that, all the same."""
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        before = processor_seconds()
        others = psutil.cpu_times_percent(0.2)
        if processor_seconds() - before < 0.03 and others.user + others.system < 15:
            return
