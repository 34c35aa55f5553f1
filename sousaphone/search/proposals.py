"""Proposals of configurations: Optuna's TPE, or quasi-random points.

A proposal is a function of the space, the seed, its number and the earlier trials of its backbone; no sampler is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sousaphone.errors import UserError
from sousaphone.search.dimensions import Dimension, Space
from sousaphone.search.rungs import Tried

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

Sampler = Literal["tpe", "qmc"]
_STARTUP = 5  # the default and quasi-random points, before TPE has enough to learn from
_ATTEMPTS = 100
Point = Mapping[str, Any]


def propose(
    space: Space,
    sampler: Sampler,
    seed: int,
    model: str,
    points: Sequence[Point],
    trials: Sequence[Tried],
    full: int,
) -> dict[str, Any]:
    """Return the next point of a backbone.

    Args:
        points: the earlier points, the untuned default first; TPE ignores values outside of the space.
        trials: their trials.
        full: the full length, in steps.

    Raises:
        UserError: the space has too few points.
    """
    number = len(points)
    for attempt in range(_ATTEMPTS):
        if sampler == "qmc" or number < _STARTUP:
            point = _quasi_random(space, (seed, attempt), number)
        else:
            point = _tpe(space, _seed(seed, model, number, attempt), points, trials, full)
        if point not in points:
            return point
    raise UserError(f"the space of the search has no further point for {model}; give a smaller --budget")


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _quasi_random(space: Space, seed: tuple[int, int], number: int) -> dict[str, Any]:
    """Return a point of a scrambled Sobol sequence, the same fractions for every backbone."""
    from numpy.random import default_rng
    from scipy.stats import qmc

    fractions = map(float, qmc.Sobol(len(space), rng=default_rng(seed)).fast_forward(number).random(1)[0])
    return {name: dimension.at(next(fractions)) for name, dimension in space.items()}


def _tpe(space: Space, seed: int, points: Sequence[Point], trials: Sequence[Tried], full: int) -> dict[str, Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(n_startup_trials=1, multivariate=True, constant_liar=True, seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: distribution(dimension) for name, dimension in space.items()}
    for point, trial in zip(points, trials, strict=True):
        known = {name: value for name, value in point.items() if space[name].has(value)}
        _add(study, distributions, known, trial, full)
    found = study.ask(distributions).params
    return {name: dimension.rounded(found[name]) for name, dimension in space.items()}


def distribution(dimension: Dimension, known: Sequence[Any] = ()) -> BaseDistribution:
    """Return a dimension in Optuna's terms, wide enough for known values outside of it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if dimension.type == "choice":
        return CategoricalDistribution(list(dict.fromkeys([*dimension.values, *known])))
    low, high = min([dimension.low, *known]), max([dimension.high, *known])
    return FloatDistribution(low, high, log=dimension.type == "loguniform" and low > 0)


def _add(study: Study, distributions: Mapping[str, BaseDistribution], point: Point, trial: Tried, full: int) -> None:
    """Add a trial in Optuna's terms: complete, pruned with its scores (the worst if it has none), or running."""
    from optuna.trial import TrialState, create_trial

    own = {name: distributions[name] for name in point}
    add = partial(create_trial, params=dict(point), distributions=own)
    if trial.steps >= full:
        study.add_trial(add(state=TrialState.COMPLETE, value=trial.score_at(full)))
    elif trial.scores or trial.ended:
        scores = {steps: trial.score_at(steps) for steps, _ in trial.scores}
        study.add_trial(add(state=TrialState.PRUNED, intermediate_values=scores))
    else:
        study.add_trial(add(state=TrialState.RUNNING))
