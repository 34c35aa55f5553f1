"""What a command line asks for: to begin, resume, extend or promote a run. Each comes to one Job; nothing on disk
changes here."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousaphone import config as resolving
from sousaphone.config import Sweep, TrainConfig, check_trials
from sousaphone.errors import UserError
from sousaphone.planning.resolve_options import (
    check_lowest,
    existing_run,
    known_models,
    new_run,
    refuse_changes,
    resolve,
    run_names,
    storage_directory,
    union,
)
from sousaphone.planning.sweep_options import AUGMENT, STALL_TIMEOUT, TRIAL_TIME_LIMIT, Options, Request, flag
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import Limits, RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import parse_duration

MakeSweep = Callable[[str, Request], Sweep]


@dataclass(frozen=True)
class TimeLimits:
    """How long a trial, with its earlier starts, and this launch may take, and when a trial counts as hung, in
    seconds; None for no limit."""

    trial: float | None
    sweep: float | None
    stall: float | None

    def from_now(self) -> Limits:
        """For trials, with this launch's deadline."""
        return Limits(self.trial, None if self.sweep is None else time.monotonic() + self.sweep, self.stall)


@dataclass(frozen=True)
class Job:
    """One command line, resolved."""

    directory: RunDirectory
    request: Request
    config: str  # the sweep's name in tune_configs
    sweep: Sweep
    trials: tuple[TrainConfig, ...]  # all that are planned, those that are done included
    limits: TimeLimits
    plan: dict[str, Any] | None = None  # run.json's content where the run exists, None where it is begun
    added: tuple[str, ...] = ()  # ids of the trials that --extend adds
    promoted_from: Mapping[str, Any] = field(default_factory=dict)  # the run and trial of --promote; empty otherwise
    retry_failed: bool = False  # whether failed trials are tried again
    baselines: bool = True  # whether they are measured before the trials
    tracker: str = "none"  # where metrics go beside TensorBoard; no result depends on it, so launches may differ
    remarks: tuple[str, ...] = ()  # what was decided on the user's behalf

    def at(self, data_dir: str) -> Job:
        """The same with its data in this directory and its cache where this machine keeps it."""
        cache_dir = self.request.cache_dir
        space = {**self.sweep.param_space, "data_dir": data_dir, "cache_dir": cache_dir}
        return dataclasses.replace(
            self,
            trials=tuple(dataclasses.replace(trial, data_dir=data_dir, cache_dir=cache_dir) for trial in self.trials),
            sweep=dataclasses.replace(self.sweep, param_space=space),
        )

    def records(self) -> dict[str, TrialRecord]:
        """What the trials have left so far, by trial; a damaged record counts as none, and is written anew."""
        found = {trial.trial_id: self.directory.record(trial.trial_id) for trial in self.trials}
        return {trial_id: record for trial_id, record in found.items() if record is not None}

    def left(self) -> list[TrainConfig]:
        """The trials that are to be run now."""
        records = self.records()
        return [trial for trial in self.trials if self._is_left(records.get(trial.trial_id))]

    @property
    def is_done(self) -> bool:
        """Whether the run exists and none of its trials is left."""
        return self.plan is not None and not self.added and not self.left()

    def all_ended_well(self) -> bool:
        """Whether every planned trial came to a good end, with a result."""
        records = self.records().values()
        return len(records) == len(self.trials) and all(each.status.is_good and each.history for each in records)

    def _is_left(self, record: TrialRecord | None) -> bool:
        if record is None or not record.status.has_ended:
            return True
        if record.status is Status.TIME_LIMIT:  # of the sweep, or the trial's own, which is longer now
            return self.limits.trial is None or record.seconds < self.limits.trial
        return self.retry_failed and record.status.is_retried


def make_job(options: Options, make_sweep: MakeSweep) -> Job:
    """
    Args:
        options: as typed.
        make_sweep: from a config's name and request to its sweep.

    Raises:
        UserError: whatever is wrong with them.
    """
    ways = {"--resume": options.resume, "--extend": options.extend, "--promote": options.promote is not None}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    if options.rates is not None and given:
        raise UserError(f"--rates belongs to a new run; leave it out with {given[0]}")
    if options.retry_failed and not options.resume:
        raise UserError("--retry-failed belongs to --resume; add it")
    check_lowest(options)
    if options.resume or options.extend:
        job = _go_on(options, make_sweep)
    elif options.promote is not None:
        job = _promote(options, options.promote, make_sweep)
    else:
        job = _begin(options, make_sweep)
    check_trials(job.trials)
    saved = (job.plan or {}).get("baselines", True)
    baselines = saved if options.baselines is None else options.baselines
    return dataclasses.replace(job, tracker=_tracker(options, job.plan or {}), baselines=baselines)


