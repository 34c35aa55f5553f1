"""What a search will train: its length in optimiser steps, the trials to expect, and a plan that fits a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.planning.forecast import Forecast
from sousaphone.planning.job import Job
from sousaphone.planning.throughput import train_steps
from sousaphone.runs import schema
from sousaphone.search.design import LEAST, MOST_CONFIGURATIONS, Search
from sousaphone.search.dimensions import Dimension
from sousaphone.text import as_option, counted, in_words

Predict = Callable[[Sequence[TrainConfig]], Forecast]


def with_rungs(job: Job, clips: int) -> Job:
    """Return the job of a search with its rungs for so many training clips, unless it has them already."""
    search: Search = job.sweep.search
    if search.rungs:
        return job
    first = job.trials[0]
    return job.with_search(search.over(first.epochs, train_steps(first, clips)))


def upcoming(job: Job) -> list[TrainConfig]:
    """Return stand-ins for the trials of a search: what is left of each backbone's steps, in parts up to the first
    rung, and the finalists; the trials that are left, once the finalists are known."""
    if not job.is_searching:
        return job.left()
    search: Search = job.sweep.search
    progress, defaults = job.progress(search), [job.trial(search.own(model)[0]) for model in search.models]
    parts, finals = [], []
    for default in defaults:
        parts += [
            dataclasses.replace(default, epochs=length, tag=f"part-{number}")
            for number, length in enumerate(progress.parts_left(default.model))
        ]
        finals += [
            dataclasses.replace(default, seed=seed, score_test=True, tag=f"finalist-{rank}")
            for rank in range(search.all_finalists)
            for seed in job.request.seeds
        ]
    return [*parts, *finals]


def within_time(job: Job, predict: Predict) -> Job:
    """Return the job with as many configurations as fit into the time of its search; raise a UserError if too few do,
    or if the speed of a backbone is unknown."""
    search: Search = job.sweep.search
    if search.seconds is None or job.plan is not None:
        return job

    def planned(configurations: int) -> Job:
        return job.with_search(dataclasses.replace(search, configurations=configurations))

    def forecast(configurations: int) -> Forecast:
        return predict(upcoming(planned(configurations)))

    least = forecast(LEAST)
    if not least.complete:
        raise UserError(
            "--budget in time needs the speed of every backbone; add --timing, or give a number of configurations"
        )
    if least.seconds > search.seconds:
        raise UserError(
            f"--budget of {in_words(search.seconds)} is too short: {LEAST} configurations of each backbone and the "
            f"finalists take about {in_words(least.seconds)}; give --budget {as_option(least.seconds * 1.1)} or more"
        )
    fitting = LEAST
    while fitting < _most_configurations(search) and forecast(fitting + 1).seconds <= search.seconds:
        fitting += 1
    return planned(fitting)


def _most_configurations(search: Search) -> int:
    """Return the most configurations of each backbone that run.json can have, finalists included."""
    return min(MOST_CONFIGURATIONS, schema.MOST_ARMS // len(search.models) - search.finalists - 1)


def describe_search(job: Job, forecast: Forecast) -> Iterator[str]:
    """Yield the budget, the rungs and, if it is known, the time of each backbone."""
    search: Search = job.sweep.search
    most = " (the maximum)" if search.seconds and search.configurations == _most_configurations(search) else ""
    rungs = zip(search.ladder.places, search.rungs, strict=True)
    lengths = ", ".join(f"{number} train for {steps:,} steps" for number, steps in rungs)
    grace = f"; none is stopped before {search.rungs[0]:,} (grace)" if len(search.rungs) > 1 else ""
    yield (
        f"search: {counted(search.configurations, 'configuration')} of each backbone by {search.sampler}{most}: "
        f"{lengths}{grace}"
    )
    for model in search.models:
        own = [one for one in forecast.trials if one.trial.model == model]
        seconds = [one.left for one in own if one.left is not None]
        time = f", about {in_words(sum(seconds))} one at a time" if len(seconds) == len(own) else ""
        finals = search.all_finalists * len(job.request.seeds)
        yield (
            f"  {REGISTRY[model].title}: {search.ladder.steps:,} steps, then {counted(finals, 'finalist trial')} of "
            f"{search.rungs[-1]:,}{time}"
        )
        fields = ", ".join(f"{name} {_range(dimension)}" for name, dimension in search.space[model].items())
        yield f"    searched: {fields}"


def _range(dimension: Dimension) -> str:
    if dimension.type == "choice":
        return "/".join(map(str, dimension.values))
    return f"{dimension.low:g}–{dimension.high:g}"
