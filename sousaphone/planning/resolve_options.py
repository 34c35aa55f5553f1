"""Resolve and check the options: run directory, device, scale, data, weights.

Nothing is written to disk, except that the built-in data set is generated when it is first needed, and that missing
weights are downloaded, also with --plan.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import DEFAULT_EPOCHS, RATES, SEARCH, TrainConfig, parse_setting
from sousaphone.data.readers import hub
from sousaphone.data.readers.paths import LISTS, local_path
from sousaphone.errors import UserError
from sousaphone.files import cache_directory, expanded
from sousaphone.hardware import cluster_address, count_cpus, count_gpus, count_numa_nodes, pick_device, pick_precision
from sousaphone.planning.sweep_options import AUGMENT, TINY_EPOCHS, Later, Options, Request, flag
from sousaphone.runs import learning_rates
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.learning_rates import Found


def storage_directory(options: Options) -> Path:
    """Return the absolute directory of runs."""
    return expanded(options.storage or "results").resolve()


def _checked_name(options: Options) -> str | None:
    name = options.name
    if name is not None and (not name or Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name!r} is not the name of a directory; give a plain name such as lora-small")
    return name


def existing_run(options: Options) -> tuple[RunDirectory, list[str]]:
    """Return the run that --resume or --extend continues, and remarks for the terminal."""
    storage, name, remarks = storage_directory(options), _checked_name(options), []
    option = "--resume" if options.resume else "--extend"
    if name is None:
        runs = sorted(storage.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise UserError(f"{option}: there are no runs in {storage}; give --name and --storage")
        name = runs[-1].parent.name
        remarks.append(f"run: {name}, the newest (--name NAME for another one)")
    directory = RunDirectory(storage / name)
    if not directory.exists:
        raise UserError(f"{option}: {directory.path} is not a run directory; runs in {storage}: {run_names(storage)}")
    return directory, remarks


def new_run(options: Options, default: str) -> RunDirectory:
    """Return the directory of a new run, by default called `default` and the time."""
    storage = storage_directory(options)
    name = _checked_name(options) or f"{default}-{datetime.now():%Y%m%d-%H%M%S}"
    existing = next(path for path in (storage, *storage.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--storage {storage}: {existing} is not a writable directory; give another one")
    directory = RunDirectory(storage / name)
    if directory.path.exists() and not (directory.path.is_dir() and directory.is_empty):
        remedy = "add --resume, or give another name" if directory.exists else "give another name"
        raise UserError(f"--name {name}: {directory.path} is in use; {remedy}")
    return directory


def is_file(config: str) -> bool:
    """Whether `--config` gives a Python file, not the name of a module of tune_configs."""
    return config.endswith(".py")


def config_name(config: str) -> str:
    """Return the name of a sweep for run.json; raise a UserError if a file's name cannot be one."""
    name = Path(config).stem if is_file(config) else config
    if is_file(config) and not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name):
        raise UserError(f"--config {config}: the file's name is the name of the sweep; use letters, digits, _ and -")
    return name


def run_names(storage: Path) -> str:
    return ", ".join(sorted(path.parent.name for path in storage.glob("*/run.json"))) or "none"


def known_models(names: Sequence[str]) -> tuple[str, ...]:
    if unknown := [model for model in names if model not in REGISTRY]:
        raise UserError(f"--models {unknown[0]!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return tuple(names)


def resolve(options: Options, saved: Request | None = None) -> Request:
    """Return the given options, completed from the saved request of an existing run, else from the defaults.

    Only paths and resources may differ from the saved request; `refuse_changes` checks the other options. Raise a
    UserError if a value is wrong, or if this machine does not have the device.
    """
    device = _device(options.device or "auto") if saved is None else _same_device(saved)
    models = known_models(options.models or (DEFAULT_SWEEP if saved is None else ()))
    machine: dict[str, Any] = {"device": device, "cpus": count_cpus(), "gpus": count_gpus(device)}
    machine["numa_nodes"] = count_numa_nodes()
    machine["cache_dir"] = str(cache_directory())
    given = {name: getattr(options, name) for name in ("cpus_per_trial", "gpus_per_trial", "max_concurrent")}
    machine |= {name: value for name, value in given.items() if value is not None}
    if saved is None or options.data_dir is not None:
        machine["data_dir"] = pick_data_dir(options.data_dir)
    if saved is not None:
        weights = resolve_weights(options.weights or (), union(saved.models, models), saved.scale, saved.weights)
        return dataclasses.replace(saved, weights=weights, **machine)
    scale = pick_scale(options.scale or "auto", device)
    settings = _with_precision(dict(parse_setting(text) for text in options.set or ()), device, scale)
    dataset, strategy = options.dataset or "tiny", options.strategy or "lora"
    targets = options.lora_targets or "all-linear"
    weights = resolve_weights(options.weights or (), models, scale)
    found = _found(options, models)
    if found is not None:
        found.check(_tuned_by(options), scale, strategy, targets, weights)
    search = options.config in (RATES, SEARCH)
    epochs = TINY_EPOCHS if dataset == "tiny" else DEFAULT_EPOCHS
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
        budget=options.budget or "16",
        sampler=options.sampler or "tpe",
        tuned=found.settings if found else {},
        tuned_message=found.description if found else "",
        **machine,
    )


