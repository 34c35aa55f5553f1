"""How fast the project trains and starts, against two baselines and against the floor; one command, tables as result.

    python -m tests.benchmarks.speed [--scale nano|base] [--models ast ...] [--device auto] [--save]

Contenders take turns, round after round, and the best round of each counts, so that a disturbed machine tells the
truth in its ratios; processor time stands beside wall time. On a GPU they run one after the other, ours first. Needs
neither Ray nor soundfile for the training part; what cannot be measured on a machine is named. --only picks parts;
--save writes tests/benchmarks/results/.
One round of one step says nothing: caches are cold.
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
from .clips import Clips, has, make_clips
from .setting import Setting

PARTS = ("training", "kernels", "sweep", "concurrency", "startup", "overhead")


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("auto", "nano", "base"), default="auto")
    parser.add_argument("--models", nargs="+", choices=REGISTRY, default=list(DEFAULT_SWEEP), metavar="MODEL")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--source", type=Path, help="a data set to hear (default: clips of the built-in kind)")
    parser.add_argument("--rounds", type=positive, help="default 5; 1 for full-size models on a CPU")
    parser.add_argument("--steps", type=positive, help="in a round (default 4; 20 on a GPU; 1 for full size on a CPU)")
    parser.add_argument("--batch", type=positive, help="clips in a step (default 32; 4 for full size on a CPU)")
    parser.add_argument("--threads", type=positive, help="of the process that trains (default: every core)")
    parser.add_argument("--epochs", type=int, default=10, help="of the sweep whose overhead is measured (default 10)")
    parser.add_argument("--scratch", type=Path, help="a directory with room for some hundred MB")
    parser.add_argument("--save", action="store_true", help="write Markdown and JSON to tests/benchmarks/results/")
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
    say = report.say
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        scratch = Path(directory)

        @functools.cache
        def clips() -> Clips:
            made = make_clips(arguments.source, max(64, setting.batch * setting.steps), scratch)
            report.note(made.told)
            return made

        measures: dict[str, Callable[[], Any]] = {
            "training": lambda: _training(report, setting, arguments.models, clips(), scratch),
            "kernels": lambda: report.add_kernels(kernels.measure(setting, arguments.models, clips(), scratch, say)),
            "sweep": lambda: report.add_sweep(small_sweep.measure(setting, arguments.models, clips(), scratch, say)),
            "concurrency": lambda: report.add_concurrency(
                concurrency.measure(setting, arguments.models, clips(), scratch, say)
            ),
            "startup": lambda: report.add_startup(startup.measure(scratch, say)),
            "overhead": lambda: report.add_overhead(overhead.measure(scratch, arguments.epochs, say)),
        }
        for part in arguments.only:
            if part in ("startup", "overhead") and not has("ray"):
                report.note(f"{part}: not measured, Ray is missing here")
            elif part in ("kernels", "sweep") and device != "cuda":
                report.note(f"{part}: measured on CUDA alone")
            elif part in ("concurrency", "startup", "overhead") and (scale, device) != ("nano", "cpu"):
                report.note(f"{part}: measured at nano scale on a CPU alone")
            else:
                measures[part]()
    if arguments.save:
        print(f"\nsaved: {report.save(Path(__file__).parent / 'results')}")


def _training(report: tables.Report, setting: Setting, models: Sequence[str], clips: Clips, scratch: Path) -> None:
    device = torch.device(setting.device)
    torch.set_num_threads(setting.threads)
    rates = {name: floor.measure(device, bf16) for name, bf16 in (("fp32", False), ("bf16", True))}
    measured = [contenders.measure(model, setting, clips, scratch, report.say) for model in models]
    for name, bf16 in (("fp32", False), ("bf16", True)):  # again: the better of before and after
        again = floor.measure(device, bf16)
        before = rates[name]
        memory = max(one.bytes for one in (before, again, *rates.values()))
        rates[name] = floor.Rates(max(before.operations, again.operations), memory)
    report.add_training(measured, rates)


if __name__ == "__main__":
    main()
