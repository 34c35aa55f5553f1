"""Trials of one thread each, each in a process of its own, beside one another as a sweep on a CPU runs them.

python -m tests.benchmarks.concurrency --worker    (one of the trials; told what to do on standard input)
"""

from __future__ import annotations

import argparse
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
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training import loop
from sousaphone.training.step import micro_batch_of

from .clips import Clips, cached
from .result import Round, fastest
from .setting import Setting, rest


class Team:
    """So many trials of one thread; each round is from their common start to the end of the last.

    Args:
        cache, table: what they hear, as `ClipSet` takes it.
    """

    def __init__(self, size: int, config: TrainConfig, cache: object, table: pd.DataFrame, scratch: Path) -> None:
        self.batch = config.micro_batch * config.accumulation
        path = scratch / f"heard-{config.model}.pickle"
        path.write_bytes(pickle.dumps((cache, table)))
        command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.concurrency", "--worker"]
        self.workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(size)
        ]
        asked = {**dataclasses.asdict(dataclasses.replace(config, threads=1)), "heard": str(path)}
        for worker in self.workers:
            _ask(worker, asked)
        for worker in self.workers:  # each has built its model and taken a step
            _answer(worker)

    def train(self, steps: int, shares: bool = False, size: int | None = None, first: int = 0) -> Round:
        """Steps of each trial, or of `size` of them from number `first` on."""
        working = self.workers[first:][:size]
        for worker in working:
            _ask(worker, {"steps": steps})
        found = [_answer(worker) for worker in working]
        return Round(
            clips=len(working) * steps * self.batch,
            seconds=max(one["ended"] for one in found) - min(one["began"] for one in found),
            processor=sum(one["processor"] for one in found),
        )

    def close(self) -> None:
        for worker in self.workers:
            _pipe(worker.stdin).close()  # which ends it
            worker.wait()


@dataclass(frozen=True)
class Pair:
    """The best of some rounds, clips per second.

    Attributes:
        alone: of one trial without the other; `together` is the sum of both.
        slowdown: processor time a clip of a trial with the other beside it, over that without.
    """

    alone: float
    together: float
    slowdown: float

    @property
    def gain(self) -> float:
        return self.together / self.alone


def measure(
    setting: Setting, models: Sequence[str], clips: Clips, scratch: Path, say: Callable[[str], None]
) -> dict[str, Pair]:
    """Two trials against one, augmented, each of the two alone in turn."""
    found = {}
    for model in models:
        config = dataclasses.replace(setting.config(model), augment=True)
        cache, _ = cached(clips, REGISTRY[model].sample_rate, scratch)
        team = Team(2, config, cache, clips.dataset.clips, scratch)
        alone, together = [], []
        try:
            for _ in range(setting.rounds):
                for first in (0, 1):
                    rest()
                    alone.append(team.train(setting.steps, size=1, first=first))
                rest()
                together.append(team.train(setting.steps))
        finally:
            team.close()
        slowdown = min(one.processor_ms for one in together) / min(one.processor_ms for one in alone)
        found[model] = Pair(fastest(alone).rate, fastest(together).rate, slowdown)
        say(f"{model}: one trial {found[model].alone:.0f} clips/s, two {found[model].together:.0f}")
    return found


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _ask(worker: subprocess.Popen[str], words: dict[str, Any]) -> None:
    pipe = _pipe(worker.stdin)
    pipe.write(json.dumps(words) + "\n")
    pipe.flush()


def _answer(worker: subprocess.Popen[str]) -> dict[str, float]:
    line = _pipe(worker.stdout).readline()
    if not line:
        raise RuntimeError("a trial's process ended; its error stands above")
    answer: dict[str, float] = json.loads(line)
    return answer


def _serve() -> None:
    """The first line is a configuration, which builds a model and takes a step; each further one trains and tells."""
    torch.set_num_threads(1)
    asked = json.loads(sys.stdin.readline())
    cache, table = pickle.loads(Path(asked.pop("heard")).read_bytes())
    config = TrainConfig(**asked)
    model = build_model(config, len(SLUGS))
    clips = ClipSet(cache, table, "train", config.clip_seconds, torch.device(config.device), seed=0)
    optimizer, micro_batch = loop.make_optimizer(model, config), micro_batch_of(config, model)

    def tell(steps: int) -> None:
        limited = dataclasses.replace(config, limit_train_batches=steps)
        began, busy = time.monotonic(), time.process_time()  # one clock for all processes of a machine
        loop.train_epoch(limited, model, clips, optimizer, micro_batch, 1)
        answer = {"began": began, "ended": time.monotonic(), "processor": time.process_time() - busy}
        print(json.dumps(answer), flush=True)

    tell(1)
    for line in sys.stdin:
        tell(json.loads(line)["steps"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", required=True)
    parser.parse_args()
    _serve()
