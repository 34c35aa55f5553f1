"""accuracy_comparison: validation and test accuracy of each arm, and of what they are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import GREY, accuracy_range
from analysis.stats.arms import Look, checkpoints
from analysis.stats.slices import Slice, accuracy_of, by_player, possible
from analysis.write.blocks import Picture

_APART = 0.17  # rows between validation, above, and test, below
_BASELINE = Look(GREY, "d", "diamond-tall")
_VALIDATION, _TEST = "validation, best epoch", "test, from that epoch"


@dataclass(frozen=True)
class Row:
    """What stands in one row, in percent; NaN where there is nothing."""

    name: str
    look: Look
    colour: str
    full: bool = True
    state: str = ""
    validation: float = math.nan
    test: float = math.nan
    low: float = math.nan
    high: float = math.nan
    validation_seeds: Sequence[tuple[str, float]] = field(default_factory=tuple)  # (trial_id, accuracy)
    test_seeds: Sequence[tuple[str, float]] = field(default_factory=tuple)
    players: int = 0

    @property
    def highest(self) -> float:
        known = [self.validation, self.test, self.high, *(v for _, v in (*self.validation_seeds, *self.test_seeds))]
        return max((value for value in known if math.isfinite(value)), default=0.0)


def picture(scene: Scene) -> Picture:
    rows = _rows(scene)
    players = max((row.players for row in rows), default=0)
    told = (
        "Rows are in the order of validation macro F1. Hollow: validation accuracy of the best epoch. Filled: test "
        "accuracy from that epoch, "
    )
    told += (
        f"the mean over players ({players} at most), the seeds averaged first"
        f"{', with its 95 % t interval over them' * _intervals(rows)}."
        if players
        else "measured once."
    )
    if any(len(arm.trials) > 1 for arm in scene.groups):
        told += " Small dots: single seeds."
    if any(not row.full for row in rows):
        told += " Pale: partial results, which are not comparable."
    return Picture(
        "accuracy_comparison",
        "Accuracy by arm",
        f"{told} {checkpoints(scene.trials)}",
        _png(rows, scene),
        _chart(rows, scene),
    )


def _rows(scene: Scene) -> list[Row]:
    found = []
    for arm in scene.groups:
        predicted, look = scene.rows(arm), scene.look(arm)
        seeds = [(t.trial_id, t) for t in arm.shown]
        if len(predicted):
            whole = accuracy_of(predicted)
            by_trial = predicted.groupby("trial_id", observed=True)
            test = [(str(name), 100 * float(by_player(own).mean())) for name, own in by_trial]
        else:
            test = [(name, 100 * t.last["test_acc"]) for name, t in seeds if "test_acc" in t.last]
            mean = sum(v for _, v in test) / len(test) / 100 if test else math.nan
            whole = Slice(mean, math.nan, math.nan, 0, 0)
        validation = arm.mean("best", "val_acc")
        found.append(
            Row(
                arm.name,
                look,
                scene.shade(arm),
                arm.full,
                arm.state,
                math.nan if validation is None else 100 * validation,
                100 * whole.accuracy,
                100 * possible(whole.low),
                100 * possible(whole.high),
                [(name, 100 * t.best["val_acc"]) for name, t in seeds if "val_acc" in t.best],
                test,
                whole.players,
            )
        )
    for mark in scene.baselines:
        scores = [math.nan if value is None else 100 * value for value in (mark.val_acc, mark.test_acc)]
        found.append(Row(mark.title, _BASELINE, GREY, validation=scores[0], test=scores[1]))
    return found


def _intervals(rows: Sequence[Row]) -> bool:
    """Whether any is drawn; it takes some players."""
    return any(math.isfinite(row.low) for row in rows)


def _test_words(rows: Sequence[Row]) -> str:
    """For the legend."""
    return _TEST + ", with 95 % interval" * _intervals(rows)


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    return accuracy_range(max((row.highest for row in rows), default=0.0))


class _Seed(NamedTuple):
    accuracy: float
    y: float
    colour: str
    trial_id: str


def _seeds(rows: Sequence[Row]) -> list[_Seed]:
    """The dots of all rows in which a point is the mean of several."""
    return [
        _Seed(value, y + shift, row.colour, trial_id)
        for y, row in enumerate(rows)
        for shift, values in ((-_APART, row.validation_seeds), (_APART, row.test_seeds))
        for trial_id, value in values
        if len(values) > 1
    ]


def _png(rows: Sequence[Row], scene: Scene) -> bytes:
    legend = [
        mpl.shape("o", _VALIDATION, filled=False),
        mpl.shape("o", _test_words(rows)),
        *([mpl.shape("d", "baseline", GREY)] if scene.baselines else []),
        mpl.chance_entry(),
    ]
    labels = [row.name if not row.state else row.name.removesuffix(f" ({row.state})") for row in rows]
    page, (axes,) = mpl.row_sheet("Accuracy by arm", scene.banner, labels, legend=legend)
    mpl.chance_line(axes)
    for look in dict.fromkeys(row.look for row in rows):
        own = [(y, row) for y, row in enumerate(rows) if row.look == look]
        for shift, filled in ((-_APART, False), (_APART, True)):
            shown = [(y + shift, row, row.test if filled else row.validation) for y, row in own]
            shown = [entry for entry in shown if math.isfinite(entry[2])]
            places, shades = [y for y, _, _ in shown], [row.colour for _, row, _ in shown]
            if filled:
                low, high = [row.low for _, row, _ in shown], [row.high for _, row, _ in shown]
                mpl.intervals(axes, places, low, high, shades)
            mpl.points(axes, [value for _, _, value in shown], places, shades, look.marker, filled, 38)
    seeds = _seeds(rows)
    mpl.dots(axes, [seed.accuracy for seed in seeds], [seed.y for seed in seeds], [seed.colour for seed in seeds])
    for y, row in enumerate(rows):
        if row.state:
            mpl.beside(axes, row.highest, y, row.state, 10 if row.highest else 5)
    if scene.baselines and scene.groups:
        axes.axhline(len(scene.groups) - 0.5, color="#bbbbbb", linewidth=0.8)
    axes.set_xlim(*_range(rows))
    axes.set_xlabel("accuracy, %")
    return page.png()


def _chart(rows: Sequence[Row], scene: Scene) -> go.Figure:
    figure = go.Figure()
    plotly_charts.legend_marker(figure, _VALIDATION, "circle-open")
    plotly_charts.legend_marker(figure, _test_words(rows), "circle")
    if scene.baselines:
        plotly_charts.legend_marker(figure, "baseline", _BASELINE.symbol, GREY)
    plotly_charts.chance_line(figure)
    plotly_charts.legend_chance(figure)
    seeds = _seeds(rows)
    if seeds:
        figure.add_scatter(
            x=plotly_charts.packed([seed.accuracy for seed in seeds]),
            y=plotly_charts.packed([seed.y for seed in seeds]),
            mode="markers",
            text=[plotly_charts.escape(seed.trial_id) for seed in seeds],
            hovertemplate="%{x:.1f} %<br>%{text}<extra></extra>",
            marker={"size": 5, "opacity": 0.5, "color": [seed.colour for seed in seeds]},
            showlegend=False,
        )
    for look, colour in dict.fromkeys((row.look, row.colour) for row in rows):
        own = [(y, row) for y, row in enumerate(rows) if (row.look, row.colour) == (look, colour)]
        for shift, filled in ((-_APART, False), (_APART, True)):
            values = [row.test if filled else row.validation for _, row in own]
            bars = [row.low for _, row in own], [row.high for _, row in own]
            figure.add_scatter(
                x=plotly_charts.rounded(values),
                y=[y + shift for y, _ in own],
                mode="markers",
                text=[plotly_charts.escape(row.name) for _, row in own],
                customdata=[_interval(row) if filled else "" for _, row in own],
                hovertemplate=f"{'test' if filled else 'validation'} %{{x:.1f}} %%{{customdata}}<br>%{{text}}"
                "<extra></extra>",
                error_x=plotly_charts.error(values, *bars, colour) if filled else None,
                marker={
                    "size": 10,
                    "symbol": look.symbol,
                    "color": colour if filled else "#ffffff",
                    "line": {"width": 2, "color": colour},
                },
                showlegend=False,
            )
    height = plotly_charts.row_axis(figure, [row.name for row in rows])
    if scene.baselines and scene.groups:
        figure.add_hline(y=len(scene.groups) - 0.5, line={"color": "#bbbbbb", "width": 1}, layer="below")
    figure.update_xaxes(title="accuracy, %", range=_range(rows))
    return plotly_charts.styled(figure, height)


def _interval(row: Row) -> str:
    return f" [{row.low:.1f}, {row.high:.1f}], {row.players} players" if math.isfinite(row.low) else ""
