"""`Progress`: a search and the records of its trials, and what follows from them: next trial, stops, finalists."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sousaphone.config import TrainConfig
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.design import SCORE, Search
from sousaphone.search.dimensions import configured
from sousaphone.search.proposals import propose
from sousaphone.search.rungs import Segment, Tried, finalists

Live = Mapping[str, int]  # trials that are training, and the index of the rung to which each of them goes


@dataclass(frozen=True)
class Progress:
    """A search, its trials by id in the order of their proposal, and their records."""

    search: Search
    trials: Mapping[str, TrainConfig]
    records: Mapping[str, TrialRecord] = field(default_factory=dict)
    again: Collection[str] = ()  # trials that start again, although they have ended: failed ones that are retried

    @classmethod
    def read(cls, run: RunDirectory, again: Collection[str] = ()) -> Progress:
        """Read the search of a run; raise a UserError if run.json is damaged or the run is no search."""
        plan = run.read_plan()
        with run.checking():
            return cls.of(plan, [TrialRecord.find(run.trial(name)) for name in plan["trial_ids"]], again)

    @classmethod
    def of(
        cls, plan: Mapping[str, Any], records: Sequence[TrialRecord | None], again: Collection[str] = ()
    ) -> Progress:
        """Return the progress of a plan and the records of its trials; raise a ValueError if the plan is damaged or
        that of no search."""
        search, names = Search.from_json(plan.get("search")), plan["trial_ids"]
        trials = {name: TrainConfig(**each) for name, each in zip(names, plan["trials"], strict=True)}
        if not search.proposals.keys() <= trials.keys() or {*search.models} != {*search.proposals.values()}:
            raise ValueError("the proposals of its search are not those of its trials")
        if any(trials[name].model != model for name, model in search.proposals.items()):
            raise ValueError("the proposals of its search are of other backbones than its trials")
        if not all(search.is_over(epochs) for epochs in {trial.epochs for trial in trials.values()}):
            raise ValueError("the rungs of its search are not those of its trials")
        known = {name: each for name, each in zip(names, records, strict=True) if each is not None}
        return cls(search, trials, known, again)

    def tried(self, model: str) -> list[Tried]:
        """Return what the records show of a backbone's configurations, by number."""
        return [self._tried(number, name) for number, name in enumerate(self.search.own(model))]

    def _tried(self, number: int, name: str) -> Tried:
        record = self.records.get(name)
        if record is None:
            return Tried(number)
        return tried_of(number, record.history, record.status, record.cause, name in self.again)

    def next_trial(self, live: Live) -> tuple[Progress, str, int] | None:
        """Return what to train next: the trial, the index of the rung to which it goes, and the progress with it.

        None: nothing can start before a live trial reaches its rung, or at all. The backbone that has trained the
        fewest steps is first, after those with an interrupted trial.
        """
        found: dict[str, Segment] = {}
        begun: dict[str, tuple[bool, int]] = {}
        for model in self.search.models:
            tried = self.tried(model)
            if segment := self._next_segment(model, tried, live):
                found[model] = segment
                interrupted = segment.number < len(tried) and tried[segment.number].steps not in (0, *self.search.rungs)
                begun[model] = (not interrupted, sum(trial.steps for trial in tried))
        if not found:
            return None
        model = min(found, key=lambda each: begun[each])
        progress, names = self, self.search.own(model)
        if found[model].number == len(names):
            progress = self._proposed(model)
            names = progress.search.own(model)
        return progress, names[found[model].number], found[model].rung

    def stops(self, name: str, live: Live) -> bool:
        """Whether a live trial that has just finished an epoch stops there: it has reached its rung, and is not the
        next to be promoted."""
        model, rung = self.search.proposals[name], live[name]
        if not self.is_at_rung(name, rung):
            return False
        others = {each: index for each, index in live.items() if each != name}
        promoted = Segment(self.search.own(model).index(name), rung + 1)
        return self._next_segment(model, self.tried(model), others) != promoted

    def is_at_rung(self, name: str, rung: int) -> bool:
        """Whether a trial has reached a rung at which trials are compared; at full length it ends by itself."""
        record = self.records.get(name)
        steps = record.history[-1].get("steps") or 0 if record and record.history else 0
        return rung < len(self.search.rungs) - 1 and steps >= self.search.rungs[rung]

    @property
    def is_complete(self) -> bool:
        """Whether every backbone has trained all its configurations as far as planned."""
        return all(self._next_segment(model, self.tried(model), {}) is None for model in self.search.models)

    @property
    def has_finalists(self) -> bool:
        """Whether the finalists are planned."""
        return any(trial.score_test for trial in self.trials.values())

    def epochs_to_rung(self, name: str) -> int:
        """Return the epochs that a trial trains to reach its next rung."""
        epochs = self.trials[name].epochs
        done = len(self.records[name].history) if name in self.records else 0
        rungs = [rung * epochs // self.search.rungs[-1] for rung in self.search.rungs]
        return next((rung - done for rung in rungs if rung > done), 0)

    def parts_left(self, model: str, live: Collection[str] = ()) -> list[int]:
        """Return the epochs that a backbone has left in the search, except for those of live trials up to their next
        rungs, in parts as long as the way to the first rung."""
        epoch = self.search.rungs[-1] // self.trials[self.search.own(model)[0]].epochs  # in steps
        left = (self.search.ladder.steps - sum(trial.steps for trial in self.tried(model))) // epoch
        left -= sum(self.epochs_to_rung(name) for name in live if self.search.proposals[name] == model)
        longest = self.search.rungs[0] // epoch
        return [min(longest, left - begun) for begun in range(0, left, longest)]

    def finalists(self) -> list[tuple[str, int]]:
        """Return the finalists of each backbone, its untuned default among them, and their ranks from 1."""
        full = self.search.rungs[-1]
        return [
            (self.search.own(model)[number], rank)
            for model in self.search.models
            for rank, number in enumerate(finalists(self.tried(model), full, self.search.finalists), start=1)
        ]

    def final_trials(self, seeds: tuple[int, ...]) -> list[TrainConfig]:
        """Return the trials of the finalists, the only ones that score test clips."""
        return [
            self.search.tagged(dataclasses.replace(self.trials[name], seed=seed, score_test=True))
            for name, _ in self.finalists()
            for seed in seeds
        ]

    def _next_segment(self, model: str, tried: list[Tried], live: Live) -> Segment | None:
        own = {number: live[name] for number, name in enumerate(self.search.own(model)) if name in live}
        return self.search.ladder.next_segment(tried, own)

    def _proposed(self, model: str) -> Progress:
        """Return the progress with one more configuration of the backbone."""
        search, space, names = self.search, self.search.space[model], self.search.own(model)
        points = [{field: getattr(self.trials[name], field) for field in space} for name in names]
        point = propose(space, search.sampler, search.seed, model, points, self.tried(model), search.rungs[-1])
        trial = search.tagged(configured(self.trials[names[0]], point))
        proposals = {**search.proposals, trial.trial_id: model}
        return dataclasses.replace(
            self,
            search=dataclasses.replace(search, proposals=proposals),
            trials={**self.trials, trial.trial_id: trial},
        )


def tried_of(
    number: int, history: Sequence[Mapping[str, Any]], status: Status, cause: Cause | None, again: bool = False
) -> Tried:
    """Return what the record of a configuration shows: history, status and cause; `again`: it starts again."""
    scores, best = [], float("-inf")
    for row in history:
        score = row.get(SCORE)
        best = best if score is None else max(best, score)
        scores.append((int(row.get("steps") or 0), best))
    continues = status is Status.PRUNED or cause is Cause.SWEEP_TIME_LIMIT or again
    return Tried(number, tuple(scores), ended=status.has_ended and not continues)
