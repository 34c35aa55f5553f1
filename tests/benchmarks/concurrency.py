"""What two trials of one thread each come to beside one another, against one that has the machine to itself.

python -m tests.benchmarks.concurrency --worker    (one of the trials; told what to do on standard input)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import torch

from sousaphone import training
from sousaphone.config import TrainConfig
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.timing import _noise_clips

from .contenders import Setting, rest

STEPS = 6


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


def measure(setting: Setting, models: Sequence[str], say: Callable[[str], None]) -> dict[str, Pair]:
    with _worker() as first, _worker() as second:
        found = {}
        for model in models:
            config = dataclasses.asdict(dataclasses.replace(setting.config(model), augment=True, threads=1))
            for worker in (first, second):
                _ask(worker, config)
                _answer(worker)
            alone, together, cost = [], [], {"alone": [], "together": []}
            for _ in range(setting.rounds):
                for worker in (first, second):
                    rest()
                    _ask(worker, {})
                    one = _answer(worker)
                    alone.append(one["clips"] / one["seconds"])
                    cost["alone"].append(one["processor"])
                rest()
                for worker in (first, second):
                    _ask(worker, {})
                both = [_answer(worker) for worker in (first, second)]
                # From the earlier start to the later end: what either waits for the other counts.
                together.append(2 * both[0]["clips"] / max(one["seconds"] for one in both))
                cost["together"] += [one["processor"] for one in both]
            found[model] = Pair(max(alone), max(together), min(cost["together"]) / min(cost["alone"]))
            say(f"{model}: one trial {found[model].alone:.0f} clips/s, two {found[model].together:.0f}")
        return found


Worker = subprocess.Popen[str]


@contextmanager
def _worker() -> Iterator[Worker]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.concurrency", "--worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            _pipe(process.stdin).close()  # which ends it


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


def _ask(worker: Worker, config: dict[str, object]) -> None:
    pipe = _pipe(worker.stdin)
    pipe.write(json.dumps(config) + "\n")
    pipe.flush()


def _answer(worker: Worker) -> dict[str, float]:
    line = _pipe(worker.stdout).readline()
    if not line:
        raise RuntimeError("a trial's process ended; its error stands above")
    answer: dict[str, float] = json.loads(line)
    return answer


def _serve() -> None:
    """A line with a configuration builds its model and takes a step; an empty one trains some steps and tells."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        if asked := json.loads(line):
            config = TrainConfig(**asked)
            model = build_model(config, len(SLUGS))
            clips = _noise_clips(config, model.backbone.spec.sample_rate, STEPS, torch.device(config.device))
            optimizer = training.make_optimizer(model, config)
            steps = 1
        else:
            steps = STEPS
        config = dataclasses.replace(config, limit_train_batches=steps)
        began, busy = time.perf_counter(), time.process_time()
        row = training.train_epoch(config, model, clips, optimizer, 1, lambda epoch, share: None)
        print(
            json.dumps(
                {
                    "clips": round(row["samples_per_second"] * row["epoch_seconds"]),
                    "seconds": time.perf_counter() - began,
                    "processor": time.process_time() - busy,
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", required=True)
    parser.parse_args()
    _serve()
