"""Peak learning rates by backbone and strategy, each with where it comes from; as a sweep, the search for better ones.

Published for AST: LoRA and adapters 5e-3, linear probe 1e-3, full fine-tuning 5e-5 (Cappellazzo et al., arXiv
2312.03694). The others start from these until they are tuned; a nano backbone trains from random weights, for which
a published fine-tuning rate says nothing, so the full strategy takes a usual rate for training from scratch.

`--config rates` gives each backbone the same small budget: FACTORS times the rate below, three epochs (`--epochs`) of
STEPS optimiser steps, one seed, no augmentation. Only validation is looked at; no test clip is scored. What it finds
stands in RUN/rates.json, and `--rates RUN/rates.json` uses it at the same scale, strategy and kind of weights. Nothing
is ever written here: what is found at nano scale says nothing about the published models.
"""

from __future__ import annotations

import dataclasses

from ray import tune

from sousaphone.choices import Choices
from sousaphone.config import Sweep

BASE = {
    "ast": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "htsat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "beats": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "beats-ft": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
    "efficientat": {"lora": 5e-3, "head": 1e-3, "full": 5e-5},
}
NANO = {
    "ast": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "htsat": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "beats": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "beats-ft": {"lora": 5e-3, "head": 5e-3, "full": 1e-3},
    "efficientat": {"lora": 5e-3, "head": 5e-3, "full": 3e-3},
}
FACTORS = (0.1, 0.3, 1.0, 3.0)
STEPS = 25  # an epoch: 800 clips of any data set


def rate(model: str, strategy: str, scale: str) -> float:
    """The peak learning rate of one arm, before any search."""
    return (BASE if scale == "base" else NANO)[model][strategy]


def rates(choices: Choices) -> dict[str, float]:
    """By backbone: what a search found (`--rates`), else the rate above."""
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


def sweep(choices: Choices) -> Sweep:
    """A grid of model × learning rate, seen by validation alone."""
    # Not above: the default sweep takes its rates from this module.
    from tune_configs import backbones

    usual = backbones.sweep(choices)
    starts = {rate(model, choices.strategy, choices.scale) for model in choices.models}
    grid = sorted({float(f"{start * factor:.2g}") for start in starts for factor in FACTORS})
    space = {
        **usual.param_space,
        "learning_rate": tune.grid_search(grid),
        "limit_train_batches": STEPS,
        "score_test": False,
        **choices.settings,
    }
    return dataclasses.replace(
        usual,
        param_space=space,
        notes=("a search for learning rates: few steps, validation only, no test clip scored",),
    )
