"""The success criteria of a sweep with their evidence, and the expected and observed orders of the backbones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy import stats

from analysis.load.trials import Trial
from analysis.stats.arms import Arm, arms, best_of_each, title
from analysis.stats.statistics import TINY
from sousaphone.runs.baseline_results import Baseline
from sousaphone.runs.statuses import Status
from sousaphone.text import counted, first_few

LEAST_ACCURACY, LEAST_LEAD = 0.40, 0.10
MOST_P = 0.05
FEWEST_EPOCHS = 4  # with three, even a perfect order has p = 1/6
# Metrics that every epoch has, and metrics of the last epoch.
_EVERY = ("train_loss", "train_ce", "val_loss", "val_acc", "val_macro_f1", "epoch_seconds")
_LAST = ("test_acc", "test_macro_f1")


@dataclass(frozen=True)
class Criterion:
    """A success criterion: met, not met, or not known yet (None), with its evidence."""

    name: str
    met: bool | None
    evidence: str


def criteria(
    trials: Sequence[Trial], baselines: Sequence[Baseline], scored: set[str], live: bool, chance: float | None = None
) -> list[Criterion]:
    """Evaluate the four criteria.

    Args:
        scored: ids of the trials with test predictions.
        live: whether the run may still complete results.
        chance: accuracy of a random prediction, if known.
    """
    learns = _learns(trials, baselines, live, chance)
    return [_ended(trials, live), _falls(trials), learns, _complete(trials, scored, live)]


def _ended(trials: Sequence[Trial], live: bool) -> Criterion:
    bad = [trial for trial in trials if trial.status.is_bad]
    waiting = [trial for trial in trials if not trial.status.is_bad and not trial.status.is_good]
    met = False if bad or (waiting and not live) else None if waiting else True
    parts = [f"{len(trials) - len(bad) - len(waiting)} of {counted(len(trials), 'trial')} ended without error"]
    if bad:
        parts.append(first_few([f"{trial.trial_id} ({trial.status})" for trial in bad]))
    if waiting:
        parts.append(f"{len(waiting)} {'has' if len(waiting) == 1 else 'have'} not ended")
    return Criterion("every trial ended without error", met, "; ".join(parts))


def _falls(trials: Sequence[Trial]) -> Criterion:
    """Test the trend of each trial by Kendall's tau, whose exact p value counts all orders of the epochs."""
    name = f"train_ce falls (Kendall's tau over the epochs is negative, one-sided p at most {MOST_P:g})"
    trends = {}
    for trial in trials:
        points = [(row["epoch"], row["train_ce"]) for row in trial.history if "train_ce" in row]
        if len(points) >= FEWEST_EPOCHS:
            trends[trial.trial_id] = stats.kendalltau(*zip(*points, strict=True), alternative="less")
    if not trends:
        return Criterion(name, None, f"no trial has {FEWEST_EPOCHS} epochs, which a test of the trend needs")
    # The tau of constant values is not a number.
    without = [f"{trial_id} (p = {t.pvalue:.2g})" for trial_id, t in trends.items() if not t.pvalue <= MOST_P]
    evidence = f"falls in {len(trends) - len(without)} of {counted(len(trends), 'trial')}"
    return Criterion(name, not without, evidence + (f"; not shown in {first_few(without)}" if without else ""))


def _learns(trials: Sequence[Trial], baselines: Sequence[Baseline], live: bool, chance: float | None) -> Criterion:
    guess = "" if chance is None else f" (chance {chance:.1%})"
    name = (
        f"best validation accuracy above {LEAST_ACCURACY:.0%}{guess} and at least "
        f"{100 * LEAST_LEAD:.0f} percentage points above that of every baseline"
    )
    known = [(trial.best["val_acc"], trial.trial_id) for trial in trials if trial.full and "val_acc" in trial.best]
    if not known:
        return Criterion(name, None, "no trial has finished")
    best, trial_id = max(known)
    if any(trial.most_scored is not None for trial in trials):
        return Criterion(name, None, f"{best:.1%} ({trial_id}), on part of the clips (limit_eval_batches)")
    unmet = None if live else False  # a running trial may still meet it
    rivals = [(baseline.scores["val_acc"], baseline.title) for baseline in baselines]
    if not rivals:
        met = None if best > LEAST_ACCURACY else unmet
        return Criterion(name, met, f"{best:.1%} ({trial_id}); no baselines were measured")
    baseline, what = max(rivals)
    met = True if best > LEAST_ACCURACY and best - baseline >= LEAST_LEAD - TINY else unmet
    return Criterion(name, met, f"{best:.1%} ({trial_id}); best baseline {baseline:.1%} ({what})")


def _complete(trials: Sequence[Trial], scored: set[str], live: bool) -> Criterion:
    lacking = []
    trials = [trial for trial in trials if trial.status is not Status.PRUNED]  # it is not meant to have results
    for trial in trials:
        gaps = [name for name in _EVERY if any(name not in row for row in trial.history)]
        gaps += [name for name in _LAST if name not in trial.last]
        gaps += ["test predictions"] if trial.trial_id not in scored else []
        if gaps:
            lacking.append(f"{trial.trial_id} has no {', '.join(gaps) if trial.history else 'finished epoch'}")
    name, total = "metrics complete", counted(len(trials), "trial")
    if not lacking:
        return Criterion(name, True, f"every metric of every epoch, and test predictions, of {total}")
    evidence = f"{len(trials) - len(lacking)} of {total}; {first_few(lacking)}"
    return Criterion(name, None if live else False, evidence)


def expectation_rows(trials: Sequence[Trial]) -> list[Sequence[str]]:
    """Return table rows of expected and observed rankings, for the best finished arm of each backbone.

    A row has the criterion, the expected and the observed ranking, and how many pairs are ordered as expected.
    """
    best = {arm.model: arm for arm in best_of_each([arm for arm in arms(trials) if arm.full])}
    rows: list[Sequence[str]] = []
    for name, expected, measure, style, sign in _EXPECTED:
        values = {model: value for model in expected if model in best and (value := measure(best[model])) is not None}
        observed = sorted(values, key=lambda model: sign * values[model])
        pairs = list(combinations(values, 2))
        agreeing = sum(sign * values[first] < sign * values[second] for first, second in pairs)
        names = ", ".join(f"{title(model)} ({style.format(values[model])})" for model in observed)
        rows.append((name, ", ".join(map(title, expected)), names, f"{agreeing} of {len(pairs)}"))
    return rows


def _speed(arm: Arm) -> float | None:
    values = [value for trial in arm.shown if (value := trial.samples_per_second) is not None]
    return sum(values) / len(values) if values else None


_BEATS_FIRST = ("beats", "ast", "htsat", "efficientat")
# Criterion, expected ranking, measured value of an arm, its format, and the sign that sorts the best first.
_EXPECTED: Sequence[tuple[str, Sequence[str], Callable[[Arm], float | None], str, int]] = (
    ("accuracy", _BEATS_FIRST, lambda arm: arm.mean("val_acc"), "{:.1%} on validation", -1),
    ("speed", ("efficientat", "htsat", "ast", "beats"), _speed, "{:,.0f} clips/s in training", -1),
    (
        "smallest trainable fraction",
        _BEATS_FIRST,
        lambda arm: arm.shown[0].parameters.get("trainable_percent"),
        "{:.2f} %",
        1,
    ),
)
