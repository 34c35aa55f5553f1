"""The sweep's success criteria with their evidence, and what was expected of the backbones against what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import linear_regression

from analysis.load.trials import Trial
from analysis.stats.arms import Arm, arms, best_of_each, title
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import BaselineResults
from sousaphone.text import counted, first_few

LEAST_ACCURACY, LEAST_LEAD = 0.40, 0.10
# Of every epoch, and of the last one.
_EVERY = ("train_loss", "train_ce", "val_loss", "val_acc", "val_macro_f1", "epoch_seconds")
_LAST = ("test_acc", "test_macro_f1")

# What the sweep started with: by accuracy, by speed, by the share of parameters that train; the first first.
EXPECTED = {
    "accuracy": ("beats", "ast", "htsat", "efficientat"),
    "speed": ("efficientat", "htsat", "ast", "beats"),
    "fewest trainable, in share": ("beats", "ast", "htsat", "efficientat"),
}


@dataclass(frozen=True)
class Criterion:
    """One condition of success: met, not met, or not known yet (None), and what says so."""

    name: str
    met: bool | None
    evidence: str

    @property
    def word(self) -> str:
        return {True: "met", False: "not met", None: "not known"}[self.met]


@dataclass(frozen=True)
class Expectation:
    """An order of backbones that was expected, and the one that was found (the best first, with its number)."""

    name: str
    expected: Sequence[str]
    found: Sequence[str]
    agreeing: int
    pairs: int


def criteria(
    trials: Sequence[Trial], baselines: BaselineResults | None, scored: set[str], live: bool
) -> list[Criterion]:
    """The four conditions, one by one.

    Args:
        scored: trials whose test predictions can be read.
        live: whether the run goes on, so that what is missing may come.
    """
    return [
        _ended(trials, live),
        _falls(trials),
        _learns(trials, baselines, live),
        _complete(trials, scored, live),
    ]


def _ended(trials: Sequence[Trial], live: bool) -> Criterion:
    bad = [trial for trial in trials if trial.status.is_bad]
    waiting = [trial for trial in trials if not trial.status.is_bad and not trial.status.is_good]
    met = False if bad or (waiting and not live) else None if waiting else True
    parts = [f"{len(trials) - len(bad) - len(waiting)} of {counted(len(trials), 'trial')} ended without error"]
    if bad:
        parts.append(first_few([f"{trial.trial_id} ({trial.status})" for trial in bad]))
    if waiting:
        parts.append(f"{len(waiting)} {'has' if len(waiting) == 1 else 'have'} not ended")
    return Criterion("every experiment ended without error", met, "; ".join(parts))


def slope(trial: Trial) -> float | None:
    """By how much train_ce changes an epoch (nats), by least squares over all epochs; None for fewer than three."""
    points = [(row["epoch"], row["train_ce"]) for row in trial.history if "train_ce" in row]
    if len(points) < 3:
        return None
    return linear_regression(*zip(*points, strict=True)).slope


def _falls(trials: Sequence[Trial]) -> Criterion:
    slopes = {trial.trial_id: value for trial in trials if (value := slope(trial)) is not None}
    name = "train_ce falls (least-squares slope over the epochs)"
    if not slopes:
        return Criterion(name, None, "no trial has three epochs yet")
    rising = [f"{trial_id} ({value:+.3f} an epoch)" for trial_id, value in slopes.items() if value >= 0]
    mean = sum(slopes.values()) / len(slopes)
    evidence = f"falls in {len(slopes) - len(rising)} of {counted(len(slopes), 'trial')}, by {-mean:.3f} nats an epoch"
    return Criterion(name, not rising, evidence + (f"; not in {first_few(rising)}" if rising else ""))


def _learns(trials: Sequence[Trial], baselines: BaselineResults | None, live: bool) -> Criterion:
    name = (
        f"best validation accuracy above {LEAST_ACCURACY:.0%} (chance {1 / len(SLUGS):.1%}) and at least "
        f"{100 * LEAST_LEAD:.0f} points above the best baseline"
    )
    known = [(trial.best["val_acc"], trial.trial_id) for trial in trials if trial.full and "val_acc" in trial.best]
    if not known:
        return Criterion(name, None, "no trial has run to its end")
    best, trial_id = max(known)
    if any(trial.most_scored is not None for trial in trials):
        return Criterion(name, None, f"{best:.1%} ({trial_id}), of part of the clips (limit_eval_batches)")
    unmet = None if live else False  # what is missing may come
    rivals = [(b.scores["val_acc"], b.title) for b in baselines.baselines if b.scores] if baselines else []
    if not rivals:
        met = None if best > LEAST_ACCURACY else unmet
        return Criterion(name, met, f"{best:.1%} ({trial_id}); no baselines were measured")
    baseline, what = max(rivals)
    met = True if best > LEAST_ACCURACY and best - baseline >= LEAST_LEAD else unmet
    return Criterion(name, met, f"{best:.1%} ({trial_id}); best baseline {baseline:.1%} ({what})")


def _complete(trials: Sequence[Trial], scored: set[str], live: bool) -> Criterion:
    lacking = []
    for trial in trials:
        gaps = [name for name in _EVERY if any(name not in row for row in trial.history)]
        gaps += [name for name in _LAST if name not in trial.last]
        gaps += ["test predictions"] if trial.trial_id not in scored else []
        if gaps:
            lacking.append(f"{trial.trial_id} lacks {', '.join(gaps if trial.history else ['any epoch'])}")
    name, whole = "metrics complete", counted(len(trials), "trial")
    if not lacking:
        return Criterion(name, True, f"every metric of every epoch, and test predictions, of {whole}")
    evidence = f"{len(trials) - len(lacking)} of {whole}; {first_few(lacking)}"
    return Criterion(name, None if live else False, evidence)


def expectations(trials: Sequence[Trial]) -> list[Expectation]:
    """The expected orders against those found, for the backbones that ran to their end; each by its best arm."""
    best = {arm.model: arm for arm in best_of_each([arm for arm in arms(trials) if arm.full])}
    measures: Mapping[str, tuple[Callable[[Arm], float | None], str, int]] = {
        "accuracy": (lambda arm: arm.mean("best", "val_acc"), "{:.1%} on validation", -1),
        "speed": (_speed, "{:,.0f} clips/s in training", -1),
        "fewest trainable, in share": (lambda arm: arm.shown[0].parameters.get("trainable_percent"), "{:.2f} %", 1),
    }
    found = []
    for name, expected in EXPECTED.items():
        measure, style, sign = measures[name]
        values = {model: value for model, arm in best.items() if (value := measure(arm)) is not None}
        known = [model for model in expected if model in values]
        pairs = list(combinations(known, 2))
        order = sorted(known, key=lambda model: sign * values[model])
        found.append(
            Expectation(
                name,
                [title(model) for model in expected],
                [f"{title(model)} ({style.format(values[model])})" for model in order],
                sum(sign * values[first] < sign * values[second] for first, second in pairs),
                len(pairs),
            )
        )
    return found


def _speed(arm: Arm) -> float | None:
    values = [value for trial in arm.shown for value in trial.values("samples_per_second")]
    return sum(values) / len(values) if values else None
