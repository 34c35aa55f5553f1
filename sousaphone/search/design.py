"""`Search`: the design of a search and its proposals, as in run.json."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le, Len

from sousaphone.config import TrainConfig, tagged
from sousaphone.errors import UserError
from sousaphone.runs import schema
from sousaphone.search.dimensions import Dimension, space_around
from sousaphone.search.proposals import Sampler
from sousaphone.search.rungs import Ladder, rung_epochs
from sousaphone.text import parse_duration

SCORE = "val_macro_f1"
LEAST, MOST_CONFIGURATIONS = 2, 200  # configurations of a backbone
REDUCTION, FINALISTS = 3, 2


@dataclass(frozen=True)
class Search:
    """The same number of configurations and of optimiser steps for every backbone."""

    __pydantic_config__ = schema.STRICT
    space: Mapping[schema.Text, Mapping[schema.Text, Dimension]]  # by backbone
    configurations: Annotated[int, Ge(LEAST), Le(MOST_CONFIGURATIONS)]  # of each backbone, the untuned default included
    seconds: schema.Seconds | None = None  # the budget in time from which `configurations` was planned
    sampler: Sampler = "tpe"
    seed: schema.Count = 0
    reduction: Annotated[int, Ge(2), Le(100)] = REDUCTION
    finalists: Annotated[int, Ge(1), Le(100)] = FINALISTS  # of each backbone, besides the untuned default
    rungs: Annotated[tuple[schema.Count, ...], Len(0, 100)] = ()  # in optimiser steps; known with the data
    # The backbone of each trial, in order; the first of a backbone, its number 0, is the untuned default.
    proposals: Mapping[schema.Id, schema.Text] = field(default_factory=dict)

    @classmethod
    def from_json(cls, saved: Any) -> Search:
        """Restore a search from run.json, where it is a dict; raise a ValueError if it is damaged."""
        search: Search = schema.parse(json.dumps(saved), cls, "search")
        known = {each.name for each in dataclasses.fields(TrainConfig)}
        if any(not own or not own.keys() <= known for own in search.space.values()):
            raise ValueError("search is damaged (space: it has no fields, or unknown ones)")
        return search

    @classmethod
    def around(cls, defaults: Sequence[TrainConfig], fixed: Collection[str], **design: Any) -> Search:
        """Return a search around the untuned trial of each backbone, in the default space.

        Raises:
            UserError: all fields of the space are fixed.
        """
        space = {trial.model: space_around(trial, fixed) for trial in defaults}
        if not all(space.values()):
            raise UserError(f"nothing is left to search: {', '.join(sorted(fixed))} are given; leave one of them out")
        return cls(space, **design)

    def begun(self, defaults: Sequence[TrainConfig]) -> tuple[Search, list[TrainConfig]]:
        """Return the search with the untuned default of each backbone as its number 0, and these trials."""
        trials = [self.tagged(trial) for trial in defaults]
        return dataclasses.replace(self, proposals={trial.trial_id: trial.model for trial in trials}), trials

    def over(self, epochs: int, steps: int) -> Search:
        """Return the search with its rungs, for trials of so many epochs of so many optimiser steps."""
        rungs = tuple(epoch * steps for epoch in rung_epochs(epochs, self.reduction))
        return dataclasses.replace(self, rungs=rungs)

    def is_over(self, epochs: int) -> bool:
        """Whether the rungs are those of trials of so many epochs."""
        full = self.rungs[-1] if self.rungs else 0
        return full >= epochs and self == self.over(epochs, full // epochs)

    @property
    def all_finalists(self) -> int:
        """The number of finalists of each backbone, the untuned default included."""
        return min(self.finalists + 1, self.configurations)

    @property
    def ladder(self) -> Ladder:
        return Ladder.plan(self.rungs, self.configurations, self.reduction, self.all_finalists)

    @property
    def models(self) -> list[str]:
        return list(self.space)

    def tagged(self, trial: TrainConfig) -> TrainConfig:
        """Return the trial with the tag of its searched fields; a finalist differs from the trial that it repeats."""
        names = dict.fromkeys(name for model in self.space for name in self.varied(model))
        return tagged(trial, [*names, "score_test"])

    def varied(self, model: str) -> list[str]:
        """Return the fields in which the configurations of a backbone differ."""
        names = list(self.space[model])
        return [*names, "lora_alpha"] if "lora_r" in names and "lora_alpha" not in names else names

    def own(self, model: str) -> list[str]:
        """Return the trials of a backbone by number."""
        return [name for name, own in self.proposals.items() if own == model]


def parse_budget(text: str) -> dict[str, Any]:
    """Return `configurations` of a `--budget` such as 16, or `seconds` of one such as 4h; raise a UserError if it is
    neither."""
    try:
        if not text.strip().isdecimal():
            if (seconds := parse_duration("--budget", text)) is not None:
                return {"configurations": LEAST, "seconds": seconds}
        elif LEAST <= int(text) <= MOST_CONFIGURATIONS:
            return {"configurations": int(text)}
    except UserError:
        pass
    raise UserError(
        f"--budget {text!r} is neither a number of configurations, from {LEAST} to {MOST_CONFIGURATIONS}, nor a "
        "duration, such as 4h"
    )
