"""The default sweep: every backbone, with and without augmentation."""

from __future__ import annotations

from ray import tune

from sousaphone.choices import Choices
from sousaphone.config import PerModel, Sweep
from tune_configs.rates import how_tuned, rates
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
