"""Ray Tune's side of a search: a Searcher that proposes its trials and a scheduler that stops them at rungs.

Both only ask `sousaphone.search`, with the plan and the records on disk, and keep nothing but what is running. Thus
there is no state that Ray could lose or restore wrongly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sousaphone.config import Sweep, TrainConfig
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.search.progress import Progress
from sousaphone.sweep.proposals import Proposals


class SearchProposals(Proposals):
    """Proposes what `Progress.next_trial` returns: a new configuration, or one that continues to its next rung."""

    def begin(self, run: RunDirectory, sweep: Sweep, left: Sequence[TrainConfig]) -> None:
        self._again = {trial.trial_id for trial in left}
        self._live: dict[str, int] = {}  # the index of the rung to which each running trial goes
        super().begin(run, sweep, left)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        found = None if self._too_late else self._progress().next_trial(self._live)
        if found is None:
            return None if self._running else str(Searcher.FINISHED)
        progress, name, rung = found
        trial = progress.trials[name]
        if name not in self.run.read_plan()["trial_ids"]:
            self.run.append_trials([trial], search=dataclasses.asdict(progress.search))
        self._again.discard(name)
        self._running[trial_id], self._live[name] = trial, rung
        return dataclasses.asdict(trial)

    def ended(self, trial: TrainConfig, record: TrialRecord | None, ray_id: str | None = None) -> None:
        self._live.pop(trial.trial_id, None)

    def stops(self, name: str) -> bool:
        """Whether a trial that has reported an epoch stops; otherwise it may go on to its next rung."""
        progress = self._progress()
        if progress.stops(name, self._live):
            return True
        if progress.is_at_rung(name, self._live[name]):
            self._live[name] += 1
        return False

    def _progress(self) -> Progress:
        return Progress.read(self.run, self._again)


class Rungs(FIFOScheduler):
    """Stops a trial at its rung, unless it is the next to be promoted."""

    def __init__(self, proposals: SearchProposals) -> None:
        super().__init__()
        self._proposals = proposals

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self.STOP if self._proposals.stops(str(trial)) else self.CONTINUE)
