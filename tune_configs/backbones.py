"""The default sweep: every backbone, with and without augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray import tune

from sousaphone.backbones.registry import REGISTRY, strategy_of
from sousaphone.config import CLIP_SECONDS, PerModel, Sweep, TrainConfig
from sousaphone.planning.sweep_options import Request
from tune_configs.resources import gpus, steps, threads


def sweep(request: Request) -> Sweep:
    """Return a grid of model × augmentation × seed, with equal clips, clip length, epochs and effective batch."""
    sizes = {model: steps(model, request) for model in request.models}
    space = {
        "model": tune.grid_search(list(request.models)),
        "augment": tune.grid_search(list(request.augment)),
        "seed": tune.grid_search(list(request.seeds)),
        "strategy": request.strategy,
        "lora_targets": request.lora_targets,
        "scale": request.scale,
        "weights": PerModel(dict(request.weights)),
        "dataset": request.dataset,
        "data_dir": request.data_dir,
        "cache_dir": request.cache_dir,
        "hold_out": request.hold_out,
        "test_also": request.test_also,
        "clip_seconds": CLIP_SECONDS[request.scale],
        "epochs": request.epochs,
        **tuned(request),
        "micro_batch": PerModel({model: size for model, (size, _) in sizes.items()}),
        "accumulation": PerModel({model: times for model, (_, times) in sizes.items()}),
        # Evaluation keeps no activations, so larger batches fit in memory.
        "eval_batch": PerModel({model: 2 * size for model, (size, _) in sizes.items()}),
        "device": request.device,
        "threads": threads(request),
        **request.settings,
    }
    return Sweep(
        param_space=space,
        cpus_per_trial=float(threads(request)),
        gpus_per_trial=gpus(request),
        tuning=describe_tuning(request),
    )


def tuned(request: Request) -> dict[str, PerModel]:
    """Return the learning rates, and the other fields that a search found (`--from`), by backbone."""
    default: dict[str, Any] = {each.name: each.default for each in dataclasses.fields(TrainConfig)}
    names = dict.fromkeys(name for found in request.tuned.values() for name in found)
    found = {
        name: PerModel({m: request.tuned.get(m, {}).get(name, default[name]) for m in request.models}) for name in names
    }
    rates = {m: REGISTRY[m].learning_rates[request.scale][strategy_of(m, request.strategy)] for m in request.models}
    return found | {
        "learning_rate": PerModel({m: request.tuned.get(m, {}).get("learning_rate", rates[m]) for m in request.models})
    }


def describe_tuning(request: Request) -> str:
    """Return the report's sentence about how the settings were chosen."""
    if "learning_rate" in request.settings:
        return f"learning rate {request.settings['learning_rate']:g} for every backbone, as given; not tuned"
    untuned = [model for model in request.models if model not in request.tuned]
    found = "; ".join(
        f"{model} {_in_words(request.tuned[model])}" for model in request.models if model in request.tuned
    )
    found += f" ({request.tuned_message})" if request.tuned_message and found else ""
    if not untuned:
        return f"settings found on validation clips, each backbone with the same budget: {found}"
    which = "all backbones" if len(untuned) == len(request.models) else ", ".join(untuned)
    message = f"learning rates are untuned for {which}: default values, not searched for on these data"
    return message + (f"; found on validation clips: {found}" if found else "")


def _in_words(settings: Mapping[str, Any]) -> str:
    """Return `0.005` for a learning rate alone, else `learning_rate 0.005, lora_r 8`."""
    texts = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    if set(texts) == {"learning_rate"}:
        return texts["learning_rate"]
    return ", ".join(f"{name} {text}" for name, text in texts.items())
