"""The plan of a sweep: its description on the terminal (`--plan`), its checks, and the content of run.json."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import FEW_PLAYERS, RATES, ArmKey, TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.data.prepare import fill_caches, overlap, read_further, read_subset
from sousaphone.data.splits import HELD_OUT, SPLITS
from sousaphone.data.synthetic.generate import builtin_clips
from sousaphone.errors import UserError
from sousaphone.hardware import cluster_address, device_name, memory_bytes
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.planning.forecast import Room, describe, predict, refusals
from sousaphone.planning.job import Job
from sousaphone.planning.resolve_options import data_directory, data_is_missing, not_downloaded
from sousaphone.planning.resources import Resources
from sousaphone.planning.search_plan import describe_search, upcoming, with_rungs, within_time
from sousaphone.planning.sweep_options import Options
from sousaphone.planning.throughput import Budget, Speed, time_arms, workload
from sousaphone.rudiments import SLUGS
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import SCHEMA, banner
from sousaphone.runs.provenance import provenance
from sousaphone.runs.trial_record import now
from sousaphone.space import searched
from sousaphone.text import Announce, counted
from sousaphone.weights import RANDOM, content_fingerprint

_MB = 2**20


def prepare(
    job: Job, options: Options, resources: Resources, at_once: int, announce: Announce
) -> tuple[Job, Dataset] | None:
    """Describe the sweep and prepare its data, before the run directory is touched.

    Return the job with its data directory, and the data; None with --plan. Raise a UserError if weights or data are
    wrong, or if a trial or the sweep would exceed its limits.
    """
    left = job.left()
    trainable: dict[TrainConfig, int] = {}
    for line in describe_trials(job, left, resources, at_once, trainable):
        announce(line)
    also = job.request.test_also
    further = [read_further(Path(also))] if also and not (options.plan and not_downloaded(also)) else []
    dataset: Dataset | None = None
    if not (options.plan and data_is_missing(job.request)):  # a plan generates and downloads no data
        job = job.at(data_directory(job.request))
        left = job.left()
        dataset = read_subset(Path(job.trials[0].data_dir), job.request.dataset, job.request.hold_out)
        refuse_other_content(job, left, dataset)
    for line in describe_places(job, dataset):
        announce(line)
    if dataset is not None:
        clips = dataset.clips["split"].value_counts().to_dict()
    else:  # the usual fractions
        size = builtin_clips(job.request.dataset)
        clips = {"train": size * 8 // 10, "validation": size // 10, "test": size // 10}
    if job.sweep.search is not None:
        job = with_rungs(job, clips["train"])
    records = job.records() if job.plan is not None else None
    used = _upcoming(job)
    speeds: Mapping[TrainConfig, Speed | None] = {}
    if options.timing is not False:
        # Before a real start, timing must be cheap compared with the sweep, unless it is asked for.
        thorough = (
            options.plan or options.timing or (job.sweep.search is not None and job.sweep.search.seconds is not None)
        )
        budget = Budget(fraction=None if thorough else Budget.fraction, base_on_cpu=bool(options.timing))
        speeds = time_arms(used, clips, Path(job.request.cache_dir), budget, announce, records or {})
    expect = partial(predict, clips=clips, speeds=speeds, trainable=trainable, at_once=at_once, records=records)
    if job.sweep.search is not None:
        job = within_time(job, expect)
        used = _upcoming(job)
    forecast = expect(used)
    if job.is_searching:
        for line in describe_search(job, forecast):
            announce(line)
    for line in describe(forecast, by_trial=not job.is_searching):
        announce(line)
    limits = (None, None) if options.yes else (job.limits.trial_seconds, job.time_limit)
    if why := refusals(forecast, *limits, _room(job, forecast.at_once, resources)):
        raise UserError("this sweep would exceed its limits; not started:", *(f"  {line}" for line in why))
    if options.plan or dataset is None:
        return None
    for needed in (dataset, *further):
        fill_caches(needed, used, Path(job.request.cache_dir))
    for other in further:
        if warning := overlap(dataset, other, used, Path(job.request.cache_dir)):
            announce(f"warning: {warning}")
            dataset = dataclasses.replace(dataset, notes=(*dataset.notes, warning))
    return job, dataset


def _upcoming(job: Job) -> list[TrainConfig]:
    """Return the trials to train, with stand-ins for those that are yet to be proposed."""
    return [*job.left(), *job.expected()] if job.sweep.search is None else upcoming(job)


def describe_data(dataset: Dataset, synthetic: bool) -> dict[str, Any]:
    """Return root, fingerprint and sizes of a data set, as in run.json."""
    by_split = dataset.clips.groupby("split")
    return {
        "root": str(dataset.root),
        "fingerprint": dataset.fingerprint,
        "clips": by_split.size().to_dict(),
        "players": by_split["player"].nunique().to_dict(),
        "synthetic": synthetic,
        "players_known": dataset.players_known,
    }


def plan_json(job: Job, resources: Resources, at_once: int, dataset: Dataset) -> dict[str, Any]:
    """Return the content of run.json; of an existing run, with the new limits, resources and extensions."""
    plan = job.plan or {
        "schema": SCHEMA,
        "created": now(),
        "name": job.directory.path.name,
        "command": job.command,
        "config": job.config,
        "notes": [*dataset.notes, *job.sweep.notes],
        "tuning": job.sweep.tuning,
        "data": describe_data(dataset, job.request.built_in),
        "provenance": {**provenance(), "device": _device_here(job.request.device)},
        **({"promoted_from": dict(job.promoted_from)} if job.promoted_from else {}),
    }
    extensions = list(plan.get("extensions", []))
    if job.added:
        extensions.append({"created": now(), "command": job.command, "added": list(job.added)})
    return {
        **plan,
        "data": {**plan["data"], "root": str(dataset.root)},  # it may have been moved
        "request": dataclasses.asdict(job.request),
        "trials": [dataclasses.asdict(trial) for trial in job.trials],
        "trial_ids": job.trial_ids,
        **({"config_file": job.config_file} if job.config_file else {}),
        "resources": dataclasses.asdict(resources),
        "searched": job.searched,
        "at_once": at_once,
        **({"planned": job.planned} if job.sweep.searcher is not None else {}),
        **({"search": dataclasses.asdict(job.sweep.search)} if job.sweep.search is not None else {}),
        "limits": {"trial": job.limits.trial_seconds, "stall": job.limits.stall_seconds},
        "tracker": job.tracker,
        "baselines": job.baselines,
        "weights": {**weights_of(job.trials), **plan.get("weights", {})},
        "extensions": extensions,
    }


def _device_here(device: str) -> str | None:
    """Return the device's name; None if only other machines of a cluster have it (each record has its own)."""
    try:
        return device_name(device)
    except (RuntimeError, AssertionError):  # torch without CUDA raises either
        return None