def _with_precision(settings: dict[str, Any], device: str, scale: str) -> dict[str, Any]:
    """Add the precision if this processor suggests another one than the device, so that a run that is resumed on
    another processor keeps it."""
    automatic = device == "cpu" and settings.get("precision", "auto") == "auto"
    if automatic and (precision := pick_precision(device, scale)) != "float32":
        return {**settings, "precision": precision}
    return settings


def _tuned_by(options: Options) -> str:
    return f"--rates {options.rates}" if options.rates is not None else f"--from {options.from_}"


def _found(options: Options, models: Sequence[str]) -> Found | None:
    """Return what the run of --from or the file of --rates has found for these backbones."""
    if options.rates is not None:
        return learning_rates.read(_tuned_by(options), options.rates, models)
    if options.from_ is None:
        return None
    run = find_run(options, options.from_)
    plan = run.read_foreign_plan() if run is not None else {}
    if run is not None and "search" in plan:
        from sousaphone.search.found import found_settings

        return found_settings(run, models)
    path = expanded(options.from_) if run is None else run.path
    if not path.is_file() and plan.get("config") != RATES:
        storage = storage_directory(options)
        raise UserError(
            f"{_tuned_by(options)}: {path} is not a run of --config {SEARCH} or --config {RATES}; "
            f"runs in {storage}: {run_names(storage)}"
        )
    return learning_rates.read(_tuned_by(options), str(path), models)


def find_run(options: Options, name: str) -> RunDirectory | None:
    """Return a run given by its path or its name."""
    places = expanded(name).absolute(), storage_directory(options) / name
    return next((run for run in map(RunDirectory, places) if run.exists), None)


def _device(requested: str) -> str:
    return pick_device(requested, cluster=cluster_address() is not None)


def _same_device(saved: Request) -> str:
    try:
        return _device(saved.device)
    except UserError:
        raise UserError(
            f"the run was started on {saved.device}, which this machine does not have; resume it on another machine, "
            "or start a new run"
        ) from None


def _hold_out(options: Options) -> str:
    if options.hold_out is None:
        return ""
    from sousaphone.data.splits import parse_hold_out  # imports pandas, which most command lines do not need

    return "=".join(parse_hold_out(options.hold_out))


def _test_also(options: Options) -> str:
    return "" if options.test_also is None else check_source("--test-also", options.test_also)


def check_lowest(options: Options) -> None:
    """Raise a UserError if a number is below the minimum of its option or is not finite."""
    for declared in dataclasses.fields(Options):
        low, value = declared.metadata["low"], getattr(options, declared.name)
        if low is not None and value is not None and not low <= value < math.inf:
            raise UserError(f"{flag(declared.name)} {value:g} is out of range; give {low} or more")


def refuse_changes(options: Options, saved: Request, config: str, trials: Sequence[TrainConfig]) -> None:
    """Raise a UserError if a given option differs from the run's; data and weights are compared elsewhere."""
    fixed = {Later.SAME} if options.extend else {Later.SAME, Later.GROWS}
    compared = set() if set(options.models or ()) - set(saved.models) else {"weights"}  # else of the new backbones
    changed = [
        f"{name} {new} (was {old})"
        for declared in dataclasses.fields(Options)
        if (declared.metadata["later"] in fixed or declared.name in compared)
        and getattr(options, declared.name) is not None
        for name, new, old in _compare(declared.name, options, saved, config, trials)
        if new != old
    ]
    if changed:
        raise UserError(
            f"{'--extend' if options.extend else '--resume'} keeps the settings of the run; changed: "
            f"{'; '.join(changed)}; leave it out, or start a new run under another --name"
        )


