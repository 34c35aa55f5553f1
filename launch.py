"""Compare audio backbones under LoRA on drum rudiments: parse, resolve one sweep, run it, point at the report."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib
import os
import pkgutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sousaphone import choices as resolving
from sousaphone import found_rates
from sousaphone.asked import AUGMENT
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.choices import DEFAULT_EPOCHS, TINY_EPOCHS, Choices
from sousaphone.command_line import (
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Parser,
    prepare_process,
    require_torchaudio,
    stop_talking,
)
from sousaphone.config import DATASET_SIZES, LORA_TARGETS, STRATEGIES, Sweep, TrainConfig, settable
from sousaphone.errors import UserError
from sousaphone.heavy_imports import heavy_imports, imported_beside
from sousaphone.jobs import STALL_TIMEOUT, TRACKERS, TRIAL_TIME_LIMIT, Job, make_job
from sousaphone.run import Limits

if TYPE_CHECKING:
    from sousaphone.data.sousa import Dataset
    from sousaphone.sweep.runtime import Resources, Runtime
    from sousaphone.timing import Budget

_EXAMPLES = """\
examples:
  launch.py                                             eight small trials on built-in data, in minutes
  launch.py --dataset small --data-dir SOUSA --plan     how long would it take?
  launch.py --dataset small --data-dir SOUSA --name first --trial-time-limit 12h
  launch.py --resume --name first                       after a stop or a crash
  launch.py --resume --name first --retry-failed        and try the failed trials again
  launch.py --extend --name first --seeds 0 1 2         add two seeds to what is there
  launch.py --promote first --dataset full --epochs 50  train the best of them on everything

