"""Compare audio backbones under LoRA on drum rudiments: parse, resolve one sweep, run it, point at the report."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sousaphone import choices as resolving
from sousaphone.backbones.registry import REGISTRY
from sousaphone.choices import DEFAULT_EPOCHS, TINY_EPOCHS, Choices
from sousaphone.config import DATASET_SIZES, LORA_TARGETS, STRATEGIES, Sweep, ensure_unique, parse_setting, settable
from sousaphone.errors import UserError
from sousaphone.run import RunDirectory

if TYPE_CHECKING:
    from sousaphone.data.sousa import Dataset

AUGMENT = {"both": (True, False), "on": (True,), "off": (False,)}
RESOURCES = {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent": 1}  # options and their lowest values
EXIT_OK, EXIT_TRIAL, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line: the rest of the usage is a `--help` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (see --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Every option defaults to None, so that a resumed run can tell what was asked for from what was not."""
    parser = Parser(
        prog="launch.py",
        description="Fine-tune pretrained audio backbones with LoRA on the 40 drum rudiments and compare them.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument("--config", metavar="NAME", help=f"sweep: {', '.join(_configs())} (default backbones)")
    what.add_argument("--models", nargs="+", metavar="MODEL", help=f"backbones (default all): {' '.join(REGISTRY)}")
    what.add_argument("--augment", choices=AUGMENT, help="augmentation (default both: every backbone with and without)")
    what.add_argument("--strategy", choices=STRATEGIES, help="what trains beside the fresh layers (default lora)")
    what.add_argument("--lora-targets", choices=LORA_TARGETS, help="layers that get adapters (default all-linear)")
    what.add_argument(
        "--scale", choices=("auto", "base", "nano"), help="base: published sizes; nano: small (default auto)"
    )
    what.add_argument("--weights", nargs="+", metavar="W", help="auto, random, or NAME=PATH ... (default auto)")
    what.add_argument("--seeds", nargs="+", type=int, metavar="N", help="one trial each (default 0)")
    what.add_argument("--epochs", type=int, metavar="N", help=f"default {DEFAULT_EPOCHS}, at tiny {TINY_EPOCHS}")
    what.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help="further settings, listed below")
    data = parser.add_argument_group("data")
    sizes = ", ".join(f"{name} {size:,}" if size else f"{name} all" for name, size in DATASET_SIZES.items())
    data.add_argument("--dataset", choices=DATASET_SIZES, help=f"clips, at most: {sizes} (default tiny)")
    data.add_argument(
        "--data-dir", metavar="DIR", help="a SOUSA data set (default SOUSA_DATASET_PATH, else a built-in synthetic set)"
    )
    run = parser.add_argument_group("the run")
    run.add_argument("--name", help="of the run (default: made from sweep, size and time)")
    run.add_argument("--storage", metavar="DIR", help="where runs live (default results)")
    run.add_argument("--resume", action="store_true", help="go on with the run called --name (default: the newest)")
    run.add_argument("--plan", action="store_true", help="say what would be done, and stop")
    run.add_argument("--cpus-per-trial", type=float, metavar="X", help="default: one at nano scale on a CPU, else all")
    run.add_argument("--gpus-per-trial", type=float, metavar="X", help="default: one where there is one")
    run.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    run.add_argument("--dashboard", action="store_true", help="bring up Ray's dashboard on 127.0.0.1")
    return parser


def _settings_help() -> str:
    rows = [f"  {name:<20} {f.metadata['help']} (default {f.default})" for name, f in settable().items()]
    ends = "exit codes: 0 every trial ended well; 1 one did not; 2 wrong input; 130 interrupted"
    return "\n".join(["settings for --set (a sweep may have its own defaults):", *rows, "", ends])


