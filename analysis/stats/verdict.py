"""The verdict: which backbone to use, with its uncertainty.

Selecting an arm on the test clips, or testing many pairs, would overstate differences. Therefore the best arm and its
rival are selected on validation alone, and one contrast between them is tested on the test players, who are used
neither for training nor for selection. All other pairs are reported with adjusted p values (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from analysis.load.predictions import correct_by_clip
from analysis.load.trials import Trial, unlike
from analysis.stats.arms import Arm, arms, best_of_each, by_validation
from analysis.stats.statistics import POWER, SEEDS_FOR_SPREAD, Contrast, contrast, holm
from sousaphone.config import FEW_PLAYERS
from sousaphone.text import counted

EQUIVALENT = 0.02  # accuracies that differ by less are equivalent
SHOWN_POWER = 0.10  # true difference for which the report gives the power
MOST_TRAINABLE, MOST_CPU_MS = 2_000_000, 10.0
UNKNOWN_PLAYERS = (
    "Players are unknown: each group of recordings with the same name stem counts as one player. One person may be in "
    "both training and test, and the intervals are valid only if the groups are of different people."
)


@dataclass(frozen=True)
class Pair:
    """Two arms compared on the test players; `p` may be adjusted for the number of pairs."""

    first: Arm
    second: Arm
    contrast: Contrast
    p: float


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run's comparison."""

    # better, equivalent, undecided, contradicted (the rival is better on test), too_few_players, nothing_to_compare,
    # not_alike (measured under different conditions), or none (nano backbones or random weights)
    outcome: str
    headline: str
    details: Sequence[str] = ()  # uncertainty, caveats, and the data needed for a decision
    winner: Arm | None = None  # selected on validation
    rival: Arm | None = None  # selected on validation
    chosen: Contrast | None = None  # contrast of winner and rival on the test players
    others: Sequence[Pair] = ()  # all other pairs of the backbones' best arms
    augmentation: Sequence[Pair] = ()  # augmented minus unaugmented, for each backbone with both


def judge(
    trials: Sequence[Trial],
    predictions: pd.DataFrame,
    banner: str | None,
    cpu_ms: Mapping[str, float],
    players_known: bool = True,
) -> Verdict:
    """Compare the arms of a run; see `Findings` for the arguments. A run with a banner gets no verdict."""
    full = [arm for arm in arms(trials) if arm.full]
    scored = set(predictions.trial_id)
    groups = [arm for arm in full if any(trial.trial_id in scored for trial in arm.shown)]
    augmentation = _augmentation_pairs(groups, predictions)
    if banner:
        return Verdict("none", banner, augmentation=augmentation)
    # The best arm of each backbone, the best first; with one backbone, all of its arms.
    field = best_of_each(groups)
    field = field if len(field) > 1 else by_validation(groups)
    left_out = _left_out(trials, groups)
    if len(field) < 2:
        return Verdict("nothing_to_compare", _nothing_to_compare(full, field), left_out, augmentation=augmentation)
    if differ := unlike(trial for arm in groups for trial in arm.shown):
        headline = f"No winner: the arms were not measured under the same conditions ({'; '.join(differ)})."
        return Verdict("not_alike", headline, left_out, augmentation=augmentation)
    winner, rival = field[:2]
    first = _compare(winner, rival, predictions)
    unit = "player" if players_known else "group"
    caveats = [*left_out, *([] if players_known else [UNKNOWN_PLAYERS])]
    if first is None or first.players < FEW_PLAYERS:
        headline = (
            f"No winner: the test clips are of {players_text(1 if first is None else first.players, unit)}; at least "
            f"{FEW_PLAYERS} are needed to decide whether a difference between two models holds for other {unit}s. On "
            f"validation {winner.label} is ahead of {rival.label}, without a test of significance."
        )
        details = [_selection(winner, rival), *caveats]
        return Verdict("too_few_players", headline, details, winner, rival, first, augmentation=augmentation)
    outcome, headline = _outcome(winner, rival, first, unit)
    details = [_scope(first, unit), *_data_needed(outcome, first, unit)]
    details += [_selection(winner, rival), _constraints(full, cpu_ms), *caveats]
    others = _pairs([pair for pair in combinations(field, 2) if pair != (winner, rival)], predictions)
    adjusted = holm([pair.p for pair in others])
    others = [replace(pair, p=p) for pair, p in zip(others, adjusted, strict=True)]
    return Verdict(outcome, headline, details, winner, rival, first, others, augmentation)