def _compare(
    name: str, options: Options, saved: Request, config: str, trials: Sequence[TrainConfig]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the flag, the given value and the run's value of an option; of `--set`, one for each setting."""
    new: Any = getattr(options, name)
    if name == "set":
        for key, value in map(parse_setting, new):
            values = {getattr(trial, key) for trial in trials}
            same = values == {value} or value == "auto"
            yield f"--set {key}", value, value if same else _words(sorted(map(str, values)))
        return
    old: Any = config if name == "config" else getattr(saved, name)
    if name == "weights":  # only the word for all backbones; NAME=PATH may change
        named = {word.partition("=")[0] for word in new if "=" in word}
        others = {weights for model, weights in old.items() if model not in named}
        old = "random" if others <= {"random"} else "pretrained"
        new = "random" if "random" in new else old
    elif name == "augment":
        old = next(word for word, flags in AUGMENT.items() if set(flags) == set(old))
    elif name in ("models", "seeds"):
        new, old = _words(old if set(new) == set(old) else new), _words(old)
    elif name in ("hold_out", "test_also"):
        new, old = (_hold_out if name == "hold_out" else _test_also)(options), old or "none"
    elif name == "config":
        new = config_name(new)
    elif new == "auto":  # of scale and device
        new = old
    yield flag(name), new, old


def _words(values: Sequence[Any]) -> str:
    return " ".join(map(str, values))


def union(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys([*first, *second]))


def pick_scale(scale: str, device: str) -> str:
    """Resolve `auto`: base on a GPU, nano on a CPU."""
    if scale == "auto":
        return "base" if device in ("cuda", "mps") else "nano"
    return scale


def pick_data_dir(given: str | None) -> str:
    """Return `--data-dir`, else SOUSA_DATASET_PATH, else "" for the built-in set; see `check_source`."""
    if given is not None:
        return check_source("--data-dir", given)
    path = os.environ.get("SOUSA_DATASET_PATH")
    return check_source("SOUSA_DATASET_PATH", path) if path else ""


def check_source(origin: str, given: str) -> str:
    """Return a data set's absolute path, or its hub name, which is resolved when the data is read.

    Raise a UserError that names `origin` if it is neither a directory nor a CSV or JSONL file nor a hub name. The
    content is not checked.
    """
    if hub.is_word(given):
        return hub.check_word(given)
    path = local_path(given)
    if not path.exists():
        raise UserError(f"{origin} {given!r} does not exist; give a directory, a CSV or JSONL file, or hub:OWNER/NAME")
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() in LISTS):
        raise UserError(
            f"{origin} {given!r} is not a directory; give the directory of a SOUSA data set or of recordings, a CSV or "
            "JSONL file of their labels, or hub:OWNER/NAME"
        )
    return str(path)


def resolve_weights(
    words: Sequence[str], models: Sequence[str], scale: str, saved: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the weights of each model: 'random' or an absolute path.

    A word of `--weights` is `auto` or `random` for all models (default auto), or NAME=PATH for one. The saved weights
    of an existing run are kept unless NAME=PATH names the model. Raise a UserError if a word is wrong, names a backbone
    that is not in the sweep, or its weights cannot be found.
    """
    from sousaphone import weights

    saved = saved or {}
    named = [word.partition("=")[0] if "=" in word else "" for word in words]
    if len(set(named)) < len(named):
        raise UserError(f"--weights {' '.join(words)} has two values for a backbone, or for all; give each once")
    chosen = dict.fromkeys((model for model in models if model not in saved), "auto")
    for word in sorted(words, key=lambda word: "=" in word):  # first those for all models
        name, sign, path = word.partition("=")
        if not sign:
            if word not in ("auto", "random"):
                raise UserError(f"--weights {word!r} is unknown; give auto, random or NAME=PATH")
            chosen = dict.fromkeys(chosen, word)
        elif name not in models:
            problem = "is not in this sweep" if name in REGISTRY else "is unknown"
            raise UserError(f"--weights {word!r}: backbone {name!r} {problem}; choose from: {', '.join(models)}")
        elif not path:
            raise UserError(f"--weights {word!r} names no file; give {name}=PATH, or random")
        else:
            chosen[name] = path
    return {**saved, **weights.resolve_all(chosen, scale)}


def data_is_missing(request: Request) -> bool:
    """Whether the data has yet to be generated or downloaded."""
    from sousaphone.data.synthetic.generate import builtin_root

    if request.built_in:
        return not builtin_root(Path(request.cache_dir), request.dataset).is_dir()
    return not_downloaded(request.data_dir)


def not_downloaded(source: str) -> bool:
    """Whether this is a hub data set that is not completely in the hub's cache."""
    return hub.is_word(source) and hub.cached(source) is None


def data_directory(request: Request) -> str:
    """Return the directory or hub name of the data; generate the built-in set if needed."""
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
