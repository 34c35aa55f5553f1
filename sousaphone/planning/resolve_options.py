"""Options as typed, checked and resolved: run directory, device, scale, data, weights. Nothing on disk changes, but for
the built-in data set, which is generated where it is first needed."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import DEFAULT_EPOCHS, SEARCH, TrainConfig, parse_setting
from sousaphone.data.readers import hub
from sousaphone.data.readers.paths import local_path
from sousaphone.errors import UserError
from sousaphone.files import cache_directory
from sousaphone.hardware import count_cpus, count_gpus, pick_device
from sousaphone.planning.sweep_options import AUGMENT, SEARCH_EPOCHS, TINY_EPOCHS, Later, Options, Request, flag
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory


def storage_directory(options: Options) -> Path:
    """Where runs are, absolute."""
    return Path(options.storage or "results").expanduser().resolve()


def _checked_name(options: Options) -> str | None:
    name = options.name
    if name is not None and (not name or Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name!r} is not the name of a directory; give a plain name such as lora-small")
    return name


def existing_run(options: Options) -> tuple[RunDirectory, list[str]]:
    """The run that --resume or --extend continues, and what is to be said of it."""
    storage, name, remarks = storage_directory(options), _checked_name(options), []
    given = "--resume" if options.resume else "--extend"
    if name is None:
        runs = sorted(storage.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise UserError(f"{given}: there is no run in {storage}; give --name and --storage")
        name = runs[-1].parent.name
        remarks.append(f"continues the newest run, {name}")
    directory = RunDirectory(storage / name)
    if not directory.exists:
        raise UserError(f"{given}: {directory.path} is not a run directory; there are: {run_names(storage)}")
    return directory, remarks


def new_run(options: Options, default: str) -> RunDirectory:
    """A directory for a new run, checked before anything is touched."""
    storage = storage_directory(options)
    name = _checked_name(options) or f"{default}-{datetime.now():%Y%m%d-%H%M%S}"
    standing = next(path for path in (storage, *storage.parents) if path.exists())
    if not standing.is_dir() or not os.access(standing, os.W_OK):
        raise UserError(f"--storage {storage}: {standing} is not a directory that can be written to; give another one")
    directory = RunDirectory(storage / name)
    if directory.path.exists() and not (directory.path.is_dir() and directory.is_empty):
        remedy = "add --resume to continue it, or give another name" if directory.exists else "give another name"
        raise UserError(f"--name {name}: {directory.path} is in use; {remedy}")
    return directory


def run_names(storage: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in storage.glob("*/run.json"))) or "none"


def known_models(words: Sequence[str]) -> tuple[str, ...]:
    for model in words:
        if model not in REGISTRY:
            raise UserError(f"--models {model!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return tuple(words)


def resolve(options: Options, saved: Request | None = None) -> Request:
    """Options over what the run was started with, over the defaults.

    Args:
        saved: of a run that exists. Where things are and how many trials run at a time may have changed since; what a
            trial computes has not (`refuse_changes`).

    Raises:
        UserError: a wrong value; no such device on this machine.
    """
    device = pick_device(options.device or "auto") if saved is None else _same_device(saved)
    models = known_models(options.models or (DEFAULT_SWEEP if saved is None else ()))
    scale = pick_scale(options.scale or "auto", device) if saved is None else saved.scale
    here: dict[str, Any] = {"device": device, "cpus": count_cpus(), "gpus": count_gpus(device)}
    here["cache_dir"] = str(cache_directory())
    for name in ("cpus_per_trial", "gpus_per_trial", "max_concurrent"):
        if (value := getattr(options, name)) is not None:
            here[name] = value
    if saved is None or options.data_dir is not None:
        here["data_dir"] = pick_data_dir(options.data_dir)
    if saved is not None:
        weights = resolve_weights(options.weights or (), union(saved.models, models), scale, saved.weights)
        return dataclasses.replace(saved, weights=weights, **here)
    settings = dict(parse_setting(text) for text in options.set or ())
    dataset, strategy = options.dataset or "tiny", options.strategy or "lora"
    targets = options.lora_targets or "all-linear"
    weights = resolve_weights(options.weights or ["auto"], models, scale)
    rates, rates_message = (
        ({}, "") if options.rates is None else learning_rates.read(options.rates, scale, strategy, targets, weights)
    )
    search = options.config == SEARCH
    epochs = SEARCH_EPOCHS if search else TINY_EPOCHS if dataset == "tiny" else DEFAULT_EPOCHS
    return Request(
        models=models,
        augment=AUGMENT[options.augment or ("off" if search else "both")],
        seeds=tuple(options.seeds or (0,)),
        dataset=dataset,
        strategy=strategy,
        lora_targets=targets,
        epochs=epochs if options.epochs is None else options.epochs,
        scale=scale,
        weights=weights,
        settings=settings,
        hold_out=_hold_out(options),
        test_also=_test_also(options),
        rates=rates,
        rates_message=rates_message,
        **here,
    )


def _same_device(saved: Request) -> str:
    try:
        return pick_device(saved.device)
    except UserError:
        raise UserError(
            f"the run was started on {saved.device}, and torch finds none on this machine; continue it where there is "
            "one, or start a new run"
        ) from None


def _hold_out(options: Options) -> str:
    if options.hold_out is None:
        return ""
    from sousaphone.data.splits import parse_hold_out  # brings pandas, which most command lines can do without

    return "=".join(parse_hold_out(options.hold_out))


def _test_also(options: Options) -> str:
    return "" if options.test_also is None else check_source("--test-also", options.test_also)


def check_lowest(options: Options) -> None:
    """Raise a UserError for a number below what its option allows, or for none at all."""
    for declared in dataclasses.fields(Options):
        low, value = declared.metadata["low"], getattr(options, declared.name)
        if low is not None and value is not None and not low <= value < math.inf:
            raise UserError(f"{flag(declared.name)} {value:g} is out of range; give {low} or more")


def refuse_changes(options: Options, saved: Request, config: str, trials: Sequence[TrainConfig]) -> None:
    """A run continues as it was started; what is given again must be the same. Where data and weights are may change:
    their content is compared elsewhere.

    Raises:
        UserError: it is not; the message lists what differs.
    """
    fixed = {Later.SAME} if options.extend else {Later.SAME, Later.GROWS}
    changed = []
    for declared in dataclasses.fields(Options):
        if declared.metadata["later"] in fixed and getattr(options, declared.name) is not None:
            changed += _changes(declared.name, options, saved, config, trials)
    if changed:
        raise UserError(
            f"{'--extend' if options.extend else '--resume'} keeps the settings of the run; changed: "
            f"{'; '.join(changed)}; leave it out, or start a new run under another --name"
        )


def _changes(name: str, options: Options, saved: Request, config: str, trials: Sequence[TrainConfig]) -> list[str]:
    """`--flag new (was old)` where what is given of one option differs from the run's."""
    given: Any = getattr(options, name)
    if name == "set":
        pairs = []
        for key, value in map(parse_setting, given):
            values = {getattr(trial, key) for trial in trials}
            pairs.append((f"--set {key}", value, value if values == {value} else _words(sorted(map(str, values)))))
    elif name == "weights":
        bare, old = _bare_weights(given, saved.weights)
        pairs = [("--weights", old if bare is None else bare, old)]
    elif name in ("scale", "device"):
        old = getattr(saved, name)
        pairs = [(flag(name), old if given == "auto" else given, old)]
    elif name == "augment":
        old = next(word for word, flags in AUGMENT.items() if set(flags) == set(saved.augment))
        pairs = [(flag(name), given, old)]
    elif name in ("models", "seeds"):
        old = getattr(saved, name)
        pairs = [(flag(name), _words(old if set(given) == set(old) else given), _words(old))]
    else:
        kept = {"config": config, "hold_out": saved.hold_out or "none", "test_also": saved.test_also or "none"}
        read = {"hold_out": _hold_out, "test_also": _test_also}
        new = read[name](options) if name in read else given
        pairs = [(flag(name), new, kept[name] if name in kept else getattr(saved, name))]
    return [f"{what} {new} (was {old})" for what, new, old in pairs if new != old]


