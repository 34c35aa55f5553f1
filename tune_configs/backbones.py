"""The default sweep: every backbone, with and without augmentation."""

from __future__ import annotations

from ray import tune

from sousaphone.choices import Choices
from sousaphone.config import PerModel, Sweep
from tune_configs.rates import rate


def sweep(choices: Choices) -> Sweep:
    """A grid of model × augmentation × seed, at the same seconds, clips, epochs and effective batch (32) for all."""
    on_gpu, small = choices.device != "cpu", choices.scale == "nano"
    # On a GPU a trial at a time; nano trials take a core each; a full-size model on a CPU takes them all.
    threads = 1 if small and not on_gpu else choices.cpus
    if choices.cpus_per_trial is not None:
        threads = max(1, int(choices.cpus_per_trial))
    micro_batch = 32 if on_gpu or small else 2
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
        "clip_seconds": 2.5 if small else 5.0,
        "epochs": choices.epochs,
        "learning_rate": PerModel({m: rate(m, choices.strategy, choices.scale) for m in choices.models}),
        "micro_batch": micro_batch,
        "accumulation": 32 // micro_batch,
        "eval_batch": 64 if on_gpu or small else micro_batch,
        "device": choices.device,
        "threads": threads,
        **choices.settings,
    }
    return Sweep(
        param_space=space,
        cpus_per_trial=float(threads),
        gpus_per_trial=1.0 if choices.device == "cuda" else 0.0,
        max_concurrent=1 if choices.device == "mps" else None,
    )