exit codes: 0 every trial ended well; 1 one did not, or Ray was lost; 2 wrong input, or Ray cannot start: nothing
begun; 130 interrupted"""
# They bring torch, transformers and PEFT, and Ray needs none of what they bring.
_HEAVY = ("torch", "peft", "sousaphone.timing", "sousaphone.data.prepare")
# After so long a sweep's trials have begun, and this process waits for them.
_QUIET_SECONDS = 30.0
EXIT_TRIAL = 1


def build_parser() -> argparse.ArgumentParser:
    """Every option defaults to None, so that a resumed run can tell what was asked for from what was not."""
    parser = Parser(
        prog="launch.py",
        usage="%(prog)s [options]",
        description="Fine-tune pretrained audio backbones with LoRA on the 40 drum rudiments and compare them.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument("--config", metavar="NAME", help=f"sweep: {', '.join(_configs())} (default backbones)")
    what.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help=f"backbones: {' '.join(REGISTRY)} (default {' '.join(DEFAULT_SWEEP)})",
    )
    what.add_argument("--augment", choices=AUGMENT, help="augmentation (default both: every backbone with and without)")
    what.add_argument("--strategy", choices=STRATEGIES, help="what trains beside the fresh layers (default lora)")
    what.add_argument("--lora-targets", choices=LORA_TARGETS, help="layers that get adapters (default all-linear)")
    what.add_argument(
        "--scale", choices=("auto", "base", "nano"), help="base: published sizes; nano: small (default auto)"
    )
    what.add_argument(
        "--weights", nargs="+", metavar="W", help="auto, random, or NAME=PATH, NAME=hub:OWNER/NAME ... (default auto)"
    )
    what.add_argument(
        "--rates", metavar="FILE", help="learning rates that --config rates found (default: tune_configs/rates.py)"
    )
    what.add_argument("--seeds", nargs="+", type=int, metavar="N", help="one trial each (default 0)")
    what.add_argument("--epochs", type=int, metavar="N", help=f"default {DEFAULT_EPOCHS}, at tiny {TINY_EPOCHS}")
    text = "further settings, listed below; of one that is given twice the last counts"
    what.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help=text)
    data = parser.add_argument_group("data")
    sizes = ", ".join(f"{name} {size:,}" if size else f"{name} all" for name, size in DATASET_SIZES.items())
    data.add_argument("--dataset", choices=DATASET_SIZES, help=f"clips, at most: {sizes} (default tiny)")
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        help="SOUSA, a folder of recordings, a CSV, or hub:OWNER/NAME (default SOUSA_DATASET_PATH, else built-in)",
    )
    data.add_argument(
        "--hold-out", metavar="WHAT=NAME", help="soundfont=NAME or preset=NAME: kept from training, scored apart"
    )
    data.add_argument(
        "--test-also", metavar="DIR", help="a further data set of any of these forms, scored apart, never selected on"
    )
    run = parser.add_argument_group("the run")
    run.add_argument("--name", help="of the run (default: made from sweep, size and time)")
    run.add_argument("--storage", metavar="DIR", help="where runs live (default results)")
    run.add_argument("--plan", action="store_true", help="say what would be done and how long it takes, and stop")
    run.add_argument(
        "--timing",
        action=argparse.BooleanOptionalAction,
        help="time a few steps of each arm first (default: where cheap)",
    )
    run.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        help="measure first what results are held against: simple baselines, CPU time a clip (default: on; about 15 s "
        "at tiny and nano on two cores, minutes for many clips)",
    )
    run.add_argument("--yes", action="store_true", help="start although a time limit will cut trials off")
    run.add_argument(
        "--tracker", choices=TRACKERS, help="metrics also to Weights & Biases, offline unless WANDB_MODE says otherwise"
    )
    limits = parser.add_argument_group("time limits, such as 45s, 90m, 2h or 1h30m; none lifts one")
    limits.add_argument("--trial-time-limit", metavar="T", help=f"of each trial (default {TRIAL_TIME_LIMIT})")
    limits.add_argument("--time-limit", metavar="T", help="of this launch, all trials together (default none)")
    limits.add_argument(
        "--stall-timeout", metavar="T", help=f"a trial without a batch for so long is hung (default {STALL_TIMEOUT})"
    )
    again = parser.add_argument_group("a run that exists")
    again.add_argument("--resume", action="store_true", help="go on with the run called --name (default: the newest)")
    again.add_argument("--retry-failed", action="store_true", help="with --resume: try failed trials again, too")
    again.add_argument(
        "--extend", action="store_true", help="add --models, --augment or --seeds to it, and go on with it"
    )
    again.add_argument(
        "--promote", metavar="RUN", help="train the best trial of RUN as a run of its own (--dataset, --epochs)"
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), help="default auto: the best there is")
    machine.add_argument(
        "--cpus-per-trial", type=float, metavar="X", help="default: one at nano scale on a CPU, else a fair share"
    )
    machine.add_argument("--gpus-per-trial", type=float, metavar="X", help="default: one where there is one")
    machine.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    machine.add_argument("--dashboard", action="store_true", help="bring up Ray's dashboard on 127.0.0.1")
    return parser


def _settings_help() -> str:
    rows = [f"  {name:<20} {f.metadata['help']} (default {f.default})" for name, f in settable().items()]
    return "\n".join(["settings for --set (a sweep may have its own defaults):", *rows, "", _EXAMPLES])


def _configs() -> list[str]:
    import tune_configs

    return [m.name for m in pkgutil.iter_modules(tune_configs.__path__) if m.name != "resources"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    arguments = build_parser().parse_args(argv)
    try:
        return run(arguments)
    except UserError as error:
        print(f"launch.py: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:
        stop_talking()
        return EXIT_OK if arguments.plan else EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("\nlaunch.py: interrupted before anything was begun", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(arguments: argparse.Namespace) -> int:
    """Resolve, check, plan, run, report."""
    require_torchaudio()
    job = make_job(arguments, _sweep)
    for line in job.remarks:
        print(line)
    left = job.left()
    if job.plan is not None and not left and not job.added:
        from sousaphone.sweep.status import ways_on, write_status

        print("nothing is left to train")
        for what, line in ways_on(job.directory, {record.status for record in job.records().values()}):
            print(f"{what}: {line}")
        if arguments.baselines and not job.plan.get("baselines", True):
            print("baselines are not measured: that comes before trials, and none is left")
        if arguments.plan:
            return EXIT_OK
        with job.directory.held():  # whoever died just before the end has left the page, and litter, behind
            write_status(job.directory)
        return _end(job)

    from sousaphone.sweep.runtime import Capacity, pick_resources

    if job.tracker == "wandb":
        from sousaphone.sweep.tracking import check_tracker

        check_tracker()
    capacity = Capacity.find(job.choices.cpus, job.choices.gpus, job.choices.device)
    resources = pick_resources(job.choices, job.sweep, capacity)
    at_once = capacity.trials_at_once(resources, len(left))
    try:
        with _ray(arguments, job) as runtime:
            planned = _plan(arguments, job, resources, at_once)
            if planned is None or runtime is None:
                return EXIT_OK
            job, dataset = planned
            interrupted = _train(runtime, job, dataset, resources, at_once)
    except KeyboardInterrupt:
        print(f"\n{_not_begun(job)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return _finish(job, True) if interrupted else _end(job)  # interrupted, it is deaf to signals by now


def _not_begun(job: Job) -> str:
    """What to say of a stop before the trials."""
    if job.directory.exists:
        return f"launch.py: interrupted; to go on: {job.directory.resume_command}"
    return "launch.py: interrupted before the run began; nothing to resume"


def _end(job: Job) -> int:
    """The report of trials that are through, which a signal may cut off."""
    from sousaphone.sweep.signals import interrupt, signals_call

    try:
        with signals_call(interrupt):
            return _finish(job, False)
    except KeyboardInterrupt:
        print(f"\ninterrupted amid the report; to write it: {job.directory.resume_command}")
        return EXIT_INTERRUPTED


@contextlib.contextmanager
def _ray(arguments: argparse.Namespace, job: Job) -> Iterator[Runtime | None]:
    """Ray, and what takes seconds to import: Ray's start mostly waits, so one goes on beside the other. A plan needs no
    Ray."""
    from sousaphone.sweep.runtime import kill_all, ray_runtime
    from sousaphone.sweep.signals import interrupt, let_pass, signals_call

    def lose() -> NoReturn:
        print("launch.py: error: Ray's own processes were killed before the run began", file=sys.stderr)
        os._exit(EXIT_TRIAL)

    def stop(name: str) -> NoReturn:
        kill_all()
        os.write(2, f"\n{_not_begun(job)}\n".encode())
        os._exit(EXIT_INTERRUPTED)

    runtime = None
    with contextlib.ExitStack() as up:
        up.enter_context(signals_call(let_pass))  # while Ray is shut down, which takes a second
        # Not by KeyboardInterrupt: raised amid an import it would leave a lock held for which the other thread waits.
        with signals_call(stop), heavy_imports(), imported_beside(*_HEAVY):
            if not arguments.plan:
                runtime = up.enter_context(ray_runtime(arguments.dashboard, job.choices.device, print, lose))
        up.enter_context(signals_call(interrupt))
        yield runtime


def _plan(arguments: argparse.Namespace, job: Job, resources: Resources, at_once: int) -> tuple[Job, Dataset] | None:
    """Say what will be done, and make ready what it takes, before the run directory is touched: all that can be wrong
    with weights, data and time shows here. None if that is all that is asked for."""
    from sousaphone.data.prepare import fill_caches, overlap, read_further, read_subset
    from sousaphone.sweep import plan as planning
    from sousaphone.sweep.forecast import describe

    left = job.left()
    trainable: dict[TrainConfig, int] = {}
    for line in planning.describe_trials(job, left, resources, at_once, trainable):
        print(line)
    also = job.choices.test_also
    skipped = arguments.plan and resolving.not_downloaded(also)
    further = [read_further(Path(also))] if also and not skipped else []
    dataset: Dataset | None = None
    if not (arguments.plan and resolving.data_is_missing(job.choices)):  # a plan makes and downloads nothing
        job = job.at(resolving.with_data(job.choices).data_dir)
        left = job.left()
        dataset = read_subset(Path(job.trials[0].data_dir), job.choices.dataset, job.choices.hold_out)
        planning.refuse_other_content(job, left, dataset)
    for line in planning.describe_places(job, dataset):
        print(line)
    clips = dataset.clips["split"].value_counts().to_dict() if dataset else planning.nominal_clips(job.choices.dataset)
    forecast = planning.foresee(job, left, clips, trainable, at_once, _timing(arguments), print)
    for line in describe(forecast):
        print(line)
    planning.refuse_what_cannot_end(job, forecast, resources, cut=arguments.yes)
    if arguments.plan or dataset is None:
        return None
    for needed in (dataset, *further):
        fill_caches(needed, left, Path(job.choices.cache_dir))
    for other in further:
        if warning := overlap(dataset, other, left, Path(job.choices.cache_dir)):
            print(f"warning: {warning}")
            dataset = dataclasses.replace(dataset, notes=(*dataset.notes, warning))
    return job, dataset


def _train(runtime: Runtime, job: Job, dataset: Dataset, resources: Resources, at_once: int) -> bool:
    """Baselines, then what is left of the trials; whether that was interrupted."""
    from sousaphone.sweep import experiment
    from sousaphone.sweep import plan as planning
    from sousaphone.sweep.ends import name_ends
    from sousaphone.sweep.signals import ignore_signals

    def lose() -> NoReturn:
        reason = "Ray's own processes were killed"
        name_ends(job.directory, [trial.trial_id for trial in job.trials], "interrupted", reason)
        print(f"{reason}; to go on: {job.directory.resume_command}")
        _finish(job, False)
        sys.stdout.flush()
        os._exit(EXIT_TRIAL)

    with job.directory.held(_limits(job)):
        if job.plan is None and job.directory.exists:
            raise UserError(f"{job.directory.path} was begun by another process just now; give another --name")
        if job.plan is not None and job.plan != job.directory.read_plan():
            raise UserError(f"{job.directory.path} was changed by another launch just now; give the same line again")
        job.directory.write_plan(planning.plan_json(job, resources, at_once, dataset))
        print(f"progress: {job.directory.status_page}")
        meanwhile = threading.Timer(_QUIET_SECONDS, _load_report)
        meanwhile.daemon = True
        try:
            runtime.on_loss = lose
            if job.baselines and any(trial.score_test for trial in job.trials):
                _measure(job, dataset)
            meanwhile.start()
            experiment.run_sweep(
                runtime, job.directory, job.sweep, job.trials, job.left(), resources, at_once, job.tracker, print
            )
        except (experiment.InterruptedRunError, KeyboardInterrupt):
            ignore_signals()
            return True
        except experiment.StoppedRunError as stop:
            print(f"{stop}; to go on: {job.directory.resume_command}")
        finally:
            meanwhile.cancel()
    return False


def _timing(arguments: argparse.Namespace) -> Budget | None:
    """How much may be timed: nothing with --no-timing, full-size models on a CPU only with --timing."""
    from sousaphone.timing import Budget

    if arguments.timing is False:
        return None
    # A plan is asked for its forecast; before a real start the timing must be cheap against the sweep.
    return Budget(share=None if arguments.plan else Budget.share, base_on_cpu=bool(arguments.timing))


def _measure(job: Job, dataset: Dataset) -> None:
    """Baselines and CPU times, where the run lacks them; the trials have not begun."""
    from sousaphone.measure import measure_yardsticks
    from sousaphone.sweep.ends import name_ends

    # Should it end here, the status page tells how things stand.
    name_ends(job.directory, [trial.trial_id for trial in job.trials], "interrupted", "the driver was killed")
    measure_yardsticks(job.directory.path, job.trials, dataset, print)


def _limits(job: Job) -> Limits:
    deadline = None if job.limits.sweep is None else time.time() + job.limits.sweep
    return Limits(job.limits.trial, deadline, job.limits.stall)


def _finish(job: Job, interrupted: bool) -> int:
    if job.config == resolving.SEARCH:  # its trials are no results, and a table that ranks them would say they are
        for told in found_rates.write(job.directory.path, job.trials, job.records()):
            print(told)
    else:
        _report(job)
    if job.tracker == "wandb":
        from sousaphone.sweep.tracking import sync_line

        if line := sync_line(job.directory):
            print(f"Weights & Biases, kept offline; to send it: {line}")
    if interrupted:
        print(f"interrupted; to go on: {job.directory.resume_command}")
        return EXIT_INTERRUPTED
    if not job.all_ended_well():
        where = job.directory.status_page if job.config == resolving.SEARCH else "the report"
        print(f"some trials did not end well; {where} says which, why, and what to type")
        return EXIT_TRIAL
    return EXIT_OK


def _load_report() -> None:
    """The report's libraries, imported while this process has nothing to do but wait for trials."""
    with contextlib.suppress(ImportError):  # it will say so itself
        importlib.import_module("analysis.report")


def _report(job: Job) -> None:
    from analysis.report import write_report

    try:
        report = write_report(job.directory.path)
        print(f"report: {report} (summary_report.md, report.html, comparison_table.csv, plots/)")
    except UserError as error:  # a full disk; how the run ended is still to be said
        print(f"no report: {error}")


def _sweep(config: str, choices: Choices) -> Sweep:
    if config not in _configs():
        raise UserError(f"--config {config!r} is unknown; choose one of: {', '.join(_configs())}")
    sweep: Sweep = importlib.import_module(f"tune_configs.{config}").sweep(choices)
    return sweep


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for Ray's workers, whose warnings nobody reads
    code = main()
    gc.freeze()  # the process ends, and looking for garbage first would take a fifth of a second
    sys.exit(code)
