"""A search that is fair to every backbone: the same number of configurations and of optimiser steps, then finalists.

`--config search --budget 16` proposes 16 configurations of each backbone, the untuned default first, and trains them
by asynchronous successive halving on validation clips (`sousaphone.search`). The default and the two best others are
then trained with `--seeds` and scored on the test clips. `--budget 4h` plans the number of configurations by time.

The searched fields are those of `sousaphone.search.dimensions`; a value given with `--set` is not searched. A search
over other fields is a copy of this file with another `space` of its `Search`.
"""

from __future__ import annotations

import dataclasses

from ray import tune

from sousaphone.config import Sweep
from sousaphone.errors import UserError
from sousaphone.planning.sweep_options import Request
from sousaphone.search.design import Search, parse_budget
from sousaphone.sweep.search import Rungs, SearchProposals
from tune_configs import backbones


def sweep(request: Request) -> Sweep:
    """Return the untuned trial of each backbone, and the searcher and scheduler of a search around it."""
    if len(request.augment) > 1:
        raise UserError("a search compares one training of each backbone; give --augment on or --augment off")
    if "patience" in request.settings:
        raise UserError("--set patience is not a setting of a search, which stops trials at its rungs; leave it out")
    usual, proposals = backbones.sweep(request), SearchProposals()
    # Finalists are trained with seeds of their own, not with the one by which they were chosen.
    seed = max(request.seeds) + 1
    space = {
        **usual.param_space,
        "model": tune.choice(list(request.models)),
        "seed": seed,
        "score_test": False,
        "patience": request.epochs,
    }
    made = dataclasses.replace(usual, param_space=space, num_samples=len(request.models), searcher=proposals)
    search = Search.around(
        made.trials(), fixed=request.settings, seed=seed, sampler=request.sampler, **parse_budget(request.budget)
    )
    return dataclasses.replace(
        made,
        num_samples=search.configurations * len(request.models),
        scheduler=Rungs(proposals),
        search=search,
        tuning=f"settings searched on validation clips, with the same budget for every backbone ({request.budget})",
    )
