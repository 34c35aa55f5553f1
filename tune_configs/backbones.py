"""The default sweep: every backbone, with and without augmentation."""

from __future__ import annotations

from ray import tune

from sousaphone.backbones.training_defaults import rate
from sousaphone.config import PerModel, Sweep
from sousaphone.planning.options import Choices
from tune_configs.resources import gpus, steps, threads


def sweep(choices: Choices) -> Sweep:
    """A grid of model × augmentation × seed, at the same seconds, clips, epochs and effective batch for all."""
    sizes = {model: steps(model, choices) for model in choices.models}
    space = {
        "model": tune.grid_search(list(choices.models)),
        "augment": tune.grid_search(list(choices.augment)),
        "seed": tune.grid_search(list(choices.seeds)),
        "strategy": choices.strategy,
        "lora_targets": choices.lora_targets,
        "scale": choices.scale,
        "weights": PerModel(dict(choices.weights)),
        "dataset": choices.dataset,
        "data_dir": choices.data_dir,
        "cache_dir": choices.cache_dir,
        "hold_out": choices.hold_out,
        "test_also": choices.test_also,
        "clip_seconds": 2.5 if choices.scale == "nano" else 5.0,
        "epochs": choices.epochs,
        "learning_rate": PerModel(rates(choices)),
        "micro_batch": PerModel({model: size for model, (size, _) in sizes.items()}),
        "accumulation": PerModel({model: times for model, (_, times) in sizes.items()}),
        # Evaluation keeps no activations, so it has room for more.
        "eval_batch": PerModel({model: 2 * size for model, (size, _) in sizes.items()}),
        "device": choices.device,
        "threads": threads(choices),
        **choices.settings,
    }
    return Sweep(
        param_space=space,
        cpus_per_trial=float(threads(choices)),
        gpus_per_trial=gpus(choices),
        notes=(how_tuned(choices),),
    )


def rates(choices: Choices) -> dict[str, float]:
    """By backbone: what a search found (`--rates`), else the backbone's own rate."""
    return {m: choices.rates.get(m, rate(m, choices.strategy, choices.scale)) for m in choices.models}


def how_tuned(choices: Choices) -> str:
    """What a report is to say of the rates."""
    if "learning_rate" in choices.settings:
        return f"learning rate {choices.settings['learning_rate']:g} for every backbone, as given; not tuned for each"
    untuned = [model for model in choices.models if model not in choices.rates]
    found = ", ".join(f"{model} {choices.rates[model]:g}" for model in choices.models if model in choices.rates)
    found += f" ({choices.rates_told})" if choices.rates_told and found else ""
    if not untuned:
        return f"learning rates found on validation clips, each backbone with the same budget: {found}"
    which = "all backbones" if len(untuned) == len(choices.models) else ", ".join(untuned)
    return f"learning rates are untuned for {which}: starting points, not searched for on these data" + (
        f"; found on validation clips: {found}" if found else ""
    )
