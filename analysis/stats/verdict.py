"""The verdict: which backbone to use, with its uncertainty. Its wording is in `verdict_text`.

Selecting an arm on the test clips, or testing many pairs, would overstate differences. Therefore the best arm and its
rival are selected on validation alone, and one contrast between them is tested on the test players, who are used
neither for training nor for selection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import pandas as pd

from analysis.load.predictions import correct_by_clip
from analysis.load.trials import Trial, unlike
from analysis.stats.arms import Arm, arms, best_of_each, by_validation
from analysis.stats.contrast import Contrast, contrast, seed_spread
from analysis.stats.pairs import compare
from analysis.stats.power import players_for, power
from sousaphone.config import FEW_PLAYERS
from sousaphone.runs.deployment import RuntimeCost

EQUIVALENT = 0.02  # accuracies that differ by less are equivalent
TRUE_DIFFERENCES = (0.05, 0.10)  # for which the power and the number of players needed are given
MOST_TRAINABLE, MOST_CPU_MS, MOST_DEPLOYED_MS = 2_000_000, 10.0, 50.0


class Outcome(StrEnum):
    """Outcome of the comparison of winner and rival, both selected on validation, on the test players."""

    BETTER = "better"  # the winner is better than the rival, and than the best baseline if that was measured
    NOT_ABOVE_BASELINE = "not_above_baseline"  # better than the rival, but not shown to be better than a baseline
    EQUIVALENT = "equivalent"
    CONTRADICTED = "contradicted"  # the rival is better
    UNDECIDED = "undecided"
    TOO_FEW_PLAYERS = "too_few_players"
    NOTHING_TO_COMPARE = "nothing_to_compare"
    NOT_ALIKE = "not_alike"  # measured under different conditions
    NONE = "none"  # nano backbones or random weights


@dataclass(frozen=True)
class Lead:
    """The winner's accuracy minus that of the best baseline (selected on validation), on the same test clips."""

    baseline: str  # title
    contrast: Contrast

    @property
    def shown(self) -> bool:
        """Whether the winner is better."""
        return self.contrast.significant and self.contrast.difference > 0


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run's comparison."""

    outcome: Outcome
    why: str = ""  # the banner, or the conditions that differ
    planned: Sequence[Arm] = ()  # all arms of the run
    groups: Sequence[Arm] = ()  # those with all their results and test predictions
    compared: Sequence[Arm] = ()  # the best arm of each backbone, the best first; with one backbone, all of its arms
    chosen: Contrast | None = None  # winner minus rival on the test players
    lead: Lead | None = None  # None: not measured
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    players_known: bool = True
    deployed: Mapping[str, RuntimeCost] = field(default_factory=dict)  # the fastest runtime, by trial_id

    @property
    def winner(self) -> Arm | None:
        """The best arm on validation, if it was compared."""
        return self.compared[0] if self.chosen is not None else None

    @property
    def rival(self) -> Arm | None:
        """The next best arm on validation, if it was compared."""
        return self.compared[1] if self.chosen is not None else None

    @property
    def of_backbones(self) -> bool:
        """Whether the result holds for the backbones; if not, only for these trained models."""
        return self.chosen is not None and bool(self.chosen.seed_parts)

    def power(self, true: float) -> float:
        """Return the probability of the outcome "better" if the winner's true lead over its rival is `true`."""
        return power(self._tests(true))

    def players_for(self, true: float) -> int | None:
        """Return the number of players needed for a `true` difference; None if no realistic number is enough."""
        return players_for(self._tests(true))

    def _tests(self, true: float) -> list[tuple[Contrast, float]]:
        if self.chosen is None:
            raise ValueError("nothing was compared")
        leads = [(self.lead.contrast, self.lead.contrast.difference)] if self.lead is not None else []
        return [(self.chosen, true), *leads]


def judge(
    trials: Sequence[Trial],
    predictions: pd.DataFrame,
    banner: str | None,
    cpu_ms: Mapping[str, float],
    players_known: bool = True,
    baseline: tuple[str, pd.DataFrame] | None = None,
    deployed: Mapping[str, RuntimeCost] = MappingProxyType({}),
) -> Verdict:
    """Compare the arms of a run; see `Findings` for the arguments. A run with a banner gets no verdict.

    `baseline` is the title of the best baseline and its predictions (sample_id, player, correct); `deployed` is the
    fastest runtime of trials with a deploy card.
    """
    planned = arms(trials)
    scored = set(predictions.trial_id.unique())
    groups = [arm for arm in planned if arm.full and any(trial.trial_id in scored for trial in arm.shown)]
    compared = best_of_each(groups)
    compared = compared if len(compared) > 1 else by_validation(groups)

    def found(outcome: Outcome, why: str = "", chosen: Contrast | None = None, lead: Lead | None = None) -> Verdict:
        return Verdict(outcome, why, planned, groups, compared, chosen, lead, cpu_ms, players_known, deployed)

    if banner:
        return found(Outcome.NONE, banner)
    if len(compared) < 2:
        return found(Outcome.NOTHING_TO_COMPARE)
    if differ := unlike(trial for arm in groups for trial in arm.shown):
        return found(Outcome.NOT_ALIKE, "; ".join(differ))
    pooled = seed_spread(_accuracies(groups, predictions))
    chosen = compare(compared[0], compared[1], predictions, pooled)
    if chosen is None or chosen.players < FEW_PLAYERS:
        return found(Outcome.TOO_FEW_PLAYERS, chosen=chosen)
    lead = _lead(compared[0], predictions, baseline, pooled)
    return found(_outcome(chosen, lead), chosen=chosen, lead=lead)


def _outcome(chosen: Contrast, lead: Lead | None) -> Outcome:
    if chosen.significant and chosen.difference < 0:
        return Outcome.CONTRADICTED
    if chosen.significant:
        return Outcome.BETTER if lead is None or lead.shown else Outcome.NOT_ABOVE_BASELINE
    if chosen.low > -EQUIVALENT and chosen.high < EQUIVALENT:
        return Outcome.EQUIVALENT
    return Outcome.UNDECIDED


def _accuracies(groups: Sequence[Arm], predictions: pd.DataFrame) -> list[list[float]]:
    """The test accuracy, as a mean over players, of each arm's trials."""
    by_player = predictions.groupby(["trial_id", "player"], observed=True).correct.mean()
    means = by_player.groupby("trial_id", observed=True).mean().to_dict()
    return [[means[trial.trial_id] for trial in arm.shown if trial.trial_id in means] for arm in groups]


def _lead(
    winner: Arm,
    predictions: pd.DataFrame,
    baseline: tuple[str, pd.DataFrame] | None,
    pooled: tuple[float, float] | None,
) -> Lead | None:
    """Compare the winner with the best baseline; None without its predictions on the same players."""
    if baseline is None:
        return None
    title, rows = baseline
    correct, players = correct_by_clip(predictions, [trial.trial_id for trial in winner.shown])
    try:
        return Lead(title, contrast(correct, rows.set_index("sample_id")[["correct"]], players, True, pooled))
    except ValueError:
        return None