def _bare_weights(words: Sequence[str], saved: Mapping[str, str]) -> tuple[str | None, str]:
    """The bare word as given, and as saved for the models that no other word names."""
    others = {weights for model, weights in saved.items() if model not in named(words)}
    return "random" if "random" in words else None, "random" if others <= {"random"} else "pretrained"


def _words(values: Sequence[Any]) -> str:
    return " ".join(map(str, values))


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
        if "=" not in word:
            if word not in ("auto", "random"):
                raise UserError(f"--weights {word!r} is unknown; give auto, random or NAME=PATH")
            chosen = dict.fromkeys(models, word)
    for name, sign, path in (word.partition("=") for word in words):
        if sign and name not in models:
            known = "is not in this sweep" if name in REGISTRY else "is unknown"
            choice = ", ".join(models)
            raise UserError(f"--weights {name + sign + path!r}: backbone {name!r} {known}; choose one of: {choice}")
        if sign and not path:
            raise UserError(f"--weights {name + sign!r} names no file; give {name}=PATH, or random")
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


def data_is_missing(request: Request) -> bool:
    """Whether the data has yet to be generated or downloaded."""
    from sousaphone.data.synthetic.generate import builtin_root

    if request.built_in:
        return not builtin_root(Path(request.cache_dir), request.dataset).is_dir()
    return not_downloaded(request.data_dir)


def not_downloaded(source: str) -> bool:
    """Whether this is a data set of the hub that is not whole in the hub's cache."""
    return hub.is_word(source) and hub.cached(source) is None


def data_directory(request: Request) -> str:
    """Where the data is, of the hub as its word; the built-in set is generated, if that is what is to be used.

    Raises:
        UserError: the cache directory cannot be written.
    """
    if not request.built_in:
        return request.data_dir
    from sousaphone.data.synthetic.generate import builtin_dataset

    try:
        return str(builtin_dataset(Path(request.cache_dir), request.dataset))
    except OSError as error:
        raise UserError(
            f"the built-in data set cannot be written to {request.cache_dir} ({error.strerror}); "
            "set SOUSAPHONE_CACHE to a directory with free space"
        ) from error