def weights_of(trials: Sequence[TrainConfig]) -> dict[str, str]:
    """Return the fingerprint of the content of each backbone's pretrained weights."""
    return {trial.model: content_fingerprint(trial.weights) for trial in trials}


def refuse_other_content(job: Job, left: Sequence[TrainConfig], dataset: Dataset) -> None:
    """Raise a UserError if data or weights of a resumed run differ by content; their paths may change."""
    if job.plan is None:
        return
    old, new = job.plan["data"]["fingerprint"], dataset.fingerprint
    changed = [] if new == old else [f"the data in {dataset.root} (fingerprint {new[:12]}, was {old[:12]})"]
    known = job.plan.get("weights", {})
    old_paths = {trial.model: trial.weights for trial in (TrainConfig(**each) for each in job.plan["trials"])}
    moved = [trial for trial in job.trials if trial.weights != old_paths.get(trial.model)]
    for model, content in weights_of([*left, *moved]).items():
        if model in known and content != known[model]:
            changed.append(f"the weights of {model} (fingerprint {content[:12]}, was {known[model][:12]})")
    if changed:
        raise UserError(
            f"the content of data or weights has changed: {'; '.join(changed)}; restore it, give its new path with "
            "--data-dir or --weights, or start a new run"
        )


def describe_trials(
    job: Job, left: Sequence[TrainConfig], resources: Resources, at_once: int, trainable: dict[TrainConfig, int]
) -> Iterator[str]:
    """Yield a description of the trials, line by line; raise a UserError if a weights file has a wrong format.

    The model of every arm is built, and its number of trainable parameters added to `trainable` by `workload(trial)`.
    """
    first = job.trials[0]
    planned = f"{counted(len(job.trials), 'trial')} of {counted(first.epochs, 'epoch')}"
    if job.plan is not None:
        planned += f", {len(left)} of them left"
    if job.proposals_left:
        planned += f", and {counted(job.proposals_left, 'trial')} that a searcher proposes"
    yield f"{planned}, {at_once} at a time, on {job.request.device}"
    gpus = f", {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else ""
    yield f"  per trial: {resources.cpus_per_trial:g} CPU{gpus}; {first.precision}; clips of {first.clip_seconds:g} s"
    if warning := banner((trial.model, trial.scale, trial.weights) for trial in job.trials):
        yield warning
    records = job.records()
    built: dict[tuple[Any, ...], int] = {}
    for trial in left:
        record = records.get(trial.trial_id)
        done = f", resumes after epoch {len(record.history)}" if record and record.history else ""
        found = job.request.tuned.get(trial.model, {})
        names = {*searched(job.sweep.param_space, trial.model), *found} - {"learning_rate", *ArmKey._fields}
        own = "".join(f", {name}={getattr(trial, name)}" for name in sorted(names))
        yield f"  {trial.trial_id:<28} learning rate {trial.learning_rate:g}{own}, weights {trial.weights}{done}"
        if (alike := (trial.model, trial.strategy, trial.lora_targets, trial.lora_r)) not in built:
            model = build_model(trial, len(SLUGS))
            built[alike] = model.counts().trainable
            yield from describe_model(model, trial.weights)
        trainable[workload(trial)] = built[alike]


