"""The data that all figures of a report are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from analysis.figures.style import paled
from analysis.load.trials import Trial
from analysis.stats.arms import Arm, Look, arms, best_of_each, by_validation, looks


@dataclass(frozen=True)
class Mark:
    """A baseline's name and accuracies, which are fractions, None if unknown."""

    title: str
    val_acc: float | None
    test_acc: float | None


@dataclass(frozen=True, eq=False)
class Scene:
    """The results of a run, as its figures need them."""

    trials: Sequence[Trial]
    predictions: pd.DataFrame  # of `analysis.load.predictions.read_predictions`, without logits; may be empty
    baselines: Sequence[Mark]
    cpu_ms: Mapping[str, float]  # milliseconds of one core for each clip, by trial_id; missing if unknown
    adapter_bytes: Mapping[str, float]  # size of the file with the trained weights, by trial_id; missing if unknown
    banner: str | None  # a warning shown at the top of every PNG

    @cached_property
    def groups(self) -> list[Arm]:
        """The arms, the best by validation (macro F1) first."""
        return by_validation(arms(self.trials)) if self.trials else []

    @cached_property
    def looks(self) -> Mapping[str, Look]:
        return looks(self.trials)

    @cached_property
    def models(self) -> list[str]:
        """The run's backbones, in the order of the legend."""
        present = {trial.config.get("model", "") for trial in self.trials}
        return [model for model in self.looks if model in present]

    @cached_property
    def best(self) -> list[Arm]:
        """The best arm by validation of each backbone, among those with predictions."""
        return best_of_each(self.groups, self._by_trial.keys())

    def rows(self, arm: Arm) -> pd.DataFrame:
        """The predictions of the trials that the arm shows; empty if there are none."""
        found = [self._by_trial[t.trial_id] for t in arm.shown if t.trial_id in self._by_trial]
        return pd.concat(found) if found else self.predictions.iloc[:0]

    def scored(self, arm: Arm) -> list[str]:
        """The ids of the trials in `rows`."""
        return [trial.trial_id for trial in arm.shown if trial.trial_id in self._by_trial]

    def look(self, arm: Arm) -> Look:
        """The arm's shape and colour; the colour is pale if its results are partial."""
        look = self.looks[arm.model]
        return look if arm.full else replace(look, colour=paled(look.colour))

    @cached_property
    def _by_trial(self) -> dict[str, pd.DataFrame]:
        known = {trial.trial_id for trial in self.trials}
        groups = self.predictions.groupby("trial_id", observed=True, sort=False) if len(self.predictions) else ()
        return {str(name): rows for name, rows in groups if str(name) in known}
