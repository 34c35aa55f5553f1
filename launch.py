"""Compare audio backbones under LoRA on drum rudiments: parse, resolve one sweep, run it, point at the report."""

from __future__ import annotations

from sousaphone import signals

_NOTHING_BEGUN = "launch.py: interrupted before anything was begun"
if __name__ == "__main__":
    signals.exit_on_stop(_NOTHING_BEGUN)

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

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

EXIT_TRIAL = 1


def main(argv: Sequence[str] | None = None, prog: str = "launch.py") -> int:
    """Run the command line; returns the exit code."""
    with signals.interrupts():
        try:
            prepare_process()
            options = parse(argv, prog)
            return run(options)
        except UserError as error:
            print(f"launch.py: error: {error}", file=sys.stderr)
            return EXIT_INPUT
        except BrokenPipeError:
            stop_talking()
            return EXIT_OK if options.plan else EXIT_INTERRUPTED
        except KeyboardInterrupt:
            signals.ignore_stops()
            print(f"\n{_NOTHING_BEGUN}", file=sys.stderr)
            return EXIT_INTERRUPTED


def run(options: Options) -> int:
    """Resolve, check, plan, run, report."""
    job = make_job(options, make_sweep)
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

    from sousaphone.sweep.runtime import Capacity, Runtime, pick_resources

    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import check_tracker

        check_tracker()
    try:
        with Runtime(options.dashboard, job.request.device) as runtime:
            capacity = Capacity.find(job.request.cpus, job.request.gpus, job.request.device, runtime)
            resources = pick_resources(job.request, job.sweep, capacity)
            at_once = capacity.trials_at_once(resources, len(left))
            if not options.plan:
                runtime.start()  # beside the imports that planning takes
            require_torchaudio()
            from sousaphone.planning.plan import prepare  # brings torch

            planned = prepare(job, options, resources, at_once, print)
            if planned is None:
                return EXIT_OK
            job, dataset = planned
            runtime.wait()
            code = _train(runtime, job, dataset, resources, at_once)
    except KeyboardInterrupt:
        signals.ignore_stops()
        print(f"\n{_not_begun(job)}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return _end(job) if code is None else code


def _not_begun(job: Job) -> str:
    """What to say of a stop before the trials."""
    if job.directory.exists:
        return f"launch.py: interrupted; to go on: {job.directory.resume_command}"
    return "launch.py: interrupted before the run began; nothing to resume"


def _end(job: Job) -> int:
    """The report of trials that are through, which a signal may cut off."""
    try:
        return _finish(job, False)
    except KeyboardInterrupt:
        signals.ignore_stops()
        print(f"\ninterrupted amid the report; to write it: {job.directory.resume_command}")
        return EXIT_INTERRUPTED


def _train(runtime: Runtime, job: Job, dataset: Dataset, resources: Resources, at_once: int) -> int | None:
    """Baselines, then what is left of the trials. The exit code if it did not come to its end, and has said why."""
    from sousaphone.planning import plan as planning
    from sousaphone.sweep import experiment
    from sousaphone.sweep.runtime import StoppedRayError

    with job.directory.held(_limits(job)):
        if job.plan is None and job.directory.exists:
            raise UserError(f"{job.directory.path} was begun by another process just now; give another --name")
        if job.plan is not None and job.plan != job.directory.read_plan():
            raise UserError(f"{job.directory.path} was changed by another launch just now; give the same line again")
        job.directory.write_plan(planning.plan_json(job, resources, at_once, dataset))
        print(f"progress: {job.directory.status_page}")
        try:
            if job.baselines and any(trial.score_test for trial in job.trials):
                _measure(job, dataset)
            experiment.run_sweep(
                runtime, job.directory, job.sweep, job.trials, job.left(), resources, at_once, job.tracker, print
            )
            return None
        except KeyboardInterrupt:
            signals.ignore_stops()
            interrupted = True
        except StoppedRayError as stop:
            print(f"{stop}; to go on: {job.directory.resume_command}")
            interrupted = False
        except UserError as error:  # of a run that has begun
            print(f"launch.py: error: {error}", file=sys.stderr)
            return EXIT_TRIAL
    runtime.kill()
    return _finish(job, interrupted)


def _measure(job: Job, dataset: Dataset) -> None:
    """Baselines and CPU times, where the run lacks them; the trials have not begun."""
    from sousaphone.baselines.measure import measure_yardsticks
    from sousaphone.sweep.failures import name_ends

    # Should it end here, the status page tells how things stand.
    name_ends(job.directory, [trial.trial_id for trial in job.trials], Cause.DRIVER_KILLED, "the driver was killed")
    measure_yardsticks(job.directory.path, job.trials, dataset, print)


def _limits(job: Job) -> Limits:
    deadline = None if job.limits.sweep is None else time.monotonic() + job.limits.sweep
    return Limits(job.limits.trial, deadline, job.limits.stall)


def _finish(job: Job, interrupted: bool) -> int:
    reported = _report(job)
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
    return EXIT_OK if reported else EXIT_TRIAL


def _report(job: Job) -> bool:
    """Whether it could be written; why not, is said."""
    try:
        if job.config == SEARCH:  # its trials are no results, and a table that ranks them would say they are
            for told in learning_rates.write(job.directory.path, job.trials, job.records()):
                print(told)
            return True
        from analysis.report import write_report

        report = write_report(job.directory.path)
        print(f"report: {report} (summary_report.md, report.html, comparison_table.csv, plots/)")
        return True
    except (UserError, OSError) as error:  # a full disk; how the run ended is still to be said
        print(f"no report: {error}")
        return False


if __name__ == "__main__":
    code = main()
    signals.ignore_stops()
    sys.exit(code)
