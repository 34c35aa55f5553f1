"""What a command line asks for: to begin, resume, extend or promote a run. Each comes to one Job; nothing on disk
changes here."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousaphone import config as resolving
from sousaphone.config import Sweep, TrainConfig, check_trials
from sousaphone.errors import UserError
from sousaphone.planning.options import Choices
from sousaphone.planning.resolve import (
    AUGMENT,
    RESOURCES,
    existing_run,
    known_models,
    new_run,
    on_this_machine,
    refuse_changes,
    resolve,
    run_names,
    storage_directory,
    union,
)
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import FULL_ENDS, GOOD_ENDS, RETRIED
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import parse_duration

TRIAL_TIME_LIMIT, STALL_TIMEOUT = "2h", "10m"
TRACKERS = ("none", "wandb")
# What --promote takes from the best trial.
_PROMOTED: tuple[str, ...] = ("config", "models", "augment", "strategy", "lora_targets", "scale", "weights", "set")
_PROMOTED += ("hold_out", "test_also", "device")

MakeSweep = Callable[[str, Choices], Sweep]


@dataclass(frozen=True)
class TimeLimits:
    """How long a trial, with its earlier starts, and this launch may take, and when a trial counts as hung, in
    seconds; None for no limit."""

    trial: float | None
    sweep: float | None
    stall: float | None


@dataclass(frozen=True)
class Job:
    """One command line, resolved.

    Attributes:
        config: the sweep's name in tune_configs.
        trials: all that are planned, those that are done included.
        plan: run.json's content where the run exists, None where it is begun.
        added: ids of the trials that --extend adds.
        promoted_from: the run and trial that --promote takes up; empty otherwise.
        retry_failed: whether failed trials are tried again.
        baselines: whether they are measured before the trials.
        tracker: where metrics go beside TensorBoard; no result depends on it, so it may differ from launch to launch.
        remarks: what was decided on the user's behalf.
    """

    directory: RunDirectory
    choices: Choices
    config: str
    sweep: Sweep
    trials: tuple[TrainConfig, ...]
    limits: TimeLimits
    plan: dict[str, Any] | None = None
    added: tuple[str, ...] = ()
    promoted_from: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    baselines: bool = True
    tracker: str = "none"
    remarks: tuple[str, ...] = ()

    def at(self, data_dir: str) -> Job:
        """The same with its data in this directory and its cache where this machine keeps it."""
        cache_dir = self.choices.cache_dir
        space = {**self.sweep.param_space, "data_dir": data_dir, "cache_dir": cache_dir}
        return dataclasses.replace(
            self,
            trials=tuple(dataclasses.replace(trial, data_dir=data_dir, cache_dir=cache_dir) for trial in self.trials),
            sweep=dataclasses.replace(self.sweep, param_space=space),
        )

    def records(self) -> dict[str, TrialRecord]:
        """What the trials have left so far, by trial; a damaged record counts as none, and is written anew."""
        found = {}
        for trial in self.trials:
            try:
                record = self.directory.record(trial.trial_id)
            except ValueError:
                continue
            if record is not None:
                found[trial.trial_id] = record
        return found

    def left(self) -> list[TrainConfig]:
        """The trials that are to be run now."""
        records = self.records()
        return [trial for trial in self.trials if self._is_left(records.get(trial.trial_id))]

    def all_ended_well(self) -> bool:
        """Whether every planned trial ended as completed, early_stopped or time_limit, with a result."""
        records = self.records()
        ended = [records.get(trial.trial_id) for trial in self.trials]
        return all(record is not None and record.status in GOOD_ENDS and record.history for record in ended)

    def _is_left(self, record: TrialRecord | None) -> bool:
        if record is None or record.status in ("pending", "running", "interrupted"):
            return True
        if record.status == "time_limit":  # of the sweep, or the trial's own, which is longer now
            return self.limits.trial is None or record.seconds < self.limits.trial
        # A diverged trial would diverge again: its random draws are fixed.
        return self.retry_failed and record.status in RETRIED


def make_job(arguments: argparse.Namespace, make_sweep: MakeSweep) -> Job:
    """
    Args:
        arguments: of launch.py; what was not given is None.
        make_sweep: from a config's name and choices to its sweep.

    Raises:
        UserError: whatever is wrong with them.
    """
    promote = arguments.promote is not None
    ways = {"--resume": arguments.resume, "--extend": arguments.extend, "--promote": promote}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other; give one of them")
    if arguments.rates is not None and given:
        raise UserError(f"--rates belongs to a new run; leave it out with {given[0]}")
    if arguments.retry_failed and not arguments.resume:
        raise UserError("--retry-failed belongs to --resume; add it")
    for option, lowest in RESOURCES.items():
        value = getattr(arguments, option)
        if value is not None and not lowest <= value < math.inf:
            raise UserError(f"--{option.replace('_', '-')} {value:g} is out of range; give {lowest} or more")
    if arguments.resume or arguments.extend:
        job = _go_on(arguments, make_sweep)
    elif promote:
        job = _promote(arguments, make_sweep)
    else:
        job = _begin(arguments, make_sweep)
    check_trials(job.trials)
    saved = (job.plan or {}).get("baselines", True)
    baselines = saved if arguments.baselines is None else arguments.baselines
    return dataclasses.replace(job, tracker=_tracker(arguments, job.plan or {}), baselines=baselines)


def _begin(arguments: argparse.Namespace, make_sweep: MakeSweep) -> Job:
    config = arguments.config or "backbones"
    directory = new_run(arguments, f"{config}-{arguments.dataset or 'tiny'}")
    choices = resolve(arguments)
    sweep = make_sweep(config, choices)
    remarks = []
    if arguments.epochs is None:
        remarks.append(f"epochs: {choices.epochs} (--epochs N for another number)")
    if arguments.scale in (None, "auto") and choices.scale == "nano":
        remarks.append("scale: nano, because this machine has no GPU (--scale base for the published sizes)")
    if "RAY_ADDRESS" in os.environ and choices.cpus_per_trial is None:
        remarks.append("CPUs of a trial: by this machine's cores, not the cluster's (--cpus-per-trial N for your own)")
    if choices.built_in:
        remarks.append("data: the built-in synthetic set (--data-dir DIR for your own SOUSA recordings)")
    if arguments.rates is not None and (without := [model for model in choices.models if model not in choices.rates]):
        remarks.append(
            f"--rates {arguments.rates} holds nothing for {', '.join(without)}, whose learning rates are untuned"
        )
    return Job(directory, choices, config, sweep, tuple(sweep.trials()), _limits(arguments, {}), remarks=tuple(remarks))


def _go_on(arguments: argparse.Namespace, make_sweep: MakeSweep) -> Job:
    """--resume and --extend."""
    directory, remarks = existing_run(arguments)
    plan = directory.read_plan()
    saved, config = Choices.from_json(plan["request"]), str(plan["config"])
    trials = [TrainConfig(**trial) for trial in plan["trials"]]
    refuse_changes(arguments, saved, config, trials)
    choices = on_this_machine(arguments, saved)
    added: list[TrainConfig] = []
    if arguments.extend:
        choices, added = _extension(arguments, choices, config, trials, make_sweep)
    trials = [
        dataclasses.replace(trial, cache_dir=choices.cache_dir, weights=choices.weights[trial.model])
        for trial in [*trials, *added]
    ]
    return Job(
        directory,
        choices,
        config,
        make_sweep(config, choices),
        tuple(trials),
        _limits(arguments, plan.get("limits", {})),
        plan=plan,
        added=tuple(trial.trial_id for trial in added),
        promoted_from=plan.get("promoted_from") or {},
        retry_failed=bool(arguments.retry_failed),
        remarks=tuple(remarks),
    )


def _extension(
    arguments: argparse.Namespace,
    choices: Choices,
    config: str,
    trials: Sequence[TrainConfig],
    make_sweep: MakeSweep,
) -> tuple[Choices, list[TrainConfig]]:
    """The choices of the whole run after an extension, and the trials that it adds.

    A backbone that the run has keeps its settings; one that is new gets those of the sweep.
    """
    if not (arguments.models or arguments.augment or arguments.seeds):
        raise UserError("--extend names nothing to add; give --models, --augment or --seeds, or --resume to go on")
    models = known_models(arguments.models) if arguments.models else choices.models
    asked = dataclasses.replace(
        choices,
        models=models,
        augment=AUGMENT[arguments.augment] if arguments.augment else choices.augment,
        seeds=tuple(arguments.seeds) if arguments.seeds else choices.seeds,
        weights={model: choices.weights[model] for model in models},
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
        choices,
        models=union(choices.models, models),
        augment=union(choices.augment, asked.augment),
        seeds=union(choices.seeds, asked.seeds),
    )
    return whole, added


def _promote(arguments: argparse.Namespace, make_sweep: MakeSweep) -> Job:
    given = [f"--{name.replace('_', '-')}" for name in _PROMOTED if getattr(arguments, name) is not None]
    if given:
        raise UserError(f"--promote takes {', '.join(given)} from the best trial; leave that out")
    path = Path(arguments.promote).expanduser().absolute()
    source = RunDirectory(path)
    if not source.exists and (storage_directory(arguments) / arguments.promote / "run.json").is_file():
        source = RunDirectory(storage_directory(arguments) / arguments.promote)
    if not source.exists:
        raise UserError(
            f"--promote {arguments.promote}: {path} is no run; there are in {storage_directory(arguments)}: "
            f"{run_names(storage_directory(arguments))}"
        )
    plan = source.read_plan()
    if plan["config"] == resolving.SEARCH:
        raise UserError(
            f"--promote {source.path}: it looked for learning rates, its trials are no results; train with what it "
            f"found: --rates {source.path / learning_rates.FILE}"
        )
    best, reasons = _best(source, plan)
    config = TrainConfig(**plan["trials"][plan["trial_ids"].index(best.trial_id)])
    choices = dataclasses.replace(
        on_this_machine(arguments, Choices.from_json(plan["request"])),
        models=(config.model,),
        augment=(config.augment,),
        seeds=tuple(arguments.seeds or (config.seed,)),
        weights={config.model: config.weights},
        dataset=arguments.dataset or config.dataset,
        epochs=config.epochs if arguments.epochs is None else arguments.epochs,
    )
    trials = [
        dataclasses.replace(config, seed=seed, dataset=choices.dataset, epochs=choices.epochs) for seed in choices.seeds
    ]
    link = {
        "run": str(source.path),
        "trial_id": best.trial_id,
        "val_macro_f1": best.best["val_macro_f1"],
        "val_acc": best.best["val_acc"],
        "epochs": len(best.history),
    }
    return Job(
        new_run(arguments, f"{source.path.name}-promoted"),
        choices,
        str(plan["config"]),
        make_sweep(str(plan["config"]), choices),
        tuple(trials),
        _limits(arguments, {}),
        promoted_from=link,
        remarks=tuple(reasons),
    )


def _best(source: RunDirectory, plan: Mapping[str, Any]) -> tuple[TrialRecord, list[str]]:
    """The best finished trial by validation, and why it is that.

    Raises:
        UserError: none has finished.
    """
    finished, partial = [], 0
    for trial_id in plan["trial_ids"]:
        try:
            record = source.record(trial_id)
        except ValueError:
            continue
        if record is not None and record.status in FULL_ENDS and record.best:
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


def _tracker(arguments: argparse.Namespace, plan: Mapping[str, Any]) -> str:
    """As asked for, else as the run had it.

    Raises:
        UserError: its package is not installed.
    """
    tracker = str(arguments.tracker or plan.get("tracker", "none"))
    if tracker == "wandb" and importlib.util.find_spec("wandb") is None:
        raise UserError(
            "--tracker wandb needs the package wandb, which is not installed: pip install 'wandb>=0.31', "
            "or give --tracker none"
        )
    return tracker


def _limits(arguments: argparse.Namespace, saved: Mapping[str, float | None]) -> TimeLimits:
    """As asked for, else as the run had them, else the defaults. That of the sweep is a launch's."""
    asked = {"trial": arguments.trial_time_limit, "stall": arguments.stall_timeout}
    options = {"trial": ("--trial-time-limit", TRIAL_TIME_LIMIT), "stall": ("--stall-timeout", STALL_TIMEOUT)}
    found = {
        name: saved[name]
        if asked[name] is None and name in saved
        else parse_duration(option, default if asked[name] is None else asked[name])
        for name, (option, default) in options.items()
    }
    return TimeLimits(
        **found, sweep=parse_duration("--time-limit", "none" if arguments.time_limit is None else arguments.time_limit)
    )