def _left_out(trials: Sequence[Trial], groups: Sequence[Arm]) -> list[str]:
    """Name the planned arms that are not compared, with the reason, in one sentence; empty if there are none."""
    judged = {arm.label for arm in groups}
    others = [arm for arm in arms(trials) if arm.label not in judged]
    names = [f"{arm.label} ({'its test predictions cannot be read' if arm.full else arm.state})" for arm in others]
    return [f"Not compared: {', '.join(names)}."] if names else []


def _nothing_to_compare(full: Sequence[Arm], field: Sequence[Arm]) -> str:
    if not full:
        return "No verdict yet: no trial has finished."
    if not field:
        return "No verdict: no finished trial has test predictions."
    only = "has finished" if len(full) == 1 else "has test predictions"
    return f"No verdict: only {field[0].label} {only}; there is nothing to compare it with."


def _compare(first: Arm, second: Arm, predictions: pd.DataFrame) -> Contrast | None:
    """Compare two arms on their common test clips; None for fewer than two players."""
    (correct, players), (other, _) = (
        correct_by_clip(predictions, [trial.trial_id for trial in arm.shown]) for arm in (first, second)
    )
    try:
        return contrast(correct, other, players)
    except ValueError:
        return None


def _outcome(winner: Arm, rival: Arm, found: Contrast, unit: str) -> tuple[str, str]:
    """Return the outcome and the headline of a contrast."""
    names = f"{winner.label} and {rival.label}"
    sign = -1 if found.significant and found.difference < 0 else 1
    low, high = sorted((100 * sign * found.low, 100 * sign * found.high))
    difference = (
        f"{_points(sign * found.difference)} of accuracy (95 % interval {low:+.1f} to {high:+.1f}; sign-flip p "
        f"{'' if found.p_flip < 0.001 else '= '}{_p(found.p_flip)}; {players_text(found.players, unit)}, "
        f"{found.clips:,} clips)"
    )
    if found.significant and found.difference > 0:
        small = f" However, the difference is smaller than {_points(EQUIVALENT)}." if found.high < EQUIVALENT else ""
        return "better", f"Use {winner.label}: it is better than {rival.label} by {difference}.{small}"
    if found.significant:
        return "contradicted", (
            f"Undecided: {winner.label} is better on validation, but {rival.label} is better on the test {unit}s by "
            f"{difference}. More validation {unit}s would make the selection more reliable."
        )
    if found.low > -EQUIVALENT and found.high < EQUIVALENT:
        return "equivalent", (
            f"{names} are equivalent: they differ by {difference}, which is within ±{_points(EQUIVALENT)}. Use the "
            "cheaper one."
        )
    return "undecided", f"Undecided between {names}: on the test {unit}s they differ by {difference}."


def players_text(number: int | None, unit: str) -> str:
    """Format a number of players: `8 players`, or `8 groups of recordings (players unknown)`."""
    return counted(number, unit) + ("" if unit == "player" else " of recordings (players unknown)")


def _scope(found: Contrast, unit: str) -> str:
    """State whether the result holds for the backbones or only for the trained models."""
    if found.seed_parts:
        seeds = " and ".join(dict.fromkeys(map(str, found.seeds)))
        return (
            f"The interval covers other {unit}s and other seeds ({seeds} per arm), so the result holds for the "
            "backbones as fine-tuned here."
        )
    return (
        f"The result holds for these trained models, not for the backbones: with fewer than {SEEDS_FOR_SPREAD} seeds "
        "per arm, the variation between trainings is unknown (add seeds with --extend --seeds 0 1 2)."
    )


