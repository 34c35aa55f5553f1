"""The settings of a measurement, and the wait for an idle machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import CLIP_SECONDS, TrainConfig
from sousaphone.hardware import pick_precision

from .clock import processor_seconds


@dataclass(frozen=True)
class Setting:
    """What is measured, and for how long.

    Attributes:
        cores: number of workers of the careful baseline.
        threads: of our process and of the baselines' main process.
        batch: clips per step.
        steps: steps per round.
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

    def config(self, model: str, precision: str | None = None) -> TrainConfig:
        """The configuration of a trial of the sweep, with a learning rate of zero: steps leave the model unchanged. The
        default precision is that of a sweep on this machine."""
        precision = precision or pick_precision(self.device, self.scale)
        micro = min(self.batch, REGISTRY[model].micro_batch(self.scale, self.device, precision))
        return TrainConfig(
            model=model,
            scale=self.scale,
            clip_seconds=CLIP_SECONDS[self.scale],
            augment=False,
            learning_rate=0.0,
            micro_batch=micro,
            accumulation=self.batch // micro,
            eval_batch=2 * micro,
            device=self.device,
            precision=precision,
            threads=self.threads,
        )


def wait_until_idle(timeout: float = 3.0) -> None:
    """Wait until the careful baseline's workers have filled their queues and other programs, except those of lower
    priority (nice), are idle; for at most `timeout` seconds."""
    end = time.perf_counter() + timeout
    while time.perf_counter() < end:
        before = processor_seconds()
        others = psutil.cpu_times_percent(0.2)
        if processor_seconds() - before < 0.03 and others.user + others.system < 15:
            return
