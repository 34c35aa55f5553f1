"""Passes of a micro-batch by precision, size and torch.compile, by hand: python -m tests.benchmarks.micro_batches

Training is the forward and backward pass, evaluation the forward pass, of features of noise with random weights on a
CPU; milliseconds for a clip, the least of some repeats. With --compile, torch.compile competes, with PEFT's layers in
the same rounded model and with autocast (it cannot compile packed weights). The first call, which compiles, is listed
apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import CLIP_SECONDS, TrainConfig
from sousaphone.kernels.dispatch import use_fused
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS

from .tables import markdown

SECONDS = CLIP_SECONDS["base"]
# Whether the products are cast by autocast; otherwise the frozen weights are rounded.
COMPILED = {"PEFT, rounded, compiled": False, "PEFT, autocast, compiled": True}


def least(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Seconds of the first call, and of the fastest of the next ones."""
    times = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times[0], min(times[1:])


def passes(
    model: RudimentClassifier, classify: Callable[[Tensor], Tensor], size: int, autocast: bool, repeats: int
) -> list[tuple[float, float]]:
    """The seconds of training and of evaluation of `size` clips, see `least`."""
    clip = torch.rand(size, round(model.backbone.spec.sample_rate * SECONDS)) - 0.5
    features, targets = model.features(clip), torch.arange(size) % len(SLUGS)

    def run(training: bool) -> None:
        model.train(training)
        model.zero_grad()
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = classify(features)
        if training:
            F.cross_entropy(logits.float(), targets).backward()

    return [least(lambda: run(True), repeats), least(lambda: run(False), repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(DEFAULT_SWEEP))
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []

    def add(name: str, config: TrainConfig, size: int, autocast: bool = False, compiled: bool = False) -> None:
        model = build_model(config, len(SLUGS)).place(config)
        use_fused(model, not compiled)
        classify = torch.compile(model.classify) if compiled else model.classify
        (first, train), (other, evaluate) = passes(model, classify, size, autocast, options.repeats)
        each = [f"{1000 * seconds / size:.0f}" for seconds in (train, evaluate)]
        row = (config.model, name, str(size), *each, f"{first:.0f} s, {other:.0f} s" if compiled else "")
        print(", ".join(row), flush=True)
        rows.append(row)

    for name in options.models:
        for precision in options.precisions:
            config = TrainConfig(model=name, scale="base", clip_seconds=SECONDS, precision=precision)
            for size in options.sizes:
                add(precision, config, size)
            if options.compile and precision == "bfloat16":
                for way, autocast in COMPILED.items():
                    held = TrainConfig(model=name, scale="base", clip_seconds=SECONDS) if autocast else config
                    add(way, held, options.sizes[0], autocast, compiled=True)
    head = ("backbone", "passes", "micro-batch", "training (ms)", "evaluation (ms)", "first calls")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