def _room(job: Job, at_once: int, resources: Resources) -> Room:
    existing = next(path for path in job.directory.path.parents if path.exists())
    disk = shutil.disk_usage(existing).free / _MB
    if job.request.device == "cpu":
        # The memory of a cluster's nodes is not known here.
        return Room(math.inf if cluster_address() else memory_bytes() / _MB, at_once, disk)
    if job.request.device == "cuda" and torch.cuda.is_available():
        fraction = resources.gpus_per_trial
        sharing = min(at_once, max(1, int(1 / fraction))) if fraction else at_once
        return Room(torch.cuda.get_device_properties(0).total_memory / _MB, sharing, disk)
    return Room(math.inf, 1, disk)


def describe_places(job: Job, dataset: Dataset | None) -> Iterator[str]:
    """Yield what will be read and written; `dataset` is None if the data does not exist yet."""
    request, search = job.request, job.config == RATES
    if dataset is None and not request.built_in:
        yield f"reads: {request.data_dir}, downloaded once into the hub's cache (clip counts: those of --dataset)"
    elif dataset is None:
        yield f"reads: the built-in synthetic set ({request.dataset}), generated once in {request.cache_dir}"
    else:
        sizes = describe_data(dataset, request.built_in)
        counts = ", ".join(
            f"{counted(sizes['clips'][s], s + ' clip')} of {counted(sizes['players'][s], 'player')}"
            for s in (*SPLITS, HELD_OUT)
            if s in sizes["clips"]
        )
        yield f"reads: {dataset.root} ({counts})"
        yield from (f"  note: {note}" for note in dataset.notes)
        players = sizes["players"].get("test", 0)
        if not search and players < FEW_PLAYERS:
            yield f"  note: only {counted(players, 'test player')}; the report names a winner from {FEW_PLAYERS} on"
    if request.test_also:
        yield f"also tests on: {request.test_also}"
    result = learning_rates.FILE if search else "report"
    yield f"writes: {job.directory.path} (records, checkpoints, {result}) and {request.cache_dir} (waveforms, once)"


def describe_model(model: RudimentClassifier, source: str) -> Iterator[str]:
    """Yield parameters, LoRA targets and pretrained weights of an arm, and unusual input features."""
    counts, targets = model.counts(), model.targets
    yield (
        f"    {REGISTRY[model.backbone.spec.name].title}: {counts.total:,} parameters, {counts.trainable:,} trainable "
        f"({counts.trainable_percent:.2f} %), {counts.adapter:,} of them in adapters"
    )
    if targets.matches:
        matches = ", ".join(f"{pattern} × {number}" for pattern, number in targets.matches.items())
        yield f"      {model.strategy.title} on {matches}"
    if targets.trained_in_full:
        yield f"      trained in full: {', '.join(targets.trained_in_full)}"
    if targets.trained_in_full and not targets.modules:
        yield "      no adapters: all of its targets are new layers, so this arm equals --strategy head"
    record, contract = model.weights_record(source), model.backbone.frontend.contract
    if source != RANDOM:
        origin, sha256 = record["origin"], record["sha256"][:12]
        yield f"      weights: {origin}, SHA-256 {sha256}; trained on: {record['pretraining']}"
        if contract != model.backbone.spec.frontend:
            yield f"      features: {contract.in_words()}"
    if record["frontend_mismatch"]:
        yield f"      pretrained on other features (as configured): {', '.join(record['frontend_mismatch'])}"
