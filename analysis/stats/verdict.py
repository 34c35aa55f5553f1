"""Which backbone to use, and how sure one may be: the arms are chosen on validation, one contrast is tested on test.

Whoever looks at the test clips to choose is fooled by luck, and whoever tests many pairs finds one. So the best arm and
its rival are named by validation alone, and the test players, whom neither training nor choosing has heard, answer
one question: is that one better than this one? All other pairs stand below, their p values adjusted (Holm).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from analysis.load.predictions import correct_by_clip, scored_trials
from analysis.load.trials import Trial, unlike
from analysis.stats.arms import Arm, arms, best_of_each, title
from analysis.stats.statistics import SEEDS_FOR_SPREAD, Contrast, contrast, holm
from sousaphone.config import FEW_PLAYERS
from sousaphone.text import counted

EQUIVALENT = 0.02  # accuracies that differ by less than this are the same for all that matters
POWER = 0.8
SHOWN_POWER = 0.10  # the true difference for which the report says how often such a sweep would find it
MOST_TRAINABLE, MOST_CPU_MS = 2_000_000, 10.0
UNKNOWN_PLAYERS = (
    "Players were unknown: what counts as a player here is a group of recordings with one name stem. One person may be "
    "in training and in test, and intervals hold only as far as the groups are of different people."
)


@dataclass(frozen=True)
class Pair:
    """Two arms compared on the test players; `p` is adjusted for the number of pairs it stands among."""

    first: Arm
    second: Arm
    contrast: Contrast
    p: float


@dataclass(frozen=True)
class Verdict:
    """What may be said of which arm is best."""

    # better, equivalent, undecided, contradicted (test says the rival is better), too_few_players, nothing_to_compare,
    # not_alike (measured under different conditions), or none (nano or random weights)
    outcome: str
    headline: str
    details: Sequence[str] = ()  # how sure, and what it would take to be surer
    winner: Arm | None = None  # chosen on validation
    rival: Arm | None = None  # chosen on validation
    chosen: Contrast | None = None  # `contrast` of the two on the test players
    others: Sequence[Pair] = ()  # all other pairs of the backbones' best arms
    augmentation: Sequence[Pair] = ()  # augmented against unaugmented, for each backbone that has both


def judge(
    trials: Sequence[Trial],
    predictions: pd.DataFrame,
    banner: str | None,
    cpu_ms: Mapping[str, float],
    players_known: bool = True,
) -> Verdict:
    """Come to a verdict on a run.

    Args:
        predictions: see `analysis.load.predictions.read_predictions`.
        banner: what stands above runs that say nothing about the published models; they get no verdict.
        cpu_ms: milliseconds of one core that a clip takes, by trial_id.
        players_known: False where what counts as a player is a group of recordings with one name stem.
    """
    scored = scored_trials(predictions)
    full = [arm for arm in arms(trials) if arm.full]
    groups = [arm for arm in full if any(trial.trial_id in scored for trial in arm.shown)]
    augmentation = augmentation_pairs(groups, predictions)
    if banner:
        return Verdict("none", f"No verdict. {banner}", augmentation=augmentation)
    # The best arm of each backbone, the best first; with one backbone, all of its arms.
    field = best_of_each(groups, scored)
    field = field if len(field) > 1 else sorted(groups, key=lambda arm: -arm.score)
    left_out = _left_out(trials, groups)
    if len(field) < 2:
        return Verdict("nothing_to_compare", _too_little(full, field), left_out, augmentation=augmentation)
    if differ := unlike(trial for arm in groups for trial in arm.shown):
        headline = f"No winner: the arms were not measured under the same conditions ({'; '.join(differ)})."
        return Verdict("not_alike", headline, left_out, augmentation=augmentation)
    winner, rival = field[:2]
    first = _compare(winner, rival, predictions)
    unit = "player" if players_known else "group"
    caveats = [*left_out, *([] if players_known else [UNKNOWN_PLAYERS])]
    if first is None or first.players < FEW_PLAYERS:
        players = heard(1 if first is None else first.players, unit)
        headline = (
            f"No winner: the test clips are of {players}, and it takes {FEW_PLAYERS} to tell whether a difference "
            f"between two models would be found with other {unit}s. By validation {winner.label} leads {rival.label}, "
            "which is a guess, not a finding."
        )
        details = [_lead(winner, rival), *caveats]
        return Verdict("too_few_players", headline, details, winner, rival, first, augmentation=augmentation)
    outcome, headline = _outcome(winner, rival, first, unit)
    details = [_how_sure(first, unit), *_what_it_takes(outcome, first, unit)]
    details += [_lead(winner, rival), _constraints(full, cpu_ms), *caveats]
    others = _others(field, predictions)
    return Verdict(outcome, headline, details, winner, rival, first, others, augmentation)


def _left_out(trials: Sequence[Trial], groups: Sequence[Arm]) -> list[str]:
    """The planned arms that are not judged, with the reason, in one sentence; empty without any."""
    judged = {arm.label for arm in groups}
    others = [arm for arm in arms(trials) if arm.label not in judged]
    said = [f"{arm.label} ({'its test predictions cannot be read' if arm.full else arm.state})" for arm in others]
    return [f"Not compared: {', '.join(said)}."] if said else []


def _too_little(full: Sequence[Arm], field: Sequence[Arm]) -> str:
    if not full:
        return "No verdict yet: no trial has run to its end."
    if not field:
        return "No verdict: no trial that ran to its end has left its test predictions."
    only = "has run to its end" if len(full) == 1 else "has left its test predictions"
    return f"No verdict: only {field[0].label} {only}, and there is nothing to compare it with."


def _compare(first: Arm, second: Arm, predictions: pd.DataFrame) -> Contrast | None:
    """Two arms on their common test clips; None where fewer than two players were heard."""
    rights = [correct_by_clip(predictions, [trial.trial_id for trial in arm.shown]) for arm in (first, second)]
    try:
        return contrast(rights[0][0], rights[1][0], rights[0][1])
    except ValueError:
        return None


def _outcome(winner: Arm, rival: Arm, found: Contrast, unit: str) -> tuple[str, str]:
    names, told = f"{winner.label} and {rival.label}", _told(found, unit)
    if found.significant and found.difference > 0:
        small = f" The difference is smaller than {_points(EQUIVALENT)}, though." if found.high < EQUIVALENT else ""
        return "better", f"Use {winner.label}: it is better than {rival.label}, by {told}.{small}"
    if found.significant:
        return "contradicted", (
            f"Undecided: validation prefers {winner.label}, but on the test {unit}s {rival.label} is better, by "
            f"{_told(found, unit, sign=-1)}. More validation {unit}s would make the choice surer."
        )
    if found.low > -EQUIVALENT and found.high < EQUIVALENT:
        return "equivalent", (
            f"{names} are equivalent: they differ by {told}, which lies within ±{_points(EQUIVALENT)}. Take the one "
            "that costs less."
        )
    return "undecided", f"Undecided between {names}: on the test {unit}s they differ by {told}."


def heard(number: int | None, unit: str) -> str:
    """`8 players`, or `8 groups of recordings (players unknown)`."""
    return counted(number, unit) + ("" if unit == "player" else " of recordings (players unknown)")


def _told(found: Contrast, unit: str, sign: int = 1) -> str:
    low, high = sorted((100 * sign * found.low, 100 * sign * found.high))
    p = f"{'' if found.p_flip < 0.001 else '= '}{_p(found.p_flip)}"
    return (
        f"{_points(sign * found.difference)} of accuracy (95 % interval {low:+.1f} to {high:+.1f}; sign-flip p {p}; "
        f"{heard(found.players, unit)}, {found.clips:,} clips)"
    )


def _how_sure(found: Contrast, unit: str) -> str:
    if found.spread_known:
        seeds = " and ".join(dict.fromkeys(map(str, found.seeds)))
        return (
            f"The interval holds for other {unit}s and for other seeds ({seeds} an arm), so this speaks of the "
            "backbones as they were fine-tuned here."
        )
    return (
        f"This speaks of these trained models, not of the backbones: with fewer than {SEEDS_FOR_SPREAD} seeds an arm "
        "nobody knows how much another training would differ (--extend --seeds 0 1 2)."
    )


def _what_it_takes(outcome: str, found: Contrast, unit: str) -> list[str]:
    seen = (
        f"A true difference of {_points(SHOWN_POWER)} would be found in {found.power(SHOWN_POWER):.0%} of such sweeps."
    )
    if outcome not in ("undecided", "contradicted"):
        return [seen]
    each = found.clips / found.players
    size = abs(found.difference)
    far = size >= EQUIVALENT
    goal = f"to tell a true difference of {_points(size)}" if far else "to call them equivalent"
    ask: Callable[..., int | None] = found.players_for if far else found.players_for_equivalence
    ways = []
    for clips_each in (each, 4 * each):
        if (needed := ask(max(size, EQUIVALENT), clips_each, POWER)) is not None:
            ways.append(f"{needed:,} test {unit}s with {clips_each:.0f} clips each ({needed * clips_each:,.0f} clips)")
    if not ways:
        return [f"No number of {unit}s would be enough {goal}: the spread between seeds hides it. Add seeds.", seen]
    return [f"With a chance of {POWER:.0%}, {goal} takes about {', or '.join(ways)}.", seen]


def _lead(winner: Arm, rival: Arm) -> str:
    told = f"Both were chosen on validation (macro F1 {winner.score:.3f} and {rival.score:.3f})"
    best = ", where they are the best of their backbones; test clips had no part in it"
    return f"{told}{best if winner.model != rival.model else ''}."


def _constraints(full: Sequence[Arm], cpu_ms: Mapping[str, float]) -> str:
    """What to take when something is scarce, in one sentence: chosen by validation among all arms that ran to their
    end."""
    trainable = [arm.shown[0].trainable_params for arm in full]
    times = [cpu_ms.get(arm.shown[0].trial_id) for arm in full]
    said = []
    for words, costs, most in (
        (f"{MOST_TRAINABLE / 1e6:g} M trainable parameters", trainable, MOST_TRAINABLE),
        (f"{MOST_CPU_MS:g} ms a clip on this CPU", times, MOST_CPU_MS),
    ):
        known = [(arm, cost) for arm, cost in zip(full, costs, strict=True) if cost is not None]
        fitting = [arm for arm, cost in known if cost <= most]
        if not known:
            said.append(f"what stays under {words} was not measured")
        elif not fitting:
            said.append(f"none stays under {words}")
        else:
            best = max(fitting, key=lambda arm: arm.score)
            said.append(f"under {words} choose {best.label} (validation macro F1 {best.score:.3f})")
    sentence = "; ".join(said)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _others(field: Sequence[Arm], predictions: pd.DataFrame) -> list[Pair]:
    pairs = _pairs([pair for pair in combinations(field, 2) if pair != (field[0], field[1])], predictions)
    adjusted = holm([pair.p for pair in pairs])
    return [replace(pair, p=p) for pair, p in zip(pairs, adjusted, strict=True)]


def _pairs(pairs: Sequence[tuple[Arm, Arm]], predictions: pd.DataFrame) -> list[Pair]:
    """Those that can be compared; their p values are not adjusted."""
    found = [(first, second, _compare(first, second, predictions)) for first, second in pairs]
    return [Pair(first, second, each, each.p) for first, second, each in found if each is not None]


def augmentation_pairs(groups: Sequence[Arm], predictions: pd.DataFrame) -> list[Pair]:
    """Augmented against unaugmented, for every two arms with all their results that differ in nothing else, the
    conditions of their measurement included; the p values are not adjusted."""
    scored = scored_trials(predictions)
    arms_of: dict[tuple[str, str, str], dict[bool, Arm]] = {}
    for arm in groups:
        if arm.full and any(trial.trial_id in scored for trial in arm.shown):
            arms_of.setdefault((arm.model, arm.strategy, arm.lora_targets), {})[arm.augment] = arm
    pairs = [(found[True], found[False]) for found in arms_of.values() if len(found) == 2]
    return _pairs([(on, off) for on, off in pairs if not unlike([*on.shown, *off.shown])], predictions)


def pair_rows(pairs: Sequence[Pair]) -> list[Sequence[str]]:
    """Rows for a table of pairs: which, difference, interval, p, players."""
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


def effect_rows(pairs: Sequence[Pair]) -> list[Sequence[str]]:
    """Rows for a table of what augmentation does to each backbone."""
    return [(title(pair.first.model), *row[1:]) for pair, row in zip(pairs, pair_rows(pairs), strict=True)]


def _points(fraction: float) -> str:
    value = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{value} point{'' if value == '1' else 's'}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
