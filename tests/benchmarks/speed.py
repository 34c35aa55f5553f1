"""Measure how fast training and start-up are, against two baselines and a lower bound (the floor).

    python -m tests.benchmarks.speed [--scale nano|base] [--models ast ...] [--device auto] [--save]

Contenders take turns, round after round, and the best round of each counts, so that disturbances of the machine cancel
in the ratios; processor time is reported next to wall time. On a GPU they run one after the other, ours first. Parts
that cannot be measured on a machine are named. One round of one step is not meaningful: caches are cold. With --source
the parts training, kernels and sweep need neither Ray nor pedalboard.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.hardware import count_cpus, pick_device
from sousaphone.planning.resolve_options import pick_scale

from . import concurrency, contenders, floor, kernels, overhead, small_sweep, startup, tables
from .clips import Clips, make_clips
from .setting import Setting

PARTS = ("training", "kernels", "sweep", "concurrency", "startup", "overhead")


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is too low; give 1 or more")
    return number


def log(line: str) -> None:
    """Print progress, which is not part of the report."""
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("auto", "nano", "base"), default="auto")
    parser.add_argument("--models", nargs="+", choices=REGISTRY, default=list(DEFAULT_SWEEP), metavar="MODEL")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--source", type=Path, help="a data set (default: clips of the built-in kind)")
    parser.add_argument("--rounds", type=positive, help="default 5; 1 for full-size models on a CPU")
    parser.add_argument("--steps", type=positive, help="per round (default 4; 20 on a GPU; 1 for full size on a CPU)")
    parser.add_argument("--batch", type=positive, help="clips per step (default 32; 4 for full size on a CPU)")
    parser.add_argument("--threads", type=positive, help="of the training process (default: one per core)")
    parser.add_argument("--epochs", type=int, default=10, help="of each trial of the overhead's sweep (default 10)")
    parser.add_argument("--scratch", type=Path, help="a directory with some hundred MB of free space")
    parser.add_argument("--save", action="store_true", help="write the tables to tests/benchmarks/results/")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    scale = pick_scale(arguments.scale, device)
    heavy, cores = scale == "base" and device == "cpu", count_cpus()
    setting = Setting(
        scale,
        device,
        cores,
        threads=arguments.threads or cores,
        batch=arguments.batch or (4 if heavy else 32),
        steps=arguments.steps or (1 if heavy else 4 if device == "cpu" else 20),
        rounds=arguments.rounds or (1 if heavy else 5),
    )
    report = tables.Report(setting)
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        scratch = Path(directory)

        @functools.cache
        def clips() -> Clips:
            made = make_clips(arguments.source, max(64, setting.batch * setting.steps), scratch)
            report.add(made.description)
            return made

        measures: dict[str, Callable[[], Any]] = {
            "training": lambda: _training(report, setting, arguments.models, clips(), scratch),
            "kernels": lambda: report.add_kernels(kernels.measure(setting, arguments.models, clips(), scratch, log)),
            "sweep": lambda: report.add_sweep(small_sweep.measure(setting, arguments.models, clips(), scratch, log)),
            "concurrency": lambda: report.add_concurrency(
                concurrency.measure(setting, arguments.models, clips(), scratch, log)
            ),
            "startup": lambda: report.add_startup(startup.measure(scratch, log)),
            "overhead": lambda: report.add_overhead(overhead.measure(scratch, arguments.epochs, log)),
        }
        for part in arguments.only:
            if part in ("kernels", "sweep") and device != "cuda":
                report.add(f"{part}: measured only on CUDA")
            elif part in ("concurrency", "startup", "overhead") and (scale, device) != ("nano", "cpu"):
                report.add(f"{part}: measured only at nano scale on a CPU")
            else:
                measures[part]()
    if arguments.save:
        print(f"\nsaved: {report.save(Path(__file__).parent / 'results')}")


def _training(report: tables.Report, setting: Setting, models: Sequence[str], clips: Clips, scratch: Path) -> None:
    device = torch.device(setting.device)
    torch.set_num_threads(setting.threads)
    precisions = (("fp32", False), ("bf16", True))
    before = {name: floor.measure(device, bf16) for name, bf16 in precisions}
    measured = [contenders.measure(model, setting, clips, scratch, log) for model in models]
    after = {name: floor.measure(device, bf16) for name, bf16 in precisions}
    copying = max(rates.bytes for rates in (*before.values(), *after.values()))
    rates = {name: floor.Rates(max(before[name].operations, after[name].operations), copying) for name, _ in precisions}
    report.add_training(measured, rates)


if __name__ == "__main__":
    main()
