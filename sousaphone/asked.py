"""The words of a command line, checked and resolved one by one. Nothing on disk changes here."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone import choices as resolving
from sousaphone import found_rates
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.choices import DEFAULT_EPOCHS, SEARCH, SEARCH_EPOCHS, TINY_EPOCHS, Choices
from sousaphone.config import TrainConfig, parse_setting
from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus, count_gpus, pick_device
from sousaphone.run import RunDirectory

AUGMENT = {"both": (True, False), "on": (True,), "off": (False,)}
RESOURCES = {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent": 1}  # options and their lowest values


def storage_directory(arguments: argparse.Namespace) -> Path:
    """Where runs live, absolute."""
    return Path(arguments.storage or "results").expanduser().resolve()


def _checked_name(arguments: argparse.Namespace) -> str | None:
    name: str | None = arguments.name
    if name is not None and (not name or Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name!r} is not the name of a directory; give a plain name such as lora-small")
    return name


def existing_run(arguments: argparse.Namespace) -> tuple[RunDirectory, list[str]]:
    storage, name, remarks = storage_directory(arguments), _checked_name(arguments), []
    option = "--resume" if arguments.resume else "--extend"
    if name is None:
        runs = sorted(storage.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise UserError(f"{option}: there is no run in {storage}; give --name and --storage")
        name = runs[-1].parent.name
        remarks.append(f"goes on with the newest run, {name}")
    directory = RunDirectory(storage / name)
    if not directory.exists:
        raise UserError(f"{option}: {directory.path} is no run; there are: {run_names(storage)}")
    return directory, remarks


def new_run(arguments: argparse.Namespace, made_up: str) -> RunDirectory:
    """A directory for a new run, checked before anything is touched."""
    storage = storage_directory(arguments)
    name = _checked_name(arguments) or f"{made_up}-{datetime.now():%Y%m%d-%H%M%S}"
    standing = next(path for path in (storage, *storage.parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise UserError(f"--storage {arguments.storage}: {standing} is no directory to write in; give another one")
    directory = RunDirectory(storage / name)
    if directory.path.exists() and not (directory.path.is_dir() and directory.is_empty):
        way_on = "add --resume to go on with it, or give another name" if directory.exists else "give another name"
        raise UserError(f"--name {name}: {directory.path} is in use; {way_on}")
    return directory


def run_names(storage: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in storage.glob("*/run.json"))) or "none"


def known_models(words: Sequence[str]) -> tuple[str, ...]:
    for model in words:
        if model not in REGISTRY:
            raise UserError(f"--models {model!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return tuple(words)


def resolve(arguments: argparse.Namespace) -> Choices:
    models = known_models(arguments.models or DEFAULT_SWEEP)
    dataset = arguments.dataset or "tiny"
    settings = dict(parse_setting(text) for text in arguments.set or ())
    data_dir = resolving.pick_data_dir(arguments.data_dir)
    device = pick_device(arguments.device or "auto")
    scale = resolving.pick_scale(arguments.scale or "auto", device)
    strategy, targets = arguments.strategy or "lora", arguments.lora_targets or "all-linear"
    weights = resolving.resolve_weights(arguments.weights or ["auto"], models, scale)
    rates, rates_told = (
        ({}, "") if arguments.rates is None else found_rates.read(arguments.rates, scale, strategy, targets, weights)
    )
    return Choices(
        models=models,
        augment=AUGMENT[arguments.augment or ("off" if arguments.config == SEARCH else "both")],
        seeds=tuple(arguments.seeds or (0,)),
        dataset=dataset,
        strategy=strategy,
        lora_targets=targets,
        epochs=_epochs(arguments, dataset),
        scale=scale,
        weights=weights,
        device=device,
        data_dir=data_dir,
        cache_dir=str(resolving.cache_directory()),
        cpus=count_cpus(),
        gpus=count_gpus(device),
        **{option: getattr(arguments, option) for option in RESOURCES},
        settings=settings,
        hold_out=_hold_out(arguments) or "",
        test_also=_test_also(arguments) or "",
        rates=rates,
        rates_told=rates_told,
    )


def _epochs(arguments: argparse.Namespace, dataset: str) -> int:
    if arguments.epochs is not None:
        return int(arguments.epochs)
    if arguments.config == SEARCH:
        return SEARCH_EPOCHS
    return TINY_EPOCHS if dataset == "tiny" else DEFAULT_EPOCHS


def _hold_out(arguments: argparse.Namespace) -> str | None:
    if arguments.hold_out is None:
        return None
    from sousaphone.data.splits import parse_hold_out  # brings pandas, which most command lines can do without

    return "=".join(parse_hold_out(arguments.hold_out))


def _test_also(arguments: argparse.Namespace) -> str | None:
    return None if arguments.test_also is None else resolving.check_source("--test-also", arguments.test_also)


def on_this_machine(arguments: argparse.Namespace, saved: Choices) -> Choices:
    """A saved run's choices on this machine: where things lie and how many trials run at a time may have changed,
    what a trial computes has not.

    Raises:
        UserError: there is no such device here.
    """
    try:
        device = pick_device(saved.device)
    except UserError:
        raise UserError(
            f"the run was begun on {saved.device}, and torch finds none on this machine; go on with it where there is "
            "one, or begin a new run"
        ) from None
    models = union(saved.models, known_models(arguments.models or ()))
    weights = resolving.resolve_weights(arguments.weights or (), models, saved.scale, saved.weights)
    changes: dict[str, Any] = {key: getattr(arguments, key) for key in RESOURCES if getattr(arguments, key) is not None}
    if arguments.data_dir is not None:
        changes["data_dir"] = resolving.pick_data_dir(arguments.data_dir)
    return dataclasses.replace(
        saved,
        cpus=count_cpus(),
        gpus=count_gpus(device),
        cache_dir=str(resolving.cache_directory()),
        weights=weights,
        **changes,
    )


def refuse_changes(arguments: argparse.Namespace, saved: Choices, config: str, trials: Sequence[TrainConfig]) -> None:
    """A run goes on as it was begun; what is asked for again must be the same. Where data and weights lie may change:
    their content is compared elsewhere.

    Raises:
        UserError: it is not; the message lists what differs.
    """
    asked: dict[str, tuple[Any, Any]] = {
        "--config": (arguments.config, config),
        "--strategy": (arguments.strategy, saved.strategy),
        "--lora-targets": (arguments.lora_targets, saved.lora_targets),
        "--epochs": (arguments.epochs, saved.epochs),
        "--dataset": (arguments.dataset, saved.dataset),
        "--scale": (None if arguments.scale == "auto" else arguments.scale, saved.scale),
        "--hold-out": (_hold_out(arguments), saved.hold_out or "none"),
        "--test-also": (_test_also(arguments), saved.test_also or "none"),
        "--device": (None if arguments.device == "auto" else arguments.device, saved.device),
    }
    if not arguments.extend:
        asked |= {
            "--models": (_set_of(arguments.models, saved.models), _words(saved.models)),
            "--augment": (
                arguments.augment,
                next(k for k, flags in AUGMENT.items() if set(flags) == set(saved.augment)),
            ),
            "--seeds": (_set_of(arguments.seeds, saved.seeds), _words(saved.seeds)),
            "--weights": _bare_weights(arguments.weights or (), saved.weights),
        }
    for key, value in (parse_setting(text) for text in arguments.set or ()):
        values = {getattr(trial, key) for trial in trials}
        asked[f"--set {key}"] = (value, value if values == {value} else ", ".join(sorted(map(str, values))))
    changed = [f"{name} {new} (was {old})" for name, (new, old) in asked.items() if new is not None and new != old]
    if changed:
        option = "--extend" if arguments.extend else "--resume"
        raise UserError(
            f"{option} goes on with the same settings; changed: {'; '.join(changed)}; "
            "leave it out, or begin a new run under another --name"
        )


def _bare_weights(words: Sequence[str], saved: Mapping[str, str]) -> tuple[str | None, str]:
    """The bare word as asked for, and as saved for the models that no other word names."""
    others = {weights for model, weights in saved.items() if model not in resolving.named(words)}
    return "random" if "random" in words else None, "random" if others <= {"random"} else "pretrained"


def _words(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join(map(str, values))


def _set_of(asked: Sequence[Any] | None, saved: Sequence[Any]) -> str | None:
    """The asked words; in the saved order where they are the same ones."""
    return _words(saved if asked is not None and set(asked) == set(saved) else asked)


def union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*first, *second]))
