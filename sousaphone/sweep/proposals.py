"""Sweeps whose trials are proposed while they run, by a searcher of Ray Tune.

Each proposal is in run.json before its trial starts, so that records, report and resume work as for any other sweep.
What a searcher has learned is never read from Ray's files: it learns again from the trials' own records.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from sousaphone.config import Sweep, TrainConfig
from sousaphone.runs.directory import DriverWatch, RunDirectory
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.space import domains, draw, place
from sousaphone.sweep.failures import end_pruned
from sousaphone.text import one_line

_MOST_REPETITIONS = 100  # proposals of known trials in a row, after which the space counts as exhausted


class Proposals(Searcher):
    """Proposes the trials of a run. Subclasses define `suggest`, as Ray Tune calls it, and learn from `ended`.

    Ray saves it with the experiment, but it is not restored: every start of a run makes one and calls `begin`.
    """

    def begin(self, run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig]) -> None:
        """Start with the trials that are left of the run's plan."""
        self.run, self.sweep = run, sweep
        self._running = dict[str, TrainConfig]()
        self._deadline = DriverWatch.begin(run.path).limits.deadline

    def ended(self, trial: TrainConfig, record: TrialRecord | None, ray_id: str | None = None) -> None:
        """Learn that a trial has ended, now or in an earlier start (no `ray_id`), from its record."""

    @property
    def _too_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial := self._running.pop(trial_id, None):
            if not error:
                end_pruned(self.run, trial.trial_id)
            self.ended(trial, self.run.record(trial.trial_id), trial_id)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True  # `begin` has set them

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_text("{}", encoding="utf-8")  # Ray requires a file

    def restore(self, checkpoint_path: str) -> None:
        """Ray's file has no content."""


class SearcherProposals(Proposals):
    """The trials of a plan that are left, then those that a searcher of Ray Tune proposes over the domains of a sweep's
    space, until there are as many as run.json has `planned`."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__()
        self._searcher = searcher  # Ray would save the state of an attribute called `searcher`
        self._own: dict[str, str] = {}  # the searcher's name of a trial, by Ray's

    def begin(self, run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig]) -> None:
        super().begin(run, sweep, left)
        self._left, self._domains = list(left), domains(sweep.param_space)
        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._searcher.set_search_properties(sweep.metric, sweep.mode, self._domains)
        waiting = {trial.trial_id for trial in left}
        for trial in self._planned():
            if trial.trial_id not in waiting:
                self.ended(trial, run.record(trial.trial_id))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial, as Ray Tune expects it."""
        proposed: TrainConfig | str | None
        if self._left:
            proposed = self._left.pop(0)
        elif len((plan := self.run.read_plan())["trials"]) >= plan["planned"] or self._too_late:
            return str(Searcher.FINISHED)
        else:
            proposed = self._propose(trial_id)
            if isinstance(proposed, TrainConfig):
                self.run.append_trials([proposed])
            elif proposed == Searcher.FINISHED:
                self.run.append_trials([], planned=len(self._planned()))
        if not isinstance(proposed, TrainConfig):
            return proposed
        self._running[trial_id] = proposed
        return dataclasses.asdict(proposed)

    def _planned(self) -> list[TrainConfig]:
        """Return the trials that are planned so far, in the order in which they were proposed."""
        return [TrainConfig(**config) for config in self.run.read_plan()["trials"]]

    def _propose(self, ray_id: str) -> TrainConfig | str | None:
        """Return the next trial; None: none before another one has ended; `Searcher.FINISHED`: none at all."""
        known = {trial.trial_id for trial in self._planned()}
        for attempt in range(_MOST_REPETITIONS):
            own = f"{ray_id}-{attempt}"
            values = self._searcher.suggest(own)
            if not isinstance(values, dict):
                return values
            (point,) = place(self.sweep.param_space, values)
            trial = self.sweep.trial(point)
            if trial.trial_id not in known:
                self._own[ray_id] = own
                return trial
            record = self.run.record(trial.trial_id)
            self._searcher.on_trial_complete(own, _last(record), error=_score(self.sweep, record) is None)
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self._own:
            self._searcher.on_trial_result(self._own[trial_id], result)

    def ended(self, trial: TrainConfig, record: TrialRecord | None, ray_id: str | None = None) -> None:
        """Learn the last value of the sweep's metric."""
        score = _score(self.sweep, record)
        if ray_id in self._own:
            self._searcher.on_trial_complete(self._own.pop(str(ray_id)), _last(record), error=score is None)
            return
        # Values of other backbones' domains have no effect; a searcher wants some.
        values = draw(self.sweep.param_space, 0)
        values |= {n: v for n in values if (v := _value(trial, n)) is not None}
        try:
            self._searcher.add_evaluated_point(values, score, error=score is None)
        except (NotImplementedError, ValueError, TypeError) as error:
            why = one_line(error, 200) or "it accepts no results of other trials"
            print(f"{type(self._searcher).__name__} learns nothing from {trial.trial_id}: {why}", flush=True)


def _value(trial: TrainConfig, name: str) -> Any:
    """Return a trial's value of a domain; None if it is of another backbone."""
    field, _, model = name.partition("@")
    return None if model and model != trial.model else getattr(trial, field)


def _last(record: TrialRecord | None) -> dict[str, Any] | None:
    """Return the last epoch's metrics, with the name of the epoch that Ray's searchers expect."""
    return {**record.history[-1], "training_iteration": len(record.history)} if record and record.history else None


def _score(sweep: Sweep, record: TrialRecord | None) -> float | None:
    """Return the last finite value of the sweep's metric."""
    rows = record.history if record is not None else []
    values = [v for row in rows if (v := row.get(sweep.metric)) is not None and math.isfinite(v)]
    return values[-1] if values else None
