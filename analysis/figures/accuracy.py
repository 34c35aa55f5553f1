"""accuracy_comparison: validation and test accuracy of each arm and each baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.figures.plotly_charts import escape
from analysis.figures.rows import Panel, RowFigure, Series
from analysis.figures.style import GREY, Dot, Key, Spot, accuracy_range, dots_in_row
from analysis.run_summary import Findings
from analysis.stats.arms import Look, checkpoints
from analysis.stats.slices import accuracy_of, by_player, possible
from analysis.write.blocks import Picture

_BASELINE = Look(GREY, "d", "diamond-tall")
_MARKERS = -0.13, 0.13  # vertical offsets in rows: validation above, test below
_DOTS = -0.38, 0.38  # those of the single seeds


@dataclass(frozen=True)
class Value:
    """An accuracy in percent and its interval; NaN where there is none. seeds: (trial_id, percent)."""

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Row:
    """One arm or baseline."""

    name: str
    look: Look
    values: tuple[Value, Value]  # of validation and test
    players: int = 0

    @property
    def highest(self) -> float:
        known = [v for value in self.values for v in (value.mean, value.high, *(seed for _, seed in value.seeds))]
        return max((value for value in known if math.isfinite(value)), default=0.0)

    def hover(self, test: bool) -> str:
        value = self.values[test]
        interval = f" [{value.low:.1f}, {value.high:.1f}], {self.players} players" if math.isfinite(value.low) else ""
        return f"{'test' if test else 'validation'} {value.mean:.1f} %{interval}<br>{escape(self.name, 200)}"


def picture(run: Findings) -> Picture:
    rows = _rows(run)
    players = max((row.players for row in rows), default=0)
    intervals = any(math.isfinite(row.values[1].low) for row in rows)
    caption = (
        "Arms are sorted by validation macro F1. Hollow: validation accuracy of the best epoch (by validation macro "
        "F1). Filled: test "
        "accuracy of that epoch, "
    )
    caption += (
        f"averaged over seeds, then over up to {players} test players"
        f"{', with its 95 % interval (over players or clips, the wider)' * intervals}."
        if players
        else "measured once."
    )
    if any(len(arm.trials) > 1 for arm in run.groups):
        caption += " Small dots: single seeds; overlapping dots are moved apart vertically."
    if not all(arm.full for arm in run.groups):
        caption += " Pale: partial results, which are not comparable."
    limits = accuracy_range(max((row.highest for row in rows), default=0.0))
    series, dots = [_series(rows, look) for look in dict.fromkeys(row.look for row in rows)], _dots(rows, limits)
    return RowFigure(
        name="accuracy_comparison",
        heading="Accuracy by arm",
        caption=f"{caption} {checkpoints(run.compared)}",
        banner=run.banner,
        labels=[row.name for row in rows],
        panels=[Panel("accuracy, %", limits, series, dots)],
        keys=[
            Key("validation, best epoch", filled=False),
            Key(f"test, same epoch{', with 95 % interval' * intervals}"),
            *([Key("baseline", _BASELINE)] if run.baselines else []),
        ],
        chance=run.chance_percent,
        separators=[len(run.groups)] if run.baselines else [],
        row=0.42 if dots and len(rows) <= 24 else None,
    ).picture()


def _rows(run: Findings) -> list[Row]:
    found = []
    for arm in run.groups:
        predicted, players = run.rows(arm), 0
        if len(predicted):
            whole = accuracy_of(predicted)
            by_trial = predicted.groupby("trial_id", observed=True)
            seeds = [(str(name), 100 * float(by_player(own).accuracy.mean())) for name, own in by_trial]
            low, high = 100 * possible(whole.low), 100 * possible(whole.high)
            test, players = Value(100 * whole.accuracy, low, high, seeds), whole.players
        else:
            seeds = [(t.trial_id, 100 * t.last["test_acc"]) for t in arm.shown if "test_acc" in t.last]
            test = Value(_mean(seeds), seeds=seeds)
        chosen = [(t.trial_id, 100 * t.best["val_acc"]) for t in arm.shown if "val_acc" in t.best]
        validation = Value(_mean(chosen), seeds=chosen)
        found.append(Row(arm.name, run.look(arm), (validation, test), players))
    for baseline in run.baselines:
        validation, test = (Value(100 * baseline.scores[name]) for name in ("val_acc", "test_acc"))
        found.append(Row(baseline.title, _BASELINE, (validation, test)))
    return found


def _mean(seeds: Sequence[tuple[str, float]]) -> float:
    return sum(value for _, value in seeds) / len(seeds) if seeds else math.nan


def _dots(rows: Sequence[Row], limits: tuple[float, float]) -> list[Dot]:
    """The single seeds of every mean over several."""
    found = []
    for y, row in enumerate(rows):
        for place, value in zip(_DOTS, row.values, strict=True):
            if len(value.seeds) > 1:
                found += dots_in_row(value.seeds, y + place, row.look.colour, limits, step=0.08, most=0.08)
    return found


def _series(rows: Sequence[Row], look: Look) -> Series:
    own = [(y, row, test) for y, row in enumerate(rows) if row.look == look for test in (False, True)]
    values = [row.values[test] for _, row, test in own]
    spots = [Spot(v.mean, y + _MARKERS[test], test, v.low, v.high) for (y, _, test), v in zip(own, values, strict=True)]
    return Series(look, spots, [row.hover(test) for _, row, test in own])
