"""The search for better learning rates than the defaults in `sousaphone.backbones.registry`.

`--config rates` gives each backbone the same budget: FACTORS times the default rate, one seed, no augmentation (unless
`--augment` says so), and the schedule of the sweep that the rates are for: give the same `--dataset` and `--epochs`. A
shorter one favours high rates: in ten epochs on the tiny set, AST (nano) had its lowest validation loss at 0.015 after
three epochs (3.574; 3.604 at 0.005), but at 0.005 after ten (3.327; 3.571 at 0.015). `--set limit_train_batches=N`
shortens a search.

Only validation clips are scored, no test clips. The result is written to RUN/rates.json; `--rates RUN/rates.json` uses
it at the same scale, strategy and kind of weights. The defaults are never changed: a rate found at nano scale says
nothing about the published models.
"""

from __future__ import annotations

import dataclasses

from ray import tune

from sousaphone.config import Sweep
from sousaphone.planning.sweep_options import Request
from tune_configs import backbones

FACTORS = (0.1, 0.3, 1.0, 3.0)


def sweep(request: Request) -> Sweep:
    """Return a grid of model × learning rate, scored on validation clips only."""
    usual = backbones.sweep(request)
    starts = set(backbones.tuned(dataclasses.replace(request, tuned={}))["learning_rate"].values.values())
    grid = sorted({float(f"{start * factor:.2g}") for start in starts for factor in FACTORS})
    space = {
        **usual.param_space,
        "learning_rate": tune.grid_search(grid),
        "score_test": False,
        **request.settings,
    }
    return dataclasses.replace(
        usual,
        param_space=space,
        tuning="",
        notes=("learning-rate search: scored on validation clips only",),
    )