def _data_needed(outcome: str, found: Contrast, unit: str) -> list[str]:
    """State the power and, unless the result is decided, how many players a decision would need."""
    power = f"The power to detect a true difference of {_points(SHOWN_POWER)} is {found.power(SHOWN_POWER):.0%}."
    if outcome not in ("undecided", "contradicted"):
        return [power]
    size = abs(found.difference)
    if size >= EQUIVALENT:
        goal, players_for = f"to detect a true difference of {_points(size)}", found.players_for
    else:
        goal, players_for = "to show that they are equivalent", found.players_for_equivalence
    options = []
    for clips in (found.clips / found.players, 4 * found.clips / found.players):
        if (players := players_for(max(size, EQUIVALENT), clips)) is not None:
            options.append(f"{players:,} test {unit}s with {clips:.0f} clips each ({players * clips:,.0f} clips)")
    if not options:
        needed = f"No number of {unit}s is enough {goal}: the variance between seeds is too large. Add seeds."
    else:
        needed = f"About {', or '.join(options)} are needed {goal} with a power of {POWER:.0%}."
    return [needed, power]


def _selection(winner: Arm, rival: Arm) -> str:
    selected = f"Both were selected on validation (macro F1 {winner.score:.3f} and {rival.score:.3f})"
    best = ", each as the best arm of its backbone; test clips were not used"
    return f"{selected}{best if winner.model != rival.model else ''}."


def _constraints(full: Sequence[Arm], cpu_ms: Mapping[str, float]) -> str:
    """Recommend the best finished arm (on validation) under a limit of parameters and of CPU time, in one sentence."""
    trainable = [arm.shown[0].trainable_params for arm in full]
    times = [cpu_ms.get(arm.shown[0].trial_id) for arm in full]
    clauses = []
    for limit, costs, most in (
        (f"{MOST_TRAINABLE / 1e6:g} M trainable parameters", trainable, MOST_TRAINABLE),
        (f"{MOST_CPU_MS:g} ms per clip on this CPU", times, MOST_CPU_MS),
    ):
        known = [(arm, cost) for arm, cost in zip(full, costs, strict=True) if cost is not None]
        fitting = [arm for arm, cost in known if cost <= most]
        if not known:
            clauses.append(f"under {limit}: not measured")
        elif not fitting:
            clauses.append(f"under {limit}: none")
        else:
            best = max(fitting, key=lambda arm: arm.score)
            clauses.append(f"under {limit}: {best.label} (validation macro F1 {best.score:.3f})")
    return f"Best {'; '.join(clauses)}."


def _pairs(pairs: Sequence[tuple[Arm, Arm]], predictions: pd.DataFrame) -> list[Pair]:
    """Compare the pairs that have enough players; p values are not adjusted."""
    found = [(first, second, _compare(first, second, predictions)) for first, second in pairs]
    return [Pair(first, second, each, each.p) for first, second, each in found if each is not None]


def _augmentation_pairs(groups: Sequence[Arm], predictions: pd.DataFrame) -> list[Pair]:
    """Compare augmented with unaugmented arms that were measured under equal conditions; p is not adjusted."""
    arms_of: dict[tuple[str, str, str], dict[bool, Arm]] = {}
    for arm in groups:
        arms_of.setdefault((arm.model, arm.strategy, arm.lora_targets), {})[arm.augment] = arm
    pairs = [(found[True], found[False]) for found in arms_of.values() if len(found) == 2]
    return _pairs([(on, off) for on, off in pairs if not unlike([*on.shown, *off.shown])], predictions)


def pair_rows(pairs: Sequence[Pair]) -> list[Sequence[str]]:
    """Return table rows of pairs: names, difference, interval, p, players."""
    return [
        (
            f"{pair.first.label} − {pair.second.label}",
            f"{100 * pair.contrast.difference:+.1f}",
            f"{100 * pair.contrast.low:+.1f} to {100 * pair.contrast.high:+.1f}",
            _p(pair.p),
            str(pair.contrast.players),
        )
        for pair in pairs
    ]


def _points(fraction: float) -> str:
    value = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{value} percentage point{'' if value == '1' else 's'}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
