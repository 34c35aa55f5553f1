"""Concurrent trials of one thread, each in its own process, as a sweep on a CPU runs them.

`python -m tests.benchmarks.concurrency` runs one of these trials; it reads its commands from standard input.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd
import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import WaveformCache
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training import loop
from sousaphone.training.step import micro_batch_of

from .clips import Clips, cached
from .result import Round, fastest
from .setting import Setting, wait_until_idle


class Team:
    """`size` trials of one thread; a round lasts from the first start to the last end.

    Args:
        cache, table: the clips, as `ClipSet` takes them.
    """

    def __init__(
        self, size: int, config: TrainConfig, cache: WaveformCache, table: pd.DataFrame, scratch: Path
    ) -> None:
        self.batch = config.micro_batch * config.accumulation
        path = scratch / f"clips-{config.model}.pickle"
        path.write_bytes(pickle.dumps((cache, table)))
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.concurrency"]
        self.workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(size)
        ]
        options = {**dataclasses.asdict(dataclasses.replace(config, threads=1)), "clips": str(path)}
        for worker in self.workers:
            _send(worker, options)
        for worker in self.workers:  # each builds its model and takes a step
            _receive(worker)

    def train(self, steps: int, by_stage: bool = False, size: int | None = None, first: int = 0) -> Round:
        """Train `size` of the trials (None: all), from number `first` on, for `steps` steps each."""
        working = self.workers[first:][:size]
        for worker in working:
            _send(worker, {"steps": steps})
        found = [_receive(worker) for worker in working]
        return Round(
            clips=len(working) * steps * self.batch,
            seconds=max(one["ended"] for one in found) - min(one["began"] for one in found),
            processor=sum(one["processor"] for one in found),
        )

    def close(self) -> None:
        for worker in self.workers:
            _pipe(worker.stdin).close()  # the worker then exits
            worker.wait()


@dataclass(frozen=True)
class Pair:
    """The best of several rounds.

    Attributes:
        alone: clips per second of one trial without the other; `together` of both.
        slowdown: processor time per clip of both trials together divided by that of one alone.
    """

    alone: float
    together: float
    slowdown: float

    @property
    def gain(self) -> float:
        return self.together / self.alone


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, log: Callable[[str], None]
) -> dict[str, Pair]:
    """Compare two augmented trials at once with each of them alone."""
    found = {}
    for model in models:
        config = dataclasses.replace(setting.config(model), augment=True)
        cache, _ = cached(clips, REGISTRY[model].sample_rate, scratch)
        team = Team(2, config, cache, clips.dataset.clips, scratch)
        alone, together = [], []
        try:
            for _ in range(setting.rounds):
                for first in (0, 1):
                    wait_until_idle()
                    alone.append(team.train(setting.steps, size=1, first=first))
                wait_until_idle()
                together.append(team.train(setting.steps))
        finally:
            team.close()
        slowdown = min(one.processor_ms for one in together) / min(one.processor_ms for one in alone)
        found[model] = Pair(fastest(alone).rate, fastest(together).rate, slowdown)
        log(f"{model}: one trial {found[model].alone:.0f} clips/s, two {found[model].together:.0f}")
    return found


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _send(worker: subprocess.Popen[str], command: dict[str, Any]) -> None:
    pipe = _pipe(worker.stdin)
    pipe.write(json.dumps(command) + "\n")
    pipe.flush()


def _receive(worker: subprocess.Popen[str]) -> dict[str, float]:
    line = _pipe(worker.stdout).readline()
    if not line:
        raise RuntimeError("a trial's process exited; its error is printed above")
    result: dict[str, float] = json.loads(line)
    return result


def _serve() -> None:
    """Build the model of the first line's configuration and take a step; then train as each further line requests."""
    torch.set_num_threads(1)
    options = json.loads(sys.stdin.readline())
    cache, table = pickle.loads(Path(options.pop("clips")).read_bytes())
    config = TrainConfig(**options)
    model = build_model(config, len(SLUGS))
    clips = ClipSet(cache, table, "train", config.clip_seconds, torch.device(config.device), seed=0)
    optimizer, micro_batch = loop.make_optimizer(model, config), micro_batch_of(config, model)

    def train(steps: int) -> None:
        limited = dataclasses.replace(config, limit_train_batches=steps)
        began, processor = time.monotonic(), time.process_time()  # the monotonic clock is the same in all processes
        loop.train_epoch(limited, model, clips, optimizer, micro_batch, 1)
        result = {"began": began, "ended": time.monotonic(), "processor": time.process_time() - processor}
        print(json.dumps(result), flush=True)

    train(1)
    for line in sys.stdin:
        train(json.loads(line)["steps"])


if __name__ == "__main__":
    _serve()
