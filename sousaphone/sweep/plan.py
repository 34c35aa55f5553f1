"""What a sweep would do, before it does it: run.json's content, and the words of `--plan`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import REGISTRY
from sousaphone.choices import Choices
from sousaphone.config import Sweep, TrainConfig
from sousaphone.data.prepare import prepare
from sousaphone.data.sousa import Dataset
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.record import now, provenance
from sousaphone.rudiments import SLUGS
from sousaphone.run import RunDirectory, banner
from sousaphone.sweep.experiment import Resources


def pick_resources(choices: Choices, sweep: Sweep) -> Resources:
    """The command line's resources, else the sweep's.

    Raises:
        UserError: more than this machine has, so that no trial could ever start.
    """
    cpus = sweep.cpus_per_trial if choices.cpus_per_trial is None else choices.cpus_per_trial
    gpus = sweep.gpus_per_trial if choices.gpus_per_trial is None else choices.gpus_per_trial
    limit = sweep.max_concurrent if choices.max_concurrent is None else choices.max_concurrent
    if cpus > choices.cpus:
        raise UserError(f"--cpus-per-trial {cpus:g} is more than this machine's {choices.cpus}; give that or less")
    if gpus > choices.gpus:
        raise UserError(f"--gpus-per-trial {gpus:g} is more than this machine's {choices.gpus}; give that or less")
    return Resources(cpus, gpus, limit)


def concurrency(choices: Choices, resources: Resources, trials: int) -> int:
    """How many trials run at once on this machine."""
    fits = [trials]
    if resources.cpus_per_trial:
        fits.append(int(choices.cpus / resources.cpus_per_trial))
    if resources.gpus_per_trial:
        fits.append(int(choices.gpus / resources.gpus_per_trial))
    if resources.max_concurrent is not None:
        fits.append(resources.max_concurrent)
    return min(fits)


def describe_data(dataset: Dataset, synthetic: bool) -> dict[str, Any]:
    """Root, fingerprint and sizes of a data set, as run.json holds them."""
    by_split = dataset.clips.groupby("split")
    return {
        "root": str(dataset.root),
        "fingerprint": dataset.fingerprint,
        "clips": by_split.size().to_dict(),
        "players": by_split["player"].nunique().to_dict(),
        "synthetic": synthetic,
    }


def plan_json(
    run: RunDirectory, config: str, choices: Choices, sweep: Sweep, resources: Resources, dataset: Dataset
) -> dict[str, Any]:
    """The content of run.json."""
    trials = sweep.trials()
    return {
        "schema": 1,
        "created": now(),
        "name": run.path.name,
        "command": shlex.join(["python", *sys.argv]),
        "config": config,
        "request": dataclasses.asdict(choices),
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "trial_ids": [trial.trial_id for trial in trials],
        "resources": dataclasses.asdict(resources),
        "notes": [*dataset.notes, *sweep.notes],
        "data": describe_data(dataset, choices.built_in),
        "provenance": provenance(),
    }


def describe_trials(choices: Choices, sweep: Sweep, resources: Resources) -> Iterator[str]:
    """What would be trained, in words, line by line. Every arm's model is built for it, for real: counts are counted,
    weights files are read, LoRA targets are matched.

    Raises:
        UserError: a weights file is not of its backbone's format.
    """
    trials = sweep.trials()
    at_once = concurrency(choices, resources, len(trials))
    first = trials[0]
    yield f"{len(trials)} trials of {first.epochs} epochs, {at_once} at a time, on {choices.device}"
    gpus = f", {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else ""
    yield f"  each takes {resources.cpus_per_trial:g} CPU{gpus} and hears clips of {first.clip_seconds:g} s"
    if warning := banner(trials):
        yield warning
    arms: set[tuple[str, ...]] = set()
    for trial in trials:
        yield f"  {trial.trial_id:<28} learning rate {trial.learning_rate:g}, weights {trial.weights}"
        if (arm := (trial.model, trial.strategy, trial.lora_targets)) not in arms:
            arms.add(arm)
            yield from describe_model(build_model(trial, len(SLUGS)))


def describe_places(run: RunDirectory, choices: Choices, sweep: Sweep, dataset: Dataset | None) -> Iterator[str]:
    """What would be read and written. `dataset` is None while the built-in set is not there yet."""
    if dataset is None:
        size = sweep.trials()[0].dataset
        yield f"reads: the built-in synthetic set ({size}), generated once under {choices.cache_dir}"
    else:
        sizes = describe_data(dataset, choices.built_in)
        counts = ", ".join(f"{sizes['clips'][s]} {s} clips of {sizes['players'][s]} players" for s in sizes["clips"])
        yield f"reads: {dataset.root} ({counts})"
        yield from (f"  note: {note}" for note in dataset.notes)
    yield f"writes: {run.path} (records, checkpoints, report) and {choices.cache_dir} (waveforms, once)"


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


def sample_rates(trials: list[TrainConfig]) -> set[int]:
    """The sample rates (Hz) at which the trials want the waveform."""
    return {REGISTRY[trial.model].sample_rate for trial in trials}


def prepare_waveforms(choices: Choices, sweep: Sweep) -> Dataset:
    """Fill the waveform cache for every rate that the sweep's trials want, and say what there is to say.

    Raises:
        UserError: whatever is wrong with the data.
    """
    rates = sample_rates(sweep.trials())
    dataset, _ = prepare(Path(choices.data_dir), choices.dataset, rates, Path(choices.cache_dir), progress=True)
    return dataset
