"""The wording of a verdict: its headline and its details."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.stats.arms import Arm
from analysis.stats.contrast import SEEDS_FOR_SPREAD, Contrast
from analysis.stats.pairs import Pair
from analysis.stats.power import POWER
from analysis.stats.verdict import (
    EQUIVALENT,
    MOST_CPU_MS,
    MOST_DEPLOYED_MS,
    MOST_TRAINABLE,
    TRUE_DIFFERENCES,
    Outcome,
    Verdict,
)
from sousaphone.config import FEW_PLAYERS
from sousaphone.text import counted

UNKNOWN_PLAYERS = (
    "Players are unknown: each group of recordings with the same name stem counts as one player. One person may be in "
    "both training and test, and the intervals are valid only if the groups are of different people."
)


def headline(verdict: Verdict) -> str:
    """Return the outcome in one paragraph."""
    match verdict.outcome:
        case Outcome.NONE:
            return verdict.why
        case Outcome.NOTHING_TO_COMPARE:
            return _nothing_to_compare(verdict)
        case Outcome.NOT_ALIKE:
            return f"No winner: the arms were not measured under the same conditions ({verdict.why})."
    unit, chosen = _unit(verdict), verdict.chosen
    best, next_best = (arm.label for arm in verdict.compared[:2])
    if verdict.outcome is Outcome.TOO_FEW_PLAYERS or chosen is None:
        return (
            f"No winner: the test clips are of {players_text(1 if chosen is None else chosen.players, unit)}; at least "
            f"{FEW_PLAYERS} are needed to decide whether a difference between two models holds for other {unit}s. On "
            f"validation {best} is ahead of {next_best}, without a test of significance."
        )
    size = _difference(chosen, unit, -1 if verdict.outcome is Outcome.CONTRADICTED else 1)
    first, second = (best, next_best) if verdict.of_backbones else (f"this trained {best}", f"this trained {next_best}")
    only = "" if verdict.of_backbones else f" {_of_models(chosen)}"
    match verdict.outcome:
        case Outcome.BETTER if verdict.of_backbones:
            use = f"Use {first}: it" if verdict.lead is not None else first
            small = f" However, the difference is smaller than {_points(EQUIVALENT)}." * (chosen.high < EQUIVALENT)
            return f"{use} is better than {second} by {size}.{small}{_lead(verdict)}"
        case Outcome.BETTER:
            return f"{first[0].upper()}{first[1:]} beat {second} by {size}.{only}{_lead(verdict)}"
        case Outcome.NOT_ABOVE_BASELINE:
            return f"No winner: {first} is better than {second} by {size}.{_lead(verdict)}{only}"
        case Outcome.CONTRADICTED:
            return (
                f"Contradicted: {first} is better on validation, but {second} is better on the test {unit}s by {size}. "
                f"More validation {unit}s would make the selection more reliable.{only}"
            )
        case Outcome.EQUIVALENT:
            usable = verdict.of_backbones and verdict.lead is not None and verdict.lead.shown
            cheaper = " Use the cheaper one." * usable
            return (
                f"{first[0].upper()}{first[1:]} and {second} are equivalent: they differ by {size}, which is within "
                f"±{_points(EQUIVALENT)}.{cheaper}{_lead(verdict)}{only}"
            )
    return f"Undecided between {first} and {second}: on the test {unit}s they differ by {size}.{only}"


def details(verdict: Verdict) -> list[str]:
    """Return the uncertainty, caveats, and the data needed for a decision, as sentences."""
    if verdict.outcome is Outcome.NONE:
        return []
    found = []
    if verdict.chosen is not None and verdict.outcome is not Outcome.TOO_FEW_PLAYERS:
        if verdict.of_backbones:
            seeds = " and ".join(dict.fromkeys(map(str, verdict.chosen.seeds)))
            found.append(
                f"The interval covers other {_unit(verdict)}s and other seeds ({seeds} per arm), so the result holds "
                "for the backbones as fine-tuned here."
            )
        found += _power(verdict)
    if verdict.winner is not None and verdict.rival is not None:
        found.append(_selection(verdict.winner, verdict.rival))
    if verdict.outcome in (Outcome.BETTER, Outcome.EQUIVALENT, Outcome.UNDECIDED):  # others would recommend a loser
        found.append(_constraints(verdict))
    found += _left_out(verdict)
    if not verdict.players_known and len(verdict.compared) > 1 and verdict.outcome is not Outcome.NOT_ALIKE:
        found.append(UNKNOWN_PLAYERS)
    return found


def players_text(number: int | None, unit: str) -> str:
    """Format a number of players: `8 players`, or `8 groups of recordings (players unknown)`."""
    return counted(number, unit) + ("" if unit == "player" else " of recordings (players unknown)")


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


def _unit(verdict: Verdict) -> str:
    return "player" if verdict.players_known else "group"


def _nothing_to_compare(verdict: Verdict) -> str:
    finished = [arm for arm in verdict.planned if arm.full]
    if not finished:
        return "No verdict yet: no trial has finished."
    if not verdict.compared:
        return "No verdict: no finished trial has test predictions."
    only = "has finished" if len(finished) == 1 else "has test predictions"
    return f"No verdict: only {verdict.compared[0].label} {only}; there is nothing to compare it with."


def _difference(found: Contrast, unit: str, sign: int = 1) -> str:
    low, high = sorted((100 * sign * found.low, 100 * sign * found.high))
    return (
        f"{_points(sign * found.difference)} of accuracy (95 % interval {low:+.1f} to {high:+.1f}; sign-flip p "
        f"{'' if found.p_flip < 0.001 else '= '}{_p(found.p_flip)}; {players_text(found.players, unit)}, "
        f"{found.clips:,} clips)"
    )


def _of_models(found: Contrast) -> str:
    seeds = " and ".join(dict.fromkeys(counted(number, "seed") for number in found.seeds))
    return (
        f"This holds for these trained models, not for the backbones: with {seeds} per arm, the variation between "
        f"trainings is unknown; {SEEDS_FOR_SPREAD} seeds per arm would settle it "
        "(--extend --seeds 0 1 2)."
    )


def _lead(verdict: Verdict) -> str:
    """State the winner's lead over the best baseline, with a leading space."""
    name = verdict.compared[0].label
    if verdict.lead is None:
        return f" Whether {name} is better than a simple baseline was not measured."
    found = verdict.lead.contrast
    size = f"{_points(found.difference)} (95 % interval {100 * found.low:+.1f} to {100 * found.high:+.1f})"
    if verdict.lead.shown:
        return f" {name} is better than the best baseline ({verdict.lead.baseline}) by {size}."
    if found.difference < 0:
        return f" {name} is below the best baseline ({verdict.lead.baseline}): its lead is {size}."
    return f" The lead of {name} over the best baseline ({verdict.lead.baseline}), {size}, is not significant."


