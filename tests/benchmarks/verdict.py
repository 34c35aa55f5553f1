"""Simulate sweeps with known true accuracies and count what the verdict says of them.

    python -m tests.benchmarks.verdict [--sweeps 400] [--only null] [--processes 2] [--save]

The model is in tests/analysis/simulated_sweeps.py. The estimand is the difference of accuracy between winner and rival
(both as selected on validation): with three or more seeds between the arms, in expectation over seeds and players; with
fewer between the trained models, in expectation over players. A row is a cell of the design:

    false better       the outcome is better, not_above_baseline or contradicted, but the true difference is zero or
                       has the other sign
    false equivalent   the outcome is equivalent, but the true difference is two points or more
    coverage           the interval contains the true difference
    stated, realised   mean power for the true difference, and how often the outcome was better, in the sweeps in which
                       the best arm was selected and leads its rival by just that difference
    of t               sweeps in which the verdict found that lead, divided by those in which a paired t test over
                       players, with the seeds averaged, found it
    t false            false claims of that t test

--save writes the table to tests/benchmarks/results/.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from scipy import stats

from analysis.stats.verdict import EQUIVALENT, Outcome, judge
from tests.analysis.simulated_sweeps import Cell, simulate

SIZES = (8, 100), (8, 1000), (12, 1000), (15, 400)  # players and test clips
SEEDS = (1, 0.0), (3, 0.1), (3, 0.2)  # seeds, and the deviation between them (0.2: about 4 points at 50 %)
_CLAIMS = (Outcome.BETTER, Outcome.NOT_ABOVE_BASELINE)
_ROUNDING = 1e-6
_POWERS = 100  # sweeps of a cell whose stated power is computed
_HEAD = ("players", "clips", "accuracy", "step", "seeds", "deviation", "spread", "false better", "false equivalent")
_HEAD += ("coverage", "stated", "realised", "of t", "t false", "outcomes")


def cells() -> list[Cell]:
    """All cells: equal backbones, backbones in steps of two points, and true differences of five and ten points."""
    found = []
    for (players, clips), (seeds, deviation) in product(SIZES, SEEDS):
        one = partial(Cell, players, clips, seeds=seeds, seed_deviation=deviation)
        found += [one(accuracy=accuracy, step=step) for accuracy in (0.1, 0.5, 0.8, 0.98) for step in (0.0, EQUIVALENT)]
        found += [one(accuracy=accuracy, step=step) for accuracy, step in ((0.5, 0.05), (0.5, 0.1), (0.8, 0.1))]
    for size, accuracy, step in product(SIZES[1:3], (0.5, 0.98), (0.0, EQUIVALENT)):
        found.append(Cell(*size, accuracy, step, seeds=1, seed_deviation=0.1))  # trained models that differ
        found.append(Cell(*size, accuracy, step, seeds=1, seed_deviation=0.0, spread=2.0))  # players twice as different
    return found


@dataclass(frozen=True)
class Rate:
    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else float("nan")

    @property
    def text(self) -> str:
        return f"{100 * self.value:.1f} % of {self.total}" if self.total else "–"

    def bounds(self, error: float) -> tuple[float, float]:
        """The exact (Clopper-Pearson) interval with this error probability."""
        if not self.total:
            return 0.0, 1.0
        found = stats.binomtest(self.hits, self.total).proportion_ci(1 - error, "exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Result:
    cell: Cell
    better: Rate
    equivalent: Rate
    coverage: Rate
    stated: float  # NaN without a true difference
    realised: Rate
    by_t: Rate  # of the sweeps of `realised`
    t_false: Rate
    outcomes: dict[str, int]

    @property
    def of_t(self) -> float:
        return self.realised.hits / self.by_t.hits if self.by_t.hits else float("nan")

    def row(self) -> list[str]:
        cell = self.cell
        shape = [str(cell.players), str(cell.clips), f"{cell.accuracy:g}", f"{cell.step:g}", str(cell.seeds)]
        rates = [each.text for each in (self.better, self.equivalent, self.coverage)]
        stated, of_t = ("–" if math.isnan(value) else f"{value:.2f}" for value in (self.stated, self.of_t))
        power = [stated, self.realised.text, of_t, self.t_false.text]
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return [*shape, f"{cell.seed_deviation:g}", f"{cell.spread:g}", *rates, *power, counts]


def measure(cell: Cell, sweeps: int) -> Result:
    """Judge simulated sweeps of one cell."""
    rng = np.random.default_rng([cell.players, cell.clips, round(1000 * cell.accuracy), round(1000 * cell.step)])
    outcomes: dict[str, int] = {}
    false_better = false_equivalent = apart = covered = found = by_t = t_false = 0
    powers, leading = [], 0
    for _ in range(sweeps):
        sweep = simulate(cell, rng)
        verdict = judge(sweep.trials, sweep.predictions, None, {}, True, sweep.baseline)
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        assert verdict.winner is not None
        assert verdict.rival is not None
        assert verdict.chosen is not None
        true = sweep.true_difference(verdict.winner, verdict.rival, verdict.of_backbones)
        claimed = 1 if verdict.outcome in _CLAIMS else -1 if verdict.outcome is Outcome.CONTRADICTED else 0
        false_better += claimed != 0 and claimed * true < _ROUNDING
        far = abs(true) > EQUIVALENT - _ROUNDING
        apart += far
        false_equivalent += far and verdict.outcome is Outcome.EQUIVALENT
        covered += verdict.chosen.low - _ROUNDING < true < verdict.chosen.high + _ROUNDING
        claimed_by_t = stats.ttest_1samp(verdict.chosen.by_player, 0).pvalue < 0.05
        t_false += claimed_by_t and verdict.chosen.difference * true < _ROUNDING
        if cell.step > EQUIVALENT and abs(true - cell.step) < _ROUNDING:
            leading += 1
            if leading <= _POWERS:
                powers.append(verdict.power(cell.step))
            found += verdict.outcome is Outcome.BETTER
            by_t += claimed_by_t and verdict.chosen.difference > 0
    return Result(
        cell,
        Rate(false_better, sweeps),
        Rate(false_equivalent, apart),
        Rate(covered, sweeps),
        float(np.mean(powers)) if powers else float("nan"),
        Rate(found, leading),
        Rate(by_t, leading),
        Rate(int(t_false), sweeps),
        outcomes,
    )


def summary(results: Sequence[Result]) -> list[str]:
    """State whether the verdict keeps its word; the bounds are adjusted for the number of cells (Bonferroni)."""
    error = 0.05 / len(results)
    lines = []
    for name, rates in (
        ("false better, of equal backbones", [each.better for each in results if not each.cell.step]),
        ("false claims of the t test over players there", [each.t_false for each in results if not each.cell.step]),
        ("false equivalent", [each.equivalent for each in results if each.equivalent.total]),
    ):
        if not rates:
            continue
        mean, above = np.mean([rate.value for rate in rates]), sum(rate.bounds(error)[0] > 0.05 for rate in rates)
        worst = max(rates, key=lambda rate: rate.value)
        lines.append(
            f"{name}: mean {mean:.2%} over {len(rates)} cells, highest {worst.value:.1%} of {worst.total}; cells whose "
            f"interval is wholly above 5 %: {above}"
        )
    covered = [each.coverage for each in results]
    below = sum(rate.bounds(error)[1] < 0.93 for rate in covered)
    lines.append(
        f"coverage: mean {np.mean([rate.value for rate in covered]):.1%}, lowest "
        f"{min(rate.value for rate in covered):.1%}; cells whose interval is wholly below 93 %: {below}"
    )
    powers = [each for each in results if each.realised.total >= 50]
    if powers:
        gaps = [each.stated - each.realised.value for each in powers]
        lines.append(
            f"stated minus realised power: {min(gaps):+.2f} to {max(gaps):+.2f} over {len(gaps)} cells with 50 sweeps"
        )
    for each in powers:
        if (each.cell.players, each.cell.clips, each.cell.seeds, each.cell.step) == (12, 1000, 3, 0.1):
            lines.append(
                f"ten points, 12 players, 1,000 clips, three seeds, accuracy {each.cell.accuracy:g}, deviation "
                f"{each.cell.seed_deviation:g}: found {each.of_t:.2f} times as often as by the t test"
            )
    return lines


def table(results: Sequence[Result]) -> str:
    rows = [_HEAD, ["---"] * len(_HEAD), *(each.row() for each in results)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def save(results: Sequence[Result], sweeps: int) -> Path:
    path = Path(__file__).parent / "results" / f"verdict-{date.today()}.md"
    lines = [f"# The verdict on {sweeps} simulated sweeps a cell", "", *(f"- {line}" for line in summary(results))]
    path.write_text("\n".join([*lines, "", table(results), ""]), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--only", choices=("null", "close", "power"), help="steps of 0, of 2, or of 5 and 10 points")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    kind = {"null": (0.0, 0.0), "close": (EQUIVALENT, EQUIVALENT), "power": (0.05, 0.1)}.get(arguments.only, (0.0, 1.0))
    chosen = [cell for cell in cells() if kind[0] <= cell.step <= kind[1]]
    with ProcessPoolExecutor(arguments.processes) as executor:
        results = []
        for result in executor.map(partial(measure, sweeps=arguments.sweeps), chosen):
            results.append(result)
            print(" ".join(result.row()), flush=True)
    print("\n".join(summary(results)))
    if arguments.save:
        print(f"written to {save(results, arguments.sweeps)}")


if __name__ == "__main__":
    main()
