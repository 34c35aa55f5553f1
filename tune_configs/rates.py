"""The search for better learning rates than those of `sousaphone.backbones.registry`.

`--config rates` gives each backbone the same small budget: FACTORS times the rate there, three epochs (`--epochs`) of
STEPS optimiser steps, one seed, no augmentation. Only validation is looked at; no test clip is scored. What it finds
stands in RUN/rates.json, and `--rates RUN/rates.json` uses it at the same scale, strategy and kind of weights. Nothing
is ever written into the package: what is found at nano scale says nothing about the published models.
"""

from __future__ import annotations

import dataclasses

from ray import tune

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import Sweep
from sousaphone.planning.sweep_options import Request
from tune_configs import backbones

FACTORS = (0.1, 0.3, 1.0, 3.0)
STEPS = 25  # an epoch: 800 clips of any data set


def sweep(request: Request) -> Sweep:
    """A grid of model × learning rate, seen by validation alone."""
    usual = backbones.sweep(request)
    starts = {REGISTRY[model].learning_rates[request.scale][request.strategy] for model in request.models}
    grid = sorted({float(f"{start * factor:.2g}") for start in starts for factor in FACTORS})
    space = {
        **usual.param_space,
        "learning_rate": tune.grid_search(grid),
        "limit_train_batches": STEPS,
        "score_test": False,
        **request.settings,
    }
    return dataclasses.replace(
        usual,
        param_space=space,
        tuning="",
        notes=("a search for learning rates: few steps, validation only, no test clip scored",),
    )
