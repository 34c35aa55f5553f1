"""What a sweep would do, before it does it: run.json's content, and the words of `--plan`."""

from __future__ import annotations

import dataclasses
import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import FEW_PLAYERS, SEARCH, TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.data.prepare import fill_caches, overlap, read_further, read_subset
from sousaphone.data.synthetic.generate import builtin_clips
from sousaphone.errors import UserError
from sousaphone.hardware import device_name, memory_bytes
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.planning.forecast import Room, describe, predict, refusals
from sousaphone.planning.job import Job
from sousaphone.planning.resolve_options import data_directory, data_is_missing, not_downloaded
from sousaphone.planning.resources import Resources
from sousaphone.planning.sweep_options import Options
from sousaphone.planning.throughput import Budget, Speed, time_arms, workload
from sousaphone.rudiments import SLUGS
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import SCHEMA, banner
from sousaphone.runs.provenance import provenance
from sousaphone.runs.trial_record import now
from sousaphone.text import Announce, counted
from sousaphone.weights import RANDOM, content_fingerprint

_MB = 2**20


def prepare(
    job: Job, options: Options, resources: Resources, at_once: int, announce: Announce
) -> tuple[Job, Dataset] | None:
    """Say what will be done and get ready what it needs, before the run directory is touched: all that can be wrong
    with weights, data and time shows here.

    Returns:
        The job with its data in place, and the data; None where --plan is given.

    Raises:
        UserError: what is wrong, or that a trial or the sweep would exceed its limits.
    """
    left = job.left()
    trainable: dict[TrainConfig, int] = {}
    for line in describe_trials(job, left, resources, at_once, trainable):
        announce(line)
    also = job.request.test_also
    further = [read_further(Path(also))] if also and not (options.plan and not_downloaded(also)) else []
    dataset: Dataset | None = None
    if not (options.plan and data_is_missing(job.request)):  # a plan makes and downloads nothing
        job = job.at(data_directory(job.request))
        left = job.left()
        dataset = read_subset(Path(job.trials[0].data_dir), job.request.dataset, job.request.hold_out)
        refuse_other_content(job, left, dataset)
    for line in describe_places(job, dataset):
        announce(line)
    if dataset is not None:
        clips = dataset.clips["split"].value_counts().to_dict()
    else:  # the usual shares
        size = builtin_clips(job.request.dataset)
        clips = {"train": size * 8 // 10, "validation": size // 10, "test": size // 10}
    records = job.records() if job.plan is not None else None
    speeds: Mapping[TrainConfig, Speed | None] = {}
    if options.timing is not False:
        # A plan is for its forecast; before a real start the timing must be cheap against the sweep.
        budget = Budget(share=None if options.plan else Budget.share, base_on_cpu=bool(options.timing))
        speeds = time_arms(left, clips, Path(job.request.cache_dir), budget, announce, records or {})
    forecast = predict(left, clips, speeds, trainable, at_once, records)
    for line in describe(forecast):
        announce(line)
    limits = (None, None) if options.yes else (job.limits.trial, job.limits.sweep)
    if why := refusals(forecast, *limits, _room(job, forecast.at_once, resources)):
        raise UserError("\n  ".join(["it would not come to its end, so it does not start:", *why]))
    if options.plan or dataset is None:
        return None
    for needed in (dataset, *further):
        fill_caches(needed, left, Path(job.request.cache_dir))
    for other in further:
        if warning := overlap(dataset, other, left, Path(job.request.cache_dir)):
            announce(f"warning: {warning}")
            dataset = dataclasses.replace(dataset, notes=(*dataset.notes, warning))
    return job, dataset


def describe_data(dataset: Dataset, synthetic: bool) -> dict[str, Any]:
    """Root, fingerprint and sizes of a data set, as run.json holds them."""
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
    """The content of run.json: of a new run, or of an old one brought up to date (limits, resources, extensions)."""
    begun = job.plan or {
        "schema": SCHEMA,
        "created": now(),
        "name": job.directory.path.name,
        "command": shlex.join(["python", *sys.argv]),
        "config": job.config,
        "notes": [*dataset.notes, *job.sweep.notes],
        "tuning": job.sweep.tuning,
        "data": describe_data(dataset, job.request.built_in),
        "provenance": {**provenance(), "device": _device_here(job.request.device)},
        **({"promoted_from": dict(job.promoted_from)} if job.promoted_from else {}),
    }
    extensions = list(begun.get("extensions", []))
    if job.added:
        extensions.append({"created": now(), "command": shlex.join(["python", *sys.argv]), "added": list(job.added)})
    return {
        **begun,
        "request": dataclasses.asdict(job.request),
        "trials": [dataclasses.asdict(trial) for trial in job.trials],
        "trial_ids": [trial.trial_id for trial in job.trials],
        "resources": dataclasses.asdict(resources),
        "at_once": at_once,
        "limits": {"trial": job.limits.trial, "stall": job.limits.stall},
        "tracker": job.tracker,
        "baselines": job.baselines,
        "weights": {**weights_of(job.trials), **begun.get("weights", {})},
        "extensions": extensions,
    }


def _device_here(device: str) -> str | None:
    """None for a device that only a cluster's other machines have; each trial's record has its own."""
    try:
        return device_name(device)
    except (RuntimeError, AssertionError):  # torch without CUDA has either
        return None


def weights_of(trials: Sequence[TrainConfig]) -> dict[str, str]:
    """The fingerprint of what each backbone starts from, by content."""
    return {trial.model: content_fingerprint(trial.weights) for trial in trials}


def refuse_other_content(job: Job, left: Sequence[TrainConfig], dataset: Dataset) -> None:
    """A run goes on with the data and the weights that it was begun with, wherever they lie now.

    Raises:
        UserError: they are others; the message lists what differs.
    """
    if job.plan is None:
        return
    was, here = job.plan["data"]["fingerprint"], dataset.fingerprint
    changed = [] if here == was else [f"the data in {dataset.root} (fingerprint {here[:12]}, was {was[:12]})"]
    known = job.plan["weights"]
    was_at = {trial["model"]: trial["weights"] for trial in job.plan["trials"]}
    moved = [trial for trial in job.trials if trial.weights != was_at.get(trial.model)]
    for model, content in weights_of([*left, *moved]).items():
        if model in known and content != known[model]:
            changed.append(f"the weights of {model} ({content[:12]}, were {known[model][:12]})")
    if changed:
        raise UserError(
            f"the run was begun with other content; changed: {'; '.join(changed)}; restore it, say where it lies with "
            "--data-dir or --weights, or begin a new run"
        )


def describe_trials(
    job: Job, left: Sequence[TrainConfig], resources: Resources, at_once: int, trainable: dict[TrainConfig, int]
) -> Iterator[str]:
    """What would be trained, in words, line by line. Every arm's model is built for it, for real: counts are counted,
    weights files are read, LoRA targets are matched.

    Args:
        trainable: filled with the number of parameters that train, by `throughput.workload(trial)`.

    Raises:
        UserError: a weights file is not of its backbone's format.
    """
    first = job.trials[0]
    planned = f"{counted(len(job.trials), 'trial')} of {counted(first.epochs, 'epoch')}"
    if job.plan is not None:
        planned += f", {len(left)} of them left"
    yield f"{planned}, {at_once} at a time, on {job.request.device}"
    gpus = f", {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else ""
    yield f"  each takes {resources.cpus_per_trial:g} CPU{gpus} and hears clips of {first.clip_seconds:g} s"
    if warning := banner((trial.model, trial.scale, trial.weights) for trial in job.trials):
        yield warning
    records = job.records()
    built: dict[tuple[str, ...], int] = {}
    for trial in left:
        record = records.get(trial.trial_id)
        done = f", goes on after epoch {len(record.history)}" if record and record.history else ""
        yield f"  {trial.trial_id:<28} learning rate {trial.learning_rate:g}, weights {trial.weights}{done}"
        if (alike := (trial.model, trial.strategy, trial.lora_targets)) not in built:
            model = build_model(trial, len(SLUGS))
            built[alike] = model.counts().trainable
            yield from describe_model(model)
            yield from describe_weights(model, trial.weights)
        trainable[workload(trial)] = built[alike]


def _room(job: Job, at_once: int, resources: Resources) -> Room:
    standing = next(path for path in job.directory.path.parents if path.exists())
    disk = shutil.disk_usage(standing).free / _MB
    if job.request.device == "cpu":
        return Room(memory_bytes() / _MB, at_once, disk)
    if job.request.device == "cuda" and torch.cuda.is_available():
        share = resources.gpus_per_trial
        sharing = min(at_once, max(1, int(1 / share))) if share else at_once
        return Room(torch.cuda.get_device_properties(0).total_memory / _MB, sharing, disk)
    return Room(math.inf, 1, disk)


def describe_places(job: Job, dataset: Dataset | None) -> Iterator[str]:
    """What would be read and written. `dataset` is None while the data is not there yet."""
    request = job.request
    if dataset is None and not request.built_in:
        yield f"reads: {request.data_dir}, downloaded once into the hub's cache (clip counts are those of the size)"
    elif dataset is None:
        yield f"reads: the built-in synthetic set ({request.dataset}), generated once under {request.cache_dir}"
    else:
        sizes = describe_data(dataset, request.built_in)
        counts = ", ".join(
            f"{counted(sizes['clips'][s], s + ' clip')} of {counted(sizes['players'][s], 'player')}"
            for s in sizes["clips"]
        )
        yield f"reads: {dataset.root} ({counts})"
        yield from (f"  note: {note}" for note in dataset.notes)
        search = job.config == SEARCH  # by validation alone
        if not search and (players := sizes["players"].get("test", 0)) < FEW_PLAYERS:
            yield (
                f"  note: only {counted(players, 'test player')}: the report will name no winner, which takes "
                f"{FEW_PLAYERS} at least"
            )
    if request.test_also:
        yield f"tests also on: {request.test_also}"
    result = learning_rates.FILE if job.config == SEARCH else "report"
    yield f"writes: {job.directory.path} (records, checkpoints, {result}) and {request.cache_dir} (waveforms, once)"


def describe_weights(model: RudimentClassifier, source: str) -> Iterator[str]:
    """Which weights one arm begins with, and in what it hears other features than they were trained on."""
    record = model.weights_record(source)
    if source != RANDOM:
        origin, sha256 = record["origin"], record["sha256"][:12]
        yield f"      weights: {origin}, SHA-256 {sha256}; trained on: {record['pretraining']}"
    contract = model.backbone.frontend.contract
    if source != RANDOM and contract != model.backbone.spec.frontend:
        yield f"      hears: {contract.in_words()}"
    if record["frontend_mismatch"]:
        yield f"      trained on other features, as asked for: {', '.join(record['frontend_mismatch'])}"


def describe_model(model: RudimentClassifier) -> Iterator[str]:
    """Parameters and LoRA matches of one arm."""
    counts = model.counts()
    title = REGISTRY[model.backbone.spec.name].title
    yield (
        f"    {title}: {counts.total:,} parameters, {counts.trainable:,} trainable "
        f"({counts.trainable_percent:.2f} %), {counts.adapter:,} of them in adapters"
    )
    if model.targets.matches:
        matched = ", ".join(f"{pattern} × {number}" for pattern, number in model.targets.matches.items())
        yield f"      LoRA on {matched}"
    if model.targets.trained_in_full:
        yield f"      trained in full: {', '.join(model.targets.trained_in_full)}"
    if model.strategy == "lora" and not model.targets.modules:
        yield "      no adapters: all of its targets are fresh layers, so this arm trains what --strategy head trains"