def _begin(options: Options, make_sweep: MakeSweep) -> Job:
    config = options.config or "backbones"
    directory = new_run(options, f"{config}-{options.dataset or 'tiny'}")
    request = resolve(options)
    sweep = make_sweep(config, request)
    remarks = []
    if options.epochs is None:
        remarks.append(f"epochs: {request.epochs} (--epochs N for another number)")
    if options.scale in (None, "auto") and request.scale == "nano":
        remarks.append("scale: nano, because this machine has no GPU (--scale base for the published sizes)")
    if "RAY_ADDRESS" in os.environ and request.cpus_per_trial is None:
        remarks.append("CPUs of a trial: by this machine's cores, not the cluster's (--cpus-per-trial N for your own)")
    if request.built_in:
        remarks.append("data: the built-in synthetic set (--data-dir DIR for your own SOUSA recordings)")
    if options.rates is not None and (without := [model for model in request.models if model not in request.rates]):
        remarks.append(
            f"--rates {options.rates} holds nothing for {', '.join(without)}, whose learning rates are untuned"
        )
    return Job(directory, request, config, sweep, tuple(sweep.trials()), _limits(options, {}), remarks=tuple(remarks))


def _go_on(options: Options, make_sweep: MakeSweep) -> Job:
    """--resume and --extend."""
    directory, remarks = existing_run(options)
    plan = directory.read_plan()
    saved, config = Request.from_json(plan["request"]), str(plan["config"])
    trials = [TrainConfig(**trial) for trial in plan["trials"]]
    refuse_changes(options, saved, config, trials)
    request = resolve(options, saved)
    added: list[TrainConfig] = []
    if options.extend:
        request, added = _extension(options, request, config, trials, make_sweep)
    trials = [
        dataclasses.replace(trial, cache_dir=request.cache_dir, weights=request.weights[trial.model])
        for trial in [*trials, *added]
    ]
    return Job(
        directory,
        request,
        config,
        make_sweep(config, request),
        tuple(trials),
        _limits(options, plan.get("limits", {})),
        plan=plan,
        added=tuple(trial.trial_id for trial in added),
        promoted_from=plan.get("promoted_from") or {},
        retry_failed=bool(options.retry_failed),
        remarks=tuple(remarks),
    )


def _extension(
    options: Options, request: Request, config: str, trials: Sequence[TrainConfig], make_sweep: MakeSweep
) -> tuple[Request, list[TrainConfig]]:
    """The request of the whole run after an extension, and the trials that it adds.

    A backbone that the run has keeps its settings; one that is new gets those of the sweep.
    """
    if not (options.models or options.augment or options.seeds):
        raise UserError("--extend names nothing to add; give --models, --augment or --seeds, or --resume to go on")
    models = known_models(options.models) if options.models else request.models
    asked = dataclasses.replace(
        request,
        models=models,
        augment=AUGMENT[options.augment] if options.augment else request.augment,
        seeds=tuple(options.seeds) if options.seeds else request.seeds,
        weights={model: request.weights[model] for model in models},
    )
    known, planned = {trial.model: trial for trial in reversed(trials)}, {trial.trial_id for trial in trials}
    added = []
    for point in make_sweep(config, asked).trials():
        if point.model in known:
            rate = known[point.model].learning_rate if point.score_test else point.learning_rate
            point = dataclasses.replace(known[point.model], augment=point.augment, seed=point.seed, learning_rate=rate)
        if point.trial_id not in planned:
            added.append(point)
    if not added:
        raise UserError(
            "--extend adds nothing: every trial that it names is planned already; give --models, --augment or --seeds "
            "that the run does not have, or --resume to go on with those it has"
        )
    whole = dataclasses.replace(
        request,
        models=union(request.models, models),
        augment=union(request.augment, asked.augment),
        seeds=union(request.seeds, asked.seeds),
    )
    return whole, added