def _power(verdict: Verdict) -> list[str]:
    """State the power and, only while the question is open, how many players a decision would need."""
    powers = [f"{verdict.power(true):.0%} for {_points(true)}" for true in TRUE_DIFFERENCES]
    lead = " and the lead over the baseline" * (verdict.lead is not None)
    stated = f"Power (probability of finding a true difference{lead}): {' and '.join(powers)}."
    if verdict.outcome is not Outcome.UNDECIDED or verdict.chosen is None:
        return [stated]
    needed = [
        f"{'no realistic number' if (number := verdict.players_for(true)) is None else f'about {number:,}'} for "
        f"{_points(true)}"
        for true in TRUE_DIFFERENCES
    ]
    each = verdict.chosen.clips / verdict.chosen.players
    return [
        f"Test {_unit(verdict)}s needed to find a true difference{lead} with a power of {POWER:.0%}, with {each:.0f} "
        f"clips each: {', '.join(needed)}.",
        stated,
    ]


def _selection(winner: Arm, rival: Arm) -> str:
    selected = f"Both were selected on validation (macro F1 {winner.score:.3f} and {rival.score:.3f})"
    best = ", each as the best arm of its backbone; test clips were not used"
    return f"{selected}{best if winner.model != rival.model else ''}."


def _constraints(verdict: Verdict) -> str:
    """Name the best finished arm on validation within a limit of parameters, of CPU time, and of the latency of its
    deploy card, in one sentence."""
    full = [arm for arm in verdict.planned if arm.full]
    trainable = [arm.shown[0].trainable_params for arm in full]
    times = [verdict.cpu_ms.get(arm.shown[0].trial_id) for arm in full]
    cards = [[verdict.deployed[t.trial_id] for t in arm.shown if t.trial_id in verdict.deployed] for arm in full]
    deployed = [own[0].latencies[0].median if own else None for own in cards]
    clauses = []
    for limit, costs, most in (
        (f"at most {MOST_TRAINABLE / 1e6:g} M trainable parameters", trainable, MOST_TRAINABLE),
        (f"at most {MOST_CPU_MS:g} ms per clip on this CPU", times, MOST_CPU_MS),
        (f"at most {MOST_DEPLOYED_MS:g} ms a window on one core (sousaphone benchmark)", deployed, MOST_DEPLOYED_MS),
    ):
        known = [(arm, cost) for arm, cost in zip(full, costs, strict=True) if cost is not None]
        fitting = [arm for arm, cost in known if cost <= most]
        if not known:
            clauses.append(f"with {limit}: not measured")
        elif not fitting:
            clauses.append(f"with {limit}: none")
        else:
            best = max(fitting, key=lambda arm: arm.score)
            clauses.append(f"with {limit}: {best.label} (validation macro F1 {best.score:.3f})")
    return f"Best on validation {'; '.join(clauses)}."


def _left_out(verdict: Verdict) -> list[str]:
    """Name the planned arms that were not compared, with the reason, in one sentence; empty if there are none."""
    scored = {arm.label for arm in verdict.groups}
    others = [arm for arm in verdict.planned if arm.label not in scored]
    names = [f"{arm.label} ({'its test predictions cannot be read' if arm.full else arm.state})" for arm in others]
    return [f"Not compared: {', '.join(names)}."] if names else []


def _points(fraction: float) -> str:
    value = f"{100 * fraction:.1f}".removesuffix(".0")
    return f"{value} percentage point{'' if value == '1' else 's'}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
