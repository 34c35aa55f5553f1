"""Compare audio backbones under LoRA on drum rudiments: options, job, data and plan, trials, report."""

from __future__ import annotations

from sousaphone.sweep import signals

_NOTHING_BEGUN = "interrupted before anything was begun"
if __name__ == "__main__":  # before what takes long to import
    signals.exit_on_stop(f"launch.py: {_NOTHING_BEGUN}")

import sys
from collections.abc import Sequence

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    EXIT_OK,
    prepare_process,
    require_torchaudio,
    stop_talking,
)
from sousaphone.cli.report import finish_sweep
from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.errors import UserError
from sousaphone.planning.job import Job, make_job
from sousaphone.planning.sweep_options import Options


def main(argv: Sequence[str] | None = None, prog: str = "launch.py") -> int:
    """Run the command line; returns the exit code."""
    with signals.interrupts():
        try:
            prepare_process()
            options = parse(argv, prog)
            return run(options, prog)
        except UserError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return EXIT_INPUT
        except BrokenPipeError:
            stop_talking()
            return EXIT_OK if options.plan else EXIT_INTERRUPTED
        except KeyboardInterrupt:
            signals.ignore_stops()
            print(f"\n{prog}: {_NOTHING_BEGUN}", file=sys.stderr)
            return EXIT_INTERRUPTED


def run(options: Options, prog: str) -> int:
    """Resolve, check, plan, run, report."""
    job = make_job(options, make_sweep)
    for line in job.remarks:
        print(line)
    if job.is_done:
        return _finish_done(job, options)
    try:
        return _run(job, options, prog)
    except KeyboardInterrupt:
        signals.ignore_stops()
        how = f"interrupted; to resume: {job.directory.resume_command}" if job.directory.exists else _NOTHING_BEGUN
        print(f"\n{prog}: {how}", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(job: Job, options: Options, prog: str) -> int:
    # Ray and torch take seconds to import, and a wrong option shows before.
    from sousaphone.sweep.capacity import Capacity, pick_resources
    from sousaphone.sweep.ray_process import Runtime

    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import check_tracker

        check_tracker()
    with Runtime(options.dashboard, job.request.device) as runtime:
        capacity = Capacity.find(job.request.cpus, job.request.gpus, job.request.device, runtime)
        resources = pick_resources(job.request, job.sweep, capacity)
        at_once = capacity.trials_at_once(resources, len(job.left()))
        if not options.plan:
            runtime.start()  # in a process of its own, while this one imports torch
        require_torchaudio()
        from sousaphone.planning.plan import prepare
        from sousaphone.sweep.experiment import MovedRunError, SweepEnd, run_job

        prepared = prepare(job, options, resources, at_once, print)
        if prepared is None:
            return EXIT_OK
        job, dataset = prepared
        runtime.wait()
        try:
            end = run_job(runtime, job, dataset, resources, at_once, print)
        except MovedRunError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return EXIT_FAILED
    return _report(job, end is SweepEnd.INTERRUPTED)


def _finish_done(job: Job, options: Options) -> int:
    """Of a run whose trials have all ended: what can be typed, and the report anew."""
    from sousaphone.sweep.status_page import write_status

    print("nothing is left to train")
    # A plain --resume leaves all of them as they are, whatever the cause.
    for what, command in job.directory.next_steps((record.status, None) for record in job.records().values()):
        print(f"{what}: {command}" if command else what)
    if options.baselines and job.plan and not job.plan.get("baselines", True):
        print("baselines are not measured: that comes before trials, and none is left")
    if options.plan:
        return EXIT_OK
    with job.directory.held():  # whoever died just before the end has left the page and temporary files behind
        write_status(job.directory)
    return _report(job, interrupted=False)


def _report(job: Job, interrupted: bool) -> int:
    """A signal may cut off the report of trials that have ended; after an interrupt, signals are ignored already."""
    try:
        return finish_sweep(job, interrupted)
    except KeyboardInterrupt:
        signals.ignore_stops()
        print(f"\ninterrupted amid the report; to write it: {job.directory.resume_command}")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    code = main()
    signals.ignore_stops()
    sys.exit(code)
