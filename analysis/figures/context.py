"""What every figure is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.figures.style import paled
from analysis.load.trials import Trial
from analysis.stats.arms import Arm, Look, arms, best_of_each, by_validation, looks


@dataclass(frozen=True)
class Mark:
    """A simple way to tell the rudiments, which the arms are held against; fractions, None where unknown."""

    title: str
    val_acc: float | None
    test_acc: float | None


@dataclass(frozen=True, eq=False)
class Scene:
    """A run as its figures see it."""

    trials: Sequence[Trial]
    predictions: pd.DataFrame  # as `analysis.load.predictions.read_predictions` gives them, but no logits; may be empty
    baselines: Sequence[Mark]
    cpu_ms: Mapping[str, float]  # milliseconds of one core that a clip takes, by trial_id
    # Of what a trial learnt, as a file, by trial_id; like cpu_ms, missing where unknown.
    adapter_bytes: Mapping[str, float]
    banner: str | None  # what stands over every figure

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
        """The best arm by validation of each backbone, of those whose predictions are at hand."""
        return best_of_each(self.groups, self._by_trial.keys())

    def rows(self, arm: Arm) -> pd.DataFrame:
        """The predictions of the trials that the arm shows; empty where there are none."""
        found = [self._by_trial[t.trial_id] for t in arm.shown if t.trial_id in self._by_trial]
        return pd.concat(found) if found else self.predictions.iloc[:0]

    def scored(self, arm: Arm) -> list[str]:
        """The trials that `rows` holds."""
        return [trial.trial_id for trial in arm.shown if trial.trial_id in self._by_trial]

    def look(self, arm: Arm) -> Look:
        return self.looks[arm.model]

    def shade(self, arm: Arm) -> str:
        """The arm's colour; pale where its results are partial."""
        colour = self.looks[arm.model].colour
        return colour if arm.full else paled(colour)

    @cached_property
    def _by_trial(self) -> dict[str, pd.DataFrame]:
        known = {trial.trial_id for trial in self.trials}
        groups = self.predictions.groupby("trial_id", observed=True, sort=False) if len(self.predictions) else ()
        return {str(name): rows for name, rows in groups if str(name) in known}
