"""`SearchResults`: the configurations of a search, how far each of them trained, and what was spent on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.load.trials import Trial
from analysis.stats.arms import title
from analysis.stats.importance import Importance, importances
from sousaphone.runs.statuses import Status
from sousaphone.search.design import Search
from sousaphone.search.progress import tried_of
from sousaphone.search.rungs import Tried

_OWN = ("seed", "score_test", "tag")  # fields in which a finalist's trials differ from the search's


@dataclass(frozen=True, eq=False)
class Configuration:
    """One configuration of a backbone."""

    trial: Trial  # of the search; it scores no test clips
    number: int  # within its backbone
    settings: Mapping[str, Any]  # the searched fields
    finals: Sequence[Trial] = ()  # its trials at full length that score test clips, if it is a finalist

    @property
    def model(self) -> str:
        return str(self.trial.config.get("model", ""))

    @property
    def default(self) -> bool:
        """Whether it is the untuned default."""
        return self.number == 0

    @property
    def name(self) -> str:
        return f"{title(self.model)} {self.number}{' (untuned default)' if self.default else ''}"

    @cached_property
    def tried(self) -> Tried:
        """Its scores as the search sees them."""
        return tried_of(self.number, self.trial.history, self.trial.status, self.trial.cause)

    @property
    def steps(self) -> int:
        """Optimiser steps of its trial of the search."""
        return self.tried.steps

    @property
    def score(self) -> float:
        """Its best validation macro F1; -inf without any."""
        return self.tried.score_at(self.steps)


@dataclass(frozen=True, eq=False)
class SearchResults:
    """A search and its trials."""

    search: Search
    configurations: Mapping[str, Sequence[Configuration]]  # of each backbone, by number
    validation: pd.DataFrame  # predictions of `to_read` on the validation clips, see `read_predictions`

    @classmethod
    def of(cls, search: Search, trials: Sequence[Trial]) -> SearchResults:
        """Return the results without predictions. Other trials than those of the proposals are the finalists'."""
        finals: dict[tuple[tuple[str, str], ...], list[Trial]] = {}
        for trial in trials:
            if trial.trial_id not in search.proposals:
                finals.setdefault(_shared(trial), []).append(trial)
        by_id, found = {trial.trial_id: trial for trial in trials}, {}
        for model, space in search.space.items():
            proposed = [by_id[name] for name in search.own(model) if name in by_id]
            found[model] = [
                Configuration(
                    trial,
                    number,
                    {name: trial.config[name] for name in space if name in trial.config},
                    finals.get(_shared(trial), ()),
                )
                for number, trial in enumerate(proposed)
            ]
        return cls(search, {model: own for model, own in found.items() if own}, pd.DataFrame())

    @property
    def settings(self) -> list[str]:
        """The searched fields of all backbones."""
        return list(dict.fromkeys(name for space in self.search.space.values() for name in space))

    @property
    def full_length(self) -> int:
        """The optimiser steps of a trial that is not stopped."""
        return max(self.search.rungs, default=0)

    def best(self, model: str) -> Configuration | None:
        """The best configuration: the highest score among those that trained furthest, in rungs."""
        known = [each for each in self.configurations[model] if each.trial.history]
        return max(known, key=lambda each: (self.search.ladder.reached(each.steps), each.score), default=None)

    def default(self, model: str) -> Configuration | None:
        return next((each for each in self.configurations[model] if each.default), None)

    def tuned(self, model: str) -> Configuration | None:
        """The best configuration at full length that is not the untuned default."""
        known = [c for c in self.configurations[model] if not c.default and c.trial.history and self._is_full(c)]
        return max(known, key=lambda each: each.score, default=None)

    def _is_full(self, each: Configuration) -> bool:
        return each.trial.full or each.steps >= self.full_length

    @property
    def to_read(self) -> list[Trial]:
        """The trials whose predictions on the validation clips are needed."""
        return [best.trial for model in self.configurations if (best := self.best(model)) is not None]

    def reached(self, model: str) -> list[int]:
        """The number of configurations that reached each rung."""
        steps = [each.steps for each in self.configurations[model]]
        return [sum(done >= rung for done in steps) for rung in self.search.rungs]

    def steps(self, model: str) -> tuple[int, int]:
        """The optimiser steps of a backbone: of the search, and of its finalists."""
        own = self.configurations[model]
        finals = (trial.last.get("steps", 0) for each in own for trial in each.finals)
        return sum(each.steps for each in own), int(sum(finals))

    def compared(self, model: str) -> tuple[list[Mapping[str, Any]], list[float]]:
        """Return the settings of the configurations that reached the first rung, and their scores there.

        A configuration that diverged before counts as 0; others without that many steps are left out.
        """
        first = min(self.search.rungs, default=0)
        own = [c for c in self.configurations[model] if c.steps >= first or c.trial.status is Status.DIVERGED]
        scores = [each.tried.score_at(first) if each.steps >= first else 0.0 for each in own]
        return [each.settings for each in own], [score if math.isfinite(score) else 0.0 for score in scores]

    @cached_property
    def importances(self) -> dict[str, list[Importance]]:
        """The importance of the settings, by backbone."""
        return {m: importances(*self.compared(m), self.search.space[m]) for m in self.configurations}

    def course(self, model: str) -> list[tuple[int, float]]:
        """Return (optimiser steps spent on the backbone, best score so far) after each epoch.

        The order is that of a search of one trial at a time: it follows from the scores. What does not fit into it, as
        in a search of several trials at a time, is appended.
        """
        own, ladder = self.configurations[model], self.search.ladder
        shown = [0] * len(own)  # epochs
        begun, order = 0, list[tuple[int, int]]()  # (number, epoch)
        while ladder.rungs:
            seen = [_until(own[n].tried, shown[n]) for n in range(begun)]
            segment = ladder.next_segment(seen)
            if segment is None or segment.number >= len(own):
                break
            tried, first = own[segment.number].tried, shown[segment.number]
            begun = max(begun, segment.number + 1)
            end = sum(steps <= ladder.rungs[segment.rung] for steps, _ in tried.scores)
            order += [(segment.number, epoch) for epoch in range(first, end)]
            shown[segment.number] = max(first, end)
            if end <= first and not _until(tried, first).ended:
                break  # not trained yet
        order += [(n, epoch) for n, each in enumerate(own) for epoch in range(shown[n], len(each.tried.scores))]
        spent, best, points = 0, -math.inf, []
        done = [0] * len(own)
        for number, epoch in order:
            steps, score = own[number].tried.scores[epoch]
            spent, done[number], best = spent + steps - done[number], steps, max(best, score)
            points.append((spent, best))
        return points

    def outcome(self, each: Configuration) -> str:
        """What became of a configuration, and why, in words."""
        status, rungs = each.trial.status, self.search.rungs
        if self._is_full(each) and each.trial.history:
            return "finalist" if each.finals else "full length"
        if status is not Status.PRUNED:
            return f"{status.replace('_', ' ')}: {each.trial.why}"
        rung = self.search.ladder.reached(each.steps) - 1
        if rung < 0:
            return f"stopped: {each.trial.why}"
        scores = [c.tried.score_at(rungs[rung]) for c in self.configurations[each.model] if c.steps >= rungs[rung]]
        rank = 1 + sum(score > each.tried.score_at(rungs[rung]) for score in scores)
        further = sum(c.steps > rungs[rung] for c in self.configurations[each.model])
        return f"stopped at {rungs[rung]:,} steps: rank {rank} of {len(scores)}, {further} continued"


def _until(tried: Tried, epochs: int) -> Tried:
    """The trial as it was after so many epochs."""
    return Tried(tried.number, tried.scores[:epochs], tried.ended and epochs >= len(tried.scores))


def _shared(trial: Trial) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in trial.config.items() if name not in _OWN))
