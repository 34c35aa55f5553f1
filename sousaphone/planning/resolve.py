"""The words of a command line, checked and resolved one by one: device, scale, data, weights. Nothing on disk changes,
but for the built-in data set, which is generated where it is first asked for."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import SEARCH, TrainConfig, parse_setting
from sousaphone.data.readers import hub
from sousaphone.data.readers.paths import local_path
from sousaphone.errors import UserError
from sousaphone.files import cache_directory
from sousaphone.hardware import count_cpus, count_gpus, pick_device
from sousaphone.planning.options import DEFAULT_EPOCHS, SEARCH_EPOCHS, TINY_EPOCHS, Choices
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory

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
    data_dir = pick_data_dir(arguments.data_dir)
    device = pick_device(arguments.device or "auto")
    scale = pick_scale(arguments.scale or "auto", device)
    strategy, targets = arguments.strategy or "lora", arguments.lora_targets or "all-linear"
    weights = resolve_weights(arguments.weights or ["auto"], models, scale)
    rates, rates_told = (
        ({}, "") if arguments.rates is None else learning_rates.read(arguments.rates, scale, strategy, targets, weights)
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
        cache_dir=str(cache_directory()),
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
    return None if arguments.test_also is None else check_source("--test-also", arguments.test_also)


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
    weights = resolve_weights(arguments.weights or (), models, saved.scale, saved.weights)
    changes: dict[str, Any] = {key: getattr(arguments, key) for key in RESOURCES if getattr(arguments, key) is not None}
    if arguments.data_dir is not None:
        changes["data_dir"] = pick_data_dir(arguments.data_dir)
    return dataclasses.replace(
        saved,
        cpus=count_cpus(),
        gpus=count_gpus(device),
        cache_dir=str(cache_directory()),
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
    others = {weights for model, weights in saved.items() if model not in named(words)}
    return "random" if "random" in words else None, "random" if others <= {"random"} else "pretrained"


def _words(values: Sequence[Any] | None) -> str | None:
    return None if values is None else " ".join(map(str, values))


def _set_of(asked: Sequence[Any] | None, saved: Sequence[Any]) -> str | None:
    """The asked words; in the saved order where they are the same ones."""
    return _words(saved if asked is not None and set(asked) == set(saved) else asked)


def union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def pick_scale(asked: str, device: str) -> str:
    """base where there is a GPU, nano on a machine with none."""
    if asked == "auto":
        return "base" if device in ("cuda", "mps") else "nano"
    return asked


def pick_data_dir(asked: str | None) -> str:
    """`--data-dir`, else SOUSA_DATASET_PATH, else the built-in set (empty).

    A data set of the hub stays the word that it is: it is looked up, and downloaded if need be, when it is read.

    Raises:
        UserError: neither a directory nor a CSV file nor a word for a data set of the hub.
    """
    origin, given = "--data-dir", asked
    if given is None:
        origin, given = "SOUSA_DATASET_PATH", os.environ.get("SOUSA_DATASET_PATH") or None
    return "" if given is None else check_source(origin, given)


def check_source(origin: str, given: str) -> str:
    """A data set that is asked for, as an absolute path or a word for one of the hub; its content is not looked at.

    Args:
        origin: the option that names it, for messages.

    Raises:
        UserError: it is none of what can be read.
    """
    if hub.is_word(given):
        return hub.check_word(given)
    path = local_path(given)
    if not path.exists():
        raise UserError(f"{origin} {given!r} does not exist; give a directory, a CSV file, or hub:OWNER/NAME")
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() == ".csv"):
        raise UserError(
            f"{origin} {given!r} is not a directory; give the directory of a SOUSA data set or of recordings, a CSV "
            "file of their labels, or hub:OWNER/NAME"
        )
    return str(path)


def parse_weights(words: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """`--weights` words as a choice for each model: one of auto and random for all, NAME=PATH for one.

    Raises:
        UserError: a word that is neither, or that names a backbone outside the sweep.
    """
    chosen = dict.fromkeys(models, "auto")
    for word in words:
        name, sign, path = word.partition("=")
        if not sign:
            if word not in ("auto", "random"):
                raise UserError(f"--weights {word!r} is unknown; give auto, random or NAME=PATH")
            chosen.update(dict.fromkeys(models, word))
    for word in words:
        name, sign, path = word.partition("=")
        if sign and name not in models:
            known = "is not in this sweep" if name in REGISTRY else "is unknown"
            raise UserError(f"--weights {word!r}: backbone {name!r} {known}; choose one of: {', '.join(models)}")
        if sign and not path:
            raise UserError(f"--weights {word!r} names no file; give {name}=PATH, or random")
        if sign:
            chosen[name] = path
    return chosen


def resolve_weights(
    words: Sequence[str], models: Sequence[str], scale: str, saved: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What each model starts from: 'random' or an absolute path.

    Args:
        saved: what a run that exists was begun with, by model: it stays but where NAME=PATH names the model.

    Raises:
        UserError: see `parse_weights` and `sousaphone.weights.resolve_all`.
    """
    from sousaphone import weights

    saved = saved or {}
    chosen = parse_weights(words, models)
    asked = {model: word for model, word in chosen.items() if model not in saved or model in named(words)}
    return {**saved, **weights.resolve_all(asked, scale)}


def named(words: Sequence[str]) -> set[str]:
    """The models that `--weights` words name, each with its own NAME=PATH."""
    return {word.partition("=")[0] for word in words if "=" in word}


def data_is_missing(choices: Choices) -> bool:
    """Whether the data has yet to be generated or downloaded."""
    from sousaphone.data.synthetic.generate import builtin_root

    if choices.built_in:
        return not builtin_root(Path(choices.cache_dir), choices.dataset).is_dir()
    return not_downloaded(choices.data_dir)


def not_downloaded(source: str) -> bool:
    """Whether this is a data set of the hub that is not whole in the hub's cache."""
    return hub.is_word(source) and hub.cached(source) is None


def with_data(choices: Choices) -> Choices:
    """The same with the built-in data set generated, if that is what is to be used.

    Raises:
        UserError: the cache directory cannot be written.
    """
    if not choices.built_in:
        return choices
    from sousaphone.data.synthetic.generate import builtin_dataset

    try:
        root = builtin_dataset(Path(choices.cache_dir), choices.dataset)
    except OSError as error:
        raise UserError(
            f"the built-in data set cannot be written to {choices.cache_dir} ({error.strerror}); "
            "set SOUSAPHONE_CACHE to a directory with free space"
        ) from error
    return dataclasses.replace(choices, data_dir=str(root))