def _promote(options: Options, name: str, make_sweep: MakeSweep) -> Job:
    promoted = [declared.name for declared in dataclasses.fields(Options) if declared.metadata["promoted"]]
    given = [flag(name) for name in promoted if getattr(options, name) is not None]
    if given:
        raise UserError(f"--promote takes {', '.join(given)} from the best trial; leave that out")
    path, storage = Path(name).expanduser().absolute(), storage_directory(options)
    source = next((run for run in map(RunDirectory, (path, storage / name)) if run.exists), None)
    if source is None:
        raise UserError(
            f"--promote {name}: {path} is not a run directory; there are in {storage}: {run_names(storage)}"
        )
    plan = source.read_plan()
    if plan["config"] == resolving.SEARCH:
        raise UserError(
            f"--promote {source.path}: it looked for learning rates, its trials are no results; train with what it "
            f"found: --rates {source.path / learning_rates.FILE}"
        )
    best, reasons = _best(source, plan)
    config = TrainConfig(**plan["trials"][plan["trial_ids"].index(best.trial_id)])
    request = dataclasses.replace(
        resolve(options, Request.from_json(plan["request"])),
        models=(config.model,),
        augment=(config.augment,),
        seeds=tuple(options.seeds or (config.seed,)),
        weights={config.model: config.weights},
        dataset=options.dataset or config.dataset,
        epochs=config.epochs if options.epochs is None else options.epochs,
    )
    trials = [
        dataclasses.replace(config, seed=seed, dataset=request.dataset, epochs=request.epochs) for seed in request.seeds
    ]
    link = {
        "run": str(source.path),
        "trial_id": best.trial_id,
        "val_macro_f1": best.best["val_macro_f1"],
        "val_acc": best.best["val_acc"],
        "epochs": len(best.history),
    }
    return Job(
        new_run(options, f"{source.path.name}-promoted"),
        request,
        str(plan["config"]),
        make_sweep(str(plan["config"]), request),
        tuple(trials),
        _limits(options, {}),
        promoted_from=link,
        remarks=tuple(reasons),
    )


def _best(source: RunDirectory, plan: Mapping[str, Any]) -> tuple[TrialRecord, list[str]]:
    """The best finished trial by validation, and why it is that; a UserError where none has finished."""
    finished, partial = [], 0
    for trial_id in plan["trial_ids"]:
        record = source.record(trial_id)
        if record is not None and record.status.is_full and record.best:
            finished.append(record)
        elif record is not None and record.history:
            partial += 1
    if not finished:
        raise UserError(
            f"--promote {source.path}: none of its {len(plan['trial_ids'])} trials has finished; "
            f"go on with it first: {source.resume_command}"
        )
    finished.sort(key=lambda record: record.best["val_macro_f1"] or 0.0, reverse=True)
    lines = [f"promotes {finished[0].trial_id} of {source.path}, the best of {len(finished)} finished by val_macro_f1:"]
    lines += [
        f"  {record.trial_id:<28} val_macro_f1 {record.best['val_macro_f1']:.3f}  val_acc {record.best['val_acc']:.3f}"
        for record in finished
    ]
    if partial:
        lines.append(f"  not looked at: {partial} with partial results")
    return finished[0], lines


def _tracker(options: Options, plan: Mapping[str, Any]) -> str:
    """As asked for, else as the run had it; a UserError where its package is not installed."""
    tracker = str(options.tracker or plan.get("tracker", "none"))
    if tracker == "wandb" and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "--tracker wandb needs the package wandb, which is not installed: pip install 'wandb>=0.31', "
            "or give --tracker none"
        )
    return tracker


def _limits(options: Options, saved: Mapping[str, float | None]) -> TimeLimits:
    """As asked for, else as the run had them, else the defaults. That of the sweep is a launch's."""

    def limit(name: str, option: str, default: str) -> float | None:
        given = getattr(options, option)
        if given is None and name in saved:
            return saved[name]
        return parse_duration(flag(option), default if given is None else given)

    return TimeLimits(
        trial=limit("trial", "trial_time_limit", TRIAL_TIME_LIMIT),
        stall=limit("stall", "stall_timeout", STALL_TIMEOUT),
        sweep=limit("sweep", "time_limit", "none"),
    )
