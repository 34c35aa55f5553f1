"""Compare audio backbones under LoRA on drum rudiments: parse, resolve one sweep, run it, point at the report."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from sousaphone.cli.arguments import make_sweep, parse
from sousaphone.cli.parser import (
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    prepare_process,
    require_torchaudio,
    stop_talking,
)
from sousaphone.config import SEARCH
from sousaphone.errors import UserError
from sousaphone.planning.job import Job, make_job
from sousaphone.planning.options import Options
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import Limits
from sousaphone.runs.statuses import Cause

if TYPE_CHECKING:
    from sousaphone.data.dataset import Dataset
    from sousaphone.planning.resources import Resources
    from sousaphone.sweep.runtime import Runtime

# They bring torch, transformers and PEFT, and Ray needs none of what they bring.
_HEAVY = ("torch", "peft", "sousaphone.planning.throughput", "sousaphone.data.prepare")
# After so long a sweep's trials have begun, and this process waits for them.
_QUIET_SECONDS = 30.0
EXIT_TRIAL = 1


def main(argv: Sequence[str] | None = None, prog: str = "launch.py") -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    options = parse(argv, prog)
    try:
        return run(options)
    except UserError as error:
        print(f"launch.py: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:
        stop_talking()
        return EXIT_OK if options.plan else EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("\nlaunch.py: interrupted before anything was begun", file=sys.stderr)
        return EXIT_INTERRUPTED


def run(options: Options) -> int:
    """Resolve, check, plan, run, report."""
    job = make_job(options, make_sweep)
    require_torchaudio()
    for line in job.remarks:
        print(line)
    left = job.left()
    if job.plan is not None and not left and not job.added:
        from sousaphone.sweep.status import write_status

        print("nothing is left to train")
        # A plain --resume leaves all of them as they are, whatever the cause.
        for what, command in job.directory.next_steps((record.status, None) for record in job.records().values()):
            print(f"{what}: {command}" if command else what)
        if options.baselines and not job.plan.get("baselines", True):
            print("baselines are not measured: that comes before trials, and none is left")
        if options.plan:
            return EXIT_OK
        with job.directory.held():  # whoever died just before the end has left the page, and litter, behind
            write_status(job.directory)
        return _end(job)

    from sousaphone.planning.plan import prepare
    from sousaphone.sweep.runtime import Capacity, pick_resources

    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import check_tracker

        check_tracker()
    capacity = Capacity.find(job.request.cpus, job.request.gpus, job.request.device)
    resources = pick_resources(job.request, job.sweep, capacity)
    at_once = capacity.trials_at_once(resources, len(left))
    try:
        with _ray(options, job) as runtime:
            planned = prepare(job, options, resources, at_once, print)
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
    from sousaphone.sweep.runtime import interrupt, signals_call

    try:
        with signals_call(interrupt):
            return _finish(job, False)
    except KeyboardInterrupt:
        print(f"\ninterrupted amid the report; to write it: {job.directory.resume_command}")
        return EXIT_INTERRUPTED


@contextlib.contextmanager
def _ray(options: Options, job: Job) -> Iterator[Runtime | None]:
    """Ray, and what takes seconds to import: Ray's start mostly waits, so one goes on beside the other. A plan needs no
    Ray."""
    from sousaphone.sweep.runtime import (
        heavy_imports,
        imported_beside,
        interrupt,
        kill_all,
        let_pass,
        ray_runtime,
        signals_call,
    )

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
            if not options.plan:
                runtime = up.enter_context(ray_runtime(options.dashboard, job.request.device, print, lose))
        up.enter_context(signals_call(interrupt))
        yield runtime


def _train(runtime: Runtime, job: Job, dataset: Dataset, resources: Resources, at_once: int) -> bool:
    """Baselines, then what is left of the trials; whether that was interrupted."""
    from sousaphone.planning import plan as planning
    from sousaphone.sweep import experiment
    from sousaphone.sweep.failures import name_ends
    from sousaphone.sweep.runtime import ignore_signals

    def lose() -> NoReturn:
        reason = "Ray's own processes were killed"
        name_ends(job.directory, [trial.trial_id for trial in job.trials], Cause.RAY_STOPPED, reason)
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


def _measure(job: Job, dataset: Dataset) -> None:
    """Baselines and CPU times, where the run lacks them; the trials have not begun."""
    from sousaphone.baselines.measure import measure_yardsticks
    from sousaphone.sweep.failures import name_ends

    # Should it end here, the status page tells how things stand.
    name_ends(job.directory, [trial.trial_id for trial in job.trials], Cause.DRIVER_KILLED, "the driver was killed")
    measure_yardsticks(job.directory.path, job.trials, dataset, print)


def _limits(job: Job) -> Limits:
    deadline = None if job.limits.sweep is None else time.time() + job.limits.sweep
    return Limits(job.limits.trial, deadline, job.limits.stall)


def _finish(job: Job, interrupted: bool) -> int:
    if job.config == SEARCH:  # its trials are no results, and a table that ranks them would say they are
        for told in learning_rates.write(job.directory.path, job.trials, job.records()):
            print(told)
    else:
        _report(job)
    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import sync_line

        if line := sync_line(job.directory):
            print(f"Weights & Biases, kept offline; to send it: {line}")
    if interrupted:
        print(f"interrupted; to go on: {job.directory.resume_command}")
        return EXIT_INTERRUPTED
    if not job.all_ended_well():
        where = job.directory.status_page if job.config == SEARCH else "the report"
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


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for Ray's workers, whose warnings nobody reads
    code = main()
    gc.freeze()  # the process ends, and looking for garbage first would take a fifth of a second
    sys.exit(code)
