"""accuracy_comparison: validation and test accuracy of each arm, and of what they are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import GREY, Dot, Spot, accuracy_range
from analysis.stats.arms import Look, checkpoints
from analysis.stats.slices import accuracy_of, by_player, possible
from analysis.write.blocks import Picture

_HEADING = "Accuracy by arm"
_BASELINE = Look(GREY, "d", "diamond-tall")
_VALIDATION, _TEST = "validation, best epoch", "test, from that epoch"


@dataclass(frozen=True)
class Value:
    """An accuracy in percent with its interval; NaN where there is none. seeds: (trial_id, percent)."""

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Row:
    """One arm or baseline."""

    name: str
    look: Look
    colour: str
    validation: Value
    test: Value
    full: bool = True
    state: str = ""
    players: int = 0

    @property
    def highest(self) -> float:
        both = (self.validation, self.test)
        known = [v for value in both for v in (value.mean, value.high, *(seed for _, seed in value.seeds))]
        return max((value for value in known if math.isfinite(value)), default=0.0)

    @property
    def values(self) -> tuple[tuple[float, Value], ...]:
        """Validation, above, and test, below: (rows below the middle, what stands there)."""
        return (-0.17, self.validation), (0.17, self.test)


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
    told += f" {checkpoints(scene.trials)}"
    return Picture("accuracy_comparison", _HEADING, told, _png(rows, scene), _chart(rows, scene))


def _rows(scene: Scene) -> list[Row]:
    found = []
    for arm in scene.groups:
        predicted, players = scene.rows(arm), 0
        if len(predicted):
            whole = accuracy_of(predicted)
            by_trial = predicted.groupby("trial_id", observed=True)
            seeds = [(str(name), 100 * float(by_player(own).mean())) for name, own in by_trial]
            low, high = 100 * possible(whole.low), 100 * possible(whole.high)
            test, players = Value(100 * whole.accuracy, low, high, seeds), whole.players
        else:
            seeds = [(t.trial_id, 100 * t.last["test_acc"]) for t in arm.shown if "test_acc" in t.last]
            test = Value(sum(v for _, v in seeds) / len(seeds) if seeds else math.nan, seeds=seeds)
        mean = arm.mean("best", "val_acc")
        chosen = [(t.trial_id, 100 * t.best["val_acc"]) for t in arm.shown if "val_acc" in t.best]
        validation = Value(_percent(mean), seeds=chosen)
        found.append(Row(arm.name, scene.look(arm), scene.shade(arm), validation, test, arm.full, arm.state, players))
    for mark in scene.baselines:
        validation, test = Value(_percent(mark.val_acc)), Value(_percent(mark.test_acc))
        found.append(Row(mark.title, _BASELINE, GREY, validation, test))
    return found


def _percent(fraction: float | None) -> float:
    return math.nan if fraction is None else 100 * fraction


def _intervals(rows: Sequence[Row]) -> bool:
    """Whether any is drawn; it takes some players."""
    return any(math.isfinite(row.test.low) for row in rows)


def _test_words(rows: Sequence[Row]) -> str:
    """For the legend."""
    return _TEST + ", with 95 % interval" * _intervals(rows)


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    return accuracy_range(max((row.highest for row in rows), default=0.0))


def _seeds(rows: Sequence[Row]) -> list[Dot]:
    """The dots of all rows in which a point is the mean of several."""
    return [
        Dot(percent, y + shift, row.colour, trial_id)
        for y, row in enumerate(rows)
        for shift, value in row.values
        for trial_id, percent in value.seeds
        if len(value.seeds) > 1
    ]


def _spots(rows: Sequence[Row], look: Look, colour: str | None = None) -> list[tuple[Row, Spot, Spot]]:
    """The rows that look so, with the markers of validation, hollow, and test."""
    found = []
    for y, row in enumerate(rows):
        if row.look == look and colour in (None, row.colour):
            spots = [Spot(v.mean, y + shift, row.colour, shift > 0, v.low, v.high) for shift, v in row.values]
            found.append((row, spots[0], spots[1]))
    return found


def _png(rows: Sequence[Row], scene: Scene) -> bytes:
    legend = [
        mpl.shape("o", _VALIDATION, filled=False),
        mpl.shape("o", _test_words(rows)),
        *([mpl.shape("d", "baseline", GREY)] if scene.baselines else []),
        mpl.chance_entry(),
    ]
    labels = [row.name if not row.state else row.name.removesuffix(f" ({row.state})") for row in rows]
    page, (axes,) = mpl.row_sheet(_HEADING, scene.banner, labels, legend=legend)
    mpl.chance_line(axes)
    for look in dict.fromkeys(row.look for row in rows):
        for spots in zip(*(both for _, *both in _spots(rows, look)), strict=True):
            mpl.spots(axes, spots, look.marker, 38)
    mpl.dots(axes, _seeds(rows))
    for y, row in enumerate(rows):
        if row.state:
            mpl.beside(axes, row.highest, y, row.state, 10 if row.highest else 5)
    if scene.baselines and scene.groups:
        mpl.separator(axes, len(scene.groups) - 0.5)
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
    if seeds := _seeds(rows):
        plotly_charts.named_dots(figure, seeds, "%{x:.1f} %")
    for look, colour in dict.fromkeys((row.look, row.colour) for row in rows):
        own = _spots(rows, look, colour)
        for test, kind in enumerate(("validation", "test")):
            spots = [both[test] for _, *both in own]
            figure.add_scatter(
                x=plotly_charts.rounded([spot.x for spot in spots]),
                y=[spot.y for spot in spots],
                mode="markers",
                text=[plotly_charts.escape(row.name) for row, _, _ in own],
                customdata=[_interval(row) if test else "" for row, _, _ in own],
                hovertemplate=f"{kind} %{{x:.1f}} %%{{customdata}}<br>%{{text}}<extra></extra>",
                error_x=plotly_charts.error(spots, colour) if test else None,
                marker=plotly_charts.outlined(look.symbol, colour, colour if test else "#ffffff", 10),
                showlegend=False,
            )
    height = plotly_charts.row_axis(figure, [row.name for row in rows])
    if scene.baselines and scene.groups:
        plotly_charts.separator(figure, len(scene.groups) - 0.5)
    figure.update_xaxes(title="accuracy, %", range=_range(rows))
    return plotly_charts.styled(figure, height)


def _interval(row: Row) -> str:
    low, high = row.test.low, row.test.high
    return f" [{low:.1f}, {high:.1f}], {row.players} players" if math.isfinite(low) else ""
