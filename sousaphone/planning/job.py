"""`Job`: a resolved command line, and what is left to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sousaphone.config import Sweep, TrainConfig
from sousaphone.planning.sweep_options import Request
from sousaphone.runs.directory import Limits, RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.design import Search
from sousaphone.search.progress import Progress
from sousaphone.space import searched


@dataclass(frozen=True)
class Job:
    """A resolved command line."""

    directory: RunDirectory
    request: Request
    config: str  # the sweep's name in tune_configs, or that of its file without .py
    sweep: Sweep
    trials: tuple[TrainConfig, ...]  # all planned trials, finished ones included
    limits: Limits  # without the deadline of a launch
    config_file: str = ""  # the sweep's Python file, absolute; empty: a module of tune_configs
    plan: dict[str, Any] | None = None  # content of run.json; None for a new run
    added: tuple[str, ...] = ()  # ids of the trials that --extend adds
    promoted_from: Mapping[str, Any] = field(default_factory=dict)  # run and trial of --promote, or empty
    retry_failed: bool = False
    time_limit: float | None = None  # of this launch, s; None: no limit
    baselines: bool = True  # whether they are measured before the trials
    tracker: str = "none"  # destination of metrics in addition to TensorBoard; may differ between launches
    remarks: tuple[str, ...] = ()  # automatic choices, for the terminal
    command: str = ""  # of this launch, which run.json records

    @property
    def trial_ids(self) -> list[str]:
        return [trial.trial_id for trial in self.trials]

    def at(self, data_dir: str) -> Job:
        """Return the job with this data directory and with the cache directory of this machine."""
        places: dict[str, Any] = {"data_dir": data_dir, "cache_dir": self.request.cache_dir}
        return dataclasses.replace(
            self,
            trials=tuple(dataclasses.replace(trial, **places) for trial in self.trials),
            sweep=dataclasses.replace(self.sweep, param_space={**self.sweep.param_space, **places}),
        )

    @property
    def proposals_left(self) -> int:
        """The number of trials that the sweep's searcher has yet to propose."""
        planned = (self.plan or {}).get("planned", self.sweep.num_samples)  # fewer if its space was exhausted
        if self.sweep.search is not None:
            planned = self.sweep.num_samples if self.is_searching else 0  # finalists are none of its proposals
        return 0 if self.sweep.searcher is None else max(0, planned - len(self.trials))

    def expected(self) -> list[TrainConfig]:
        """Return stand-ins for the trials that are yet to be proposed, with the settings of those planned first."""
        first = list({trial.model: trial for trial in reversed(self.trials)}.values())
        numbers = range(self.proposals_left)
        return [dataclasses.replace(first[n % len(first)], tag=f"proposal-{n + 1}") for n in numbers]

    def with_search(self, search: Search) -> Job:
        """Return the job with another design of its search."""
        samples = search.configurations * len(search.models)
        return dataclasses.replace(self, sweep=dataclasses.replace(self.sweep, search=search, num_samples=samples))

    def progress(self, search: Search) -> Progress:
        """Return what the records show of a search."""
        records, left = self.records(), {trial.trial_id for trial in self.left()}
        again = {name for name, record in records.items() if record.status.has_ended and name in left}
        return Progress(search, dict(zip(self.trial_ids, self.trials, strict=True)), records, again)

    @property
    def is_searching(self) -> bool:
        """Whether the sweep is a search whose finalists are not planned yet."""
        search = self.sweep.search
        if search is None or self._has_finalists or not self.trials:
            return False
        if self.plan is None:
            return True
        progress = self.progress(search)
        return not progress.is_complete or bool(progress.finalists())

    @property
    def _has_finalists(self) -> bool:
        return any(trial.score_test for trial in self.trials)

    @property
    def is_growing(self) -> bool:
        """Whether the sweep's searcher may still propose trials, or continue them."""
        return bool(self.proposals_left) or self.is_searching

    @property
    def planned(self) -> int:
        """The number of trials at the end of a sweep whose trials a searcher proposes, finalists included."""
        return len(self.trials) + self.proposals_left + self._finalists_left * len(self.request.seeds)

    @property
    def arms_left(self) -> int:
        """The number of arms that the sweep's searcher has yet to propose, finalists included."""
        return self.proposals_left + self._finalists_left

    @property
    def _finalists_left(self) -> int:
        search = self.sweep.search
        return len(search.models) * search.all_finalists if self.is_searching else 0

    @property
    def searched(self) -> list[str]:
        """The settings that the sweep varies, except for the seed."""
        search, space = self.sweep.search, self.sweep.param_space
        if search is not None:
            return list(dict.fromkeys(name for model in search.models for name in search.varied(model)))
        return list(dict.fromkeys(name for trial in self.trials for name in searched(space, trial.model)))

    @property
    def most_at_once(self) -> int:
        """The number of trials that could run at a time if there were places for all."""
        return self.sweep.num_samples if self.is_searching else len(self.left()) + self.proposals_left

    def trial(self, trial_id: str) -> TrainConfig:
        return self.trials[self.trial_ids.index(trial_id)]

    def current(self) -> Job:
        """Return the job with the trials of run.json, to which a searcher adds."""
        plan = self.directory.read_plan()
        with self.directory.checking():
            trials = tuple(TrainConfig(**trial) for trial in plan["trials"])
        job = dataclasses.replace(self, plan=plan, trials=trials)
        return job if self.sweep.search is None else job.with_search(Progress.read(self.directory).search)

    def records(self) -> dict[str, TrialRecord]:
        """Return the existing records by trial, without damaged ones."""
        return {name: record for name in self.trial_ids if (record := self.directory.record(name)) is not None}

    def left(self) -> list[TrainConfig]:
        """Return the trials to run now; of a search whose finalists are known, only these."""
        records, final = self.records(), self.sweep.search is not None and self._has_finalists
        trials = [trial for trial in self.trials if trial.score_test or not final]
        return [trial for trial in trials if self._is_left(records.get(trial.trial_id))]

    @property
    def is_done(self) -> bool:
        """Whether the run exists and none of its trials is left."""
        return self.plan is not None and not self.added and not self.is_growing and not self.left()

    @property
    def has_model(self) -> bool:
        """Whether a trial has finished, so that its model can be exported."""
        finished = {name for name, each in self.records().items() if each.status.is_full}
        return any(trial.score_test and trial.trial_id in finished for trial in self.trials)

    def all_ended_well(self) -> bool:
        """Whether every planned trial ended well, with a result. A search may try settings that diverge."""
        records = self.records()
        tried = () if self.sweep.search is None else self.sweep.search.proposals
        ended = len(records) == len(self.trials) and not self.is_growing
        return ended and all(
            (each.status.is_good and each.history) or (each.status is Status.DIVERGED and name in tried)
            for name, each in records.items()
        )

    def _is_left(self, record: TrialRecord | None) -> bool:
        if record is None or not record.status.has_ended:
            return True
        if record.status is Status.TIME_LIMIT:  # it resumes after a sweep's limit, or under a longer limit of its own
            limit = self.limits.trial_seconds
            return limit is None or record.seconds < limit
        return self.retry_failed and record.status.is_retried
