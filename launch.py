"""Compare audio backbones under LoRA on drum rudiments: resolve the options, plan, run the trials, write the report."""

from __future__ import annotations

from sousaphone import signals

_NOT_STARTED = "interrupted before anything was started"
if __name__ == "__main__":  # before the slow imports
    signals.exit_on_stop(f"launch.py: {_NOT_STARTED}")

import shlex
import sys
from collections.abc import Sequence

from sousaphone.cli.command import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    discard_output,
    prepare_process,
    refusal_of_system,
    require_torchaudio,
    run_command,
)
from sousaphone.cli.report import finish_sweep
from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.planning.job import Job
from sousaphone.planning.make_job import make_job
from sousaphone.planning.sweep_options import Options
from sousaphone.runs.directory import SWEEP_COMMAND


def main(argv: Sequence[str] | None = None, prog: str = "launch.py") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    words = sys.argv[1:] if argv is None else list(argv)
    command = shlex.join([*SWEEP_COMMAND, *words])
    return run_command(prog, lambda: run(parse(words, prog), prog, command), _NOT_STARTED)


def run(options: Options, prog: str, command: str) -> int:
    """Make the job of the options, which the `command` has, then run it, or only report it if all of its trials have
    ended."""
    job = make_job(options, make_sweep, command)
    try:
        for line in job.remarks:
            print(line)
        return _finish_done(job, options) if job.is_done else _run(job, options, prog)
    except BrokenPipeError:
        discard_output()
        return EXIT_OK if options.plan else EXIT_INTERRUPTED
    except OSError as error:
        if not job.directory.exists:
            raise
        resume = f"to resume: {job.directory.resume_command}"
        print(f"{prog}: error: {refusal_of_system(error)}; {resume}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        signals.ignore_stops()
        state = f"interrupted; to resume: {job.directory.resume_command}" if job.directory.exists else _NOT_STARTED
        print(f"\n{prog}: {state}", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(job: Job, options: Options, prog: str) -> int:
    # Ray and torch take seconds to import, so wrong options are reported first.
    from sousaphone.sweep.capacity import Capacity, pick_resources
    from sousaphone.sweep.ray_process import Runtime

    if job.tracker == "wandb":
        from sousaphone.sweep.wandb_logger import check_tracker

        check_tracker()
    with Runtime(options.dashboard, job.request.device) as runtime:
        capacity = Capacity.find(job.request.cpus, job.request.gpus, job.request.device, runtime)
        resources = pick_resources(job.request, job.sweep, capacity)
        at_once = capacity.trials_at_once(resources, job.most_at_once)
        if not options.plan:
            runtime.start()  # in its own process, while this one imports torch
        require_torchaudio()
        from sousaphone.planning.plan import prepare
        from sousaphone.sweep.experiment import MovedRunError, run_job

        prepared = prepare(job, options, resources, at_once, print)
        if prepared is None:
            return EXIT_OK
        job, dataset = prepared
        runtime.wait()
        try:
            interrupted = run_job(runtime, job, dataset, resources, at_once, print)
        except MovedRunError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return EXIT_FAILED
    return _report(job.current() if job.sweep.searcher is not None else job, interrupted)


def _finish_done(job: Job, options: Options) -> int:
    """Report a run whose trials have all ended: print the next steps and rewrite its report."""
    from sousaphone.sweep.status_page import write_status

    print("nothing is left to train")
    # No trial is left, so a plain --resume continues none of them, whatever their causes.
    ends = {name: (record.status, None) for name, record in job.records().items()}
    for purpose, command in job.directory.next_steps(job.directory.read_plan(), ends):
        print(f"{purpose}: {command}" if command else purpose)
    if options.baselines and job.plan and not job.plan.get("baselines", True):
        print("baselines are not measured: they run before the trials, and no trial is left")
    if options.plan:
        return EXIT_OK
    with job.directory.held():  # removes temporary files of a driver killed near its end
        write_status(job.directory)
    return _report(job, interrupted=False)


def _report(job: Job, interrupted: bool) -> int:
    """Write the report. A stop cuts it off unless `interrupted`, when stops are ignored already."""
    try:
        return finish_sweep(job, interrupted)
    except KeyboardInterrupt:
        signals.ignore_stops()
        print(f"\ninterrupted while writing the report; to resume: {job.directory.resume_command}")
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    code = main()
    signals.ignore_stops()
    sys.exit(code)
