"""The search for better learning rates than the defaults in `sousaphone.backbones.registry`.

`--config rates` gives each backbone the same small budget: FACTORS times the default rate, three epochs (`--epochs`) of
STEPS optimiser steps, one seed, no augmentation. Only validation clips are scored, no test clips. The result is written
to RUN/rates.json; `--rates RUN/rates.json` uses it at the same scale, strategy and kind of weights. The defaults are
never changed: a rate found at nano scale says nothing about the published models.
"""

from __future__ import annotations

import dataclasses

from ray import tune

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import Sweep
from sousaphone.planning.sweep_options import Request
from tune_configs import backbones

FACTORS = (0.1, 0.3, 1.0, 3.0)
STEPS = 25  # per epoch: 800 clips of any data set


def sweep(request: Request) -> Sweep:
    """Return a grid of model × learning rate, scored on validation clips only."""
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
        notes=("learning-rate search: few steps, scored on validation clips only",),
    )