def _configs() -> list[str]:
    import tune_configs

    return [m.name for m in pkgutil.iter_modules(tune_configs.__path__) if m.name != "rates"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file, too, tells its story in order and in time
    try:
        return run(arguments)
    except UserError as error:
        print(f"launch.py: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("\nlaunch.py: interrupted before the run began; nothing to resume", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Resolve, check, plan, run, report."""
    directory = _pick_run(arguments)
    plan = directory.read_plan() if arguments.resume else None
    if plan is None:
        choices, config = _resolve(arguments), arguments.config or "backbones"
        machine = choices
    else:
        choices, config = Choices.from_json(plan["request"]), plan["config"]
        _refuse_changes(arguments, choices, config)
        machine = _this_machine(arguments, choices)
    sweep = _sweep(config, choices)
    ensure_unique(sweep.trials())
    for line in _aloud(choices, arguments):
        print(line)

    # Torch, transformers and Ray take seconds to import: only now, when the words are known to be right.
    from sousaphone.sweep import experiment
    from sousaphone.sweep import plan as planning

    resources = planning.pick_resources(machine, sweep)
    # All that can be wrong with weights and data shows here, before the run directory is touched.
    print("\n".join(planning.describe_trials(machine, sweep, resources)))
    if arguments.plan:
        dataset = None if choices.built_in else _read(choices)
        print("\n".join(planning.describe_places(directory, choices, sweep, dataset)))
        return EXIT_OK
    choices_with_data = resolving.with_data(choices)
    sweep = _sweep(config, choices_with_data)
    dataset = planning.prepare_waveforms(choices_with_data, sweep)
    if plan is not None and dataset.fingerprint != plan["data"]["fingerprint"]:
        raise UserError(
            f"--resume: the data in {dataset.root} are not those that the run was begun with "
            f"(fingerprint {dataset.fingerprint}, was {plan['data']['fingerprint']}); restore them or begin a new run"
        )
    print("\n".join(planning.describe_places(directory, choices, sweep, dataset)))
    with directory.held():
        if plan is None:
            if directory.exists:
                raise UserError(f"{directory.path} was begun by another process just now; give another --name")
            directory.write_plan(planning.plan_json(directory, config, choices, sweep, resources, dataset))
        print(f"progress: {directory.status_page}")
        try:
            experiment.run_sweep(directory, sweep, resources, arguments.dashboard, print)
            interrupted = False
        except (experiment.InterruptedRunError, KeyboardInterrupt):
            interrupted = True
            experiment.ignore_signals()
    return _finish(directory, interrupted, experiment.all_ended_well(directory, sweep))


def _finish(directory: RunDirectory, interrupted: bool, all_well: bool) -> int:
    from analysis.report import write_report

    report = write_report(directory.path)
    print(f"report: {report} (summary_report.md, report.html, comparison_table.csv, plots/)")
    if interrupted:
        print(f"interrupted; to go on: {directory.resume_command}")
        return EXIT_INTERRUPTED
    if not all_well:
        print("some trials did not end well; the report says which and why")
        return EXIT_TRIAL
    return EXIT_OK


def _pick_run(arguments: argparse.Namespace) -> RunDirectory:
    """The run directory, checked before anything is touched."""
    storage = Path(arguments.storage or "results").expanduser().absolute()
    name = arguments.name
    if name is not None and (not name or Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name!r} is not the name of a directory; give a plain name such as lora-small")
    if arguments.resume:
        if name is None:
            runs = sorted(storage.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
            if not runs:
                raise UserError(f"--resume: there is no run in {storage}; give --name and --storage")
            name = runs[-1].parent.name
            print(f"resuming the newest run, {name}")
        directory = RunDirectory(storage / name)
        if not directory.exists:
            raise UserError(f"--resume: {directory.path} is no run; there are: {_runs(storage)}")
        return directory
    if name is None:
        name = f"{arguments.config or 'backbones'}-{arguments.dataset or 'tiny'}-{datetime.now():%Y%m%d-%H%M%S}"
    standing = next(path for path in (storage, *storage.parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise UserError(f"--storage {arguments.storage}: {standing} is no directory to write in; give another one")
    directory = RunDirectory(storage / name)
    if directory.path.exists() and (not directory.path.is_dir() or any(directory.path.iterdir())):
        raise UserError(
            f"--name {name}: {directory.path} is in use; add --resume to go on with it, or give another name"
        )
    return directory


def _runs(storage: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in storage.glob("*/run.json"))) or "none"


def _resolve(arguments: argparse.Namespace) -> Choices:
    models = tuple(arguments.models or REGISTRY)
    for model in models:
        if model not in REGISTRY:
            raise UserError(f"--models {model!r} is unknown; choose from: {', '.join(REGISTRY)}")
    dataset = arguments.dataset or "tiny"
    settings = dict(parse_setting(text) for text in arguments.set or ())
    _check_resources(arguments)
    data_dir = resolving.pick_data_dir(arguments.data_dir)
    device = resolving.pick_device()
    scale = resolving.pick_scale(arguments.scale or "auto", device)
    return Choices(
        models=models,
        augment=AUGMENT[arguments.augment or "both"],
        seeds=tuple(arguments.seeds or (0,)),
        dataset=dataset,
        strategy=arguments.strategy or "lora",
        lora_targets=arguments.lora_targets or "all-linear",
        epochs=(TINY_EPOCHS if dataset == "tiny" else DEFAULT_EPOCHS) if arguments.epochs is None else arguments.epochs,
        scale=scale,
        weights=resolving.resolve_weights(arguments.weights or ["auto"], models, scale),
        device=device,
        data_dir=data_dir,
        cache_dir=str(resolving.cache_directory()),
        cpus=resolving.count_cpus(),
        gpus=resolving.count_gpus(device),
        cpus_per_trial=arguments.cpus_per_trial,
        gpus_per_trial=arguments.gpus_per_trial,
        max_concurrent=arguments.max_concurrent,
        settings=settings,
    )


def _check_resources(arguments: argparse.Namespace) -> None:
    """
    Raises:
        UserError: a share of a machine that no trial could run on.
    """
    for option, lowest in RESOURCES.items():
        value = getattr(arguments, option)
        if value is not None and not value >= lowest:
            raise UserError(f"--{option.replace('_', '-')} {value:g} is too low; give {lowest} or more")


def _this_machine(arguments: argparse.Namespace, choices: Choices) -> Choices:
    """A saved run's choices with this machine's resources and the resources asked for now: what a trial computes
    stays as it was, how many run at a time may change.

    Raises:
        UserError: the run was begun on another kind of device.
    """
    _check_resources(arguments)
    device = resolving.pick_device()
    if device != choices.device:
        raise UserError(f"--resume: the run was begun on {choices.device}, this machine has {device}; resume it there")
    given = {key: getattr(arguments, key) for key in RESOURCES if getattr(arguments, key) is not None}
    return dataclasses.replace(choices, cpus=resolving.count_cpus(), gpus=resolving.count_gpus(device), **given)


def _refuse_changes(arguments: argparse.Namespace, choices: Choices, config: str) -> None:
    """A resumed run goes on as it was begun; what is asked for again must be the same.

    Raises:
        UserError: it is not; the message lists what differs.
    """
    asked: dict[str, tuple[Any, Any]] = {
        "--config": (arguments.config, config),
        "--models": (_words(arguments.models), _words(choices.models)),
        "--augment": (arguments.augment, next(word for word, flags in AUGMENT.items() if flags == choices.augment)),
        "--seeds": (_words(arguments.seeds), _words(choices.seeds)),
        "--strategy": (arguments.strategy, choices.strategy),
        "--lora-targets": (arguments.lora_targets, choices.lora_targets),
        "--epochs": (arguments.epochs, choices.epochs),
        "--dataset": (arguments.dataset, choices.dataset),
        "--scale": (None if arguments.scale == "auto" else arguments.scale, choices.scale),
        "--data-dir": (resolving.pick_data_dir(arguments.data_dir) if arguments.data_dir else None, choices.data_dir),
    }
    for key, value in (parse_setting(text) for text in arguments.set or ()):
        asked[f"--set {key}"] = (value, choices.settings.get(key))
    if arguments.weights:
        asked["--weights"] = (
            resolving.resolve_weights(arguments.weights, choices.models, choices.scale),
            dict(choices.weights),
        )
    changed = [f"{name} {new} (was {old})" for name, (new, old) in asked.items() if new is not None and new != old]
    if changed:
        raise UserError(f"--resume goes on with the same settings; changed: {'; '.join(changed)}; use another --name")


def _words(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join(map(str, values))


def _sweep(config: str, choices: Choices) -> Sweep:
    if config not in _configs():
        raise UserError(f"--config {config!r} is unknown; choose one of: {', '.join(_configs())}")
    sweep: Sweep = importlib.import_module(f"tune_configs.{config}").sweep(choices)
    return sweep


def _aloud(choices: Choices, arguments: argparse.Namespace) -> list[str]:
    """What was decided on the user's behalf."""
    lines = []
    if arguments.epochs is None and not arguments.resume:
        lines.append(f"epochs: {choices.epochs} (--epochs N for another number)")
    if arguments.scale in (None, "auto") and choices.scale == "nano":
        lines.append("scale: nano, because this machine has no GPU (--scale base for the published sizes)")
    if choices.built_in:
        lines.append("data: the built-in synthetic set (--data-dir DIR for your own SOUSA recordings)")
    return lines


def _read(choices: Choices) -> Dataset:
    from sousaphone.data.sousa import read_dataset
    from sousaphone.data.splits import draw

    return draw(read_dataset(choices.data_dir), choices.dataset)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for Ray's workers, whose warnings nobody reads
    sys.exit(main())
