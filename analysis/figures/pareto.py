"""efficiency_scatter: validation accuracy against each cost, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import GREY, Key, Spot, chance_key, jitter, log_axis, short_count, shortened
from analysis.load.trials import Trial
from analysis.run_summary import Findings
from analysis.stats.arms import Arm, Look, title
from analysis.write.blocks import Picture
from sousaphone.strategies import STRATEGIES
from sousaphone.text import counted

# Area of a marker, points²: the larger, the more of a backbone trains.
_SIZES = {"head": 24.0, "ia3": 30.0, "bitfit": 37.0, "lora": 48.0, "rslora": 54.0, "dora": 60.0, "adalora": 68.0}
_SIZES |= {"full": 85.0}
_HEADING = "Accuracy against cost"
_NEAR = (0.08, 0.055)  # fractions of a panel's width and height within which two numbers would overlap
_COVERED = 0.025  # the same for two markers
_FRONT = Key("Pareto front", Look("#999999", "", ""), dash=("-", "solid"))


@dataclass(frozen=True)
class Point:
    """One arm in one panel; accuracies in percent."""

    arm: Arm
    look: Look
    cost: float
    accuracy: float
    low: float  # of its seeds
    high: float
    size: float  # area of its marker, points²
    x: float  # where it is drawn: its cost, moved sideways if another point would cover it


@dataclass(frozen=True)
class Panel:
    """A cost, the arms with a known cost, and those on the Pareto front, the cheapest first."""

    title: str
    points: Sequence[Point]
    front: Sequence[Point]

    @property
    def axis(self) -> tuple[float, float, list[float]]:
        """Limits and ticks of the x axis."""
        return log_axis([point.cost for point in self.points])

    @property
    def steps(self) -> tuple[list[float], list[float]]:
        """The corners of the Pareto front's line, up to the end of the x axis."""
        accuracies = [point.accuracy for point in self.front]
        return [*(point.cost for point in self.front), self.axis[1]], [*accuracies, accuracies[-1]]

    def labels(self, numbers: Mapping[str, int], height: float) -> list[tuple[Point, str]]:
        """The text at each point of the front; numbers that would overlap are joined at the most accurate of them.

        `height` is that of the panel, percent.
        """
        start, end, _ = self.axis
        found: list[tuple[list[int], Point, float]] = []
        for point in self.front:
            across = math.log(point.cost / start) / math.log(end / start)
            joined = [numbers[point.arm.label]]
            if (
                found
                and across - found[-1][2] < _NEAR[0]
                and point.accuracy - found[-1][1].accuracy < _NEAR[1] * height
            ):
                others, last, place = found.pop()
                # Points of nearly equal cost have it at the best one: nothing is above it and to its left.
                joined, point, across = joined + others, point if across - place < 0.02 else last, place
            found.append((joined, point, across))
        return [(point, ", ".join(map(str, sorted(joined)))) for joined, point, _ in found]


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The Pareto front as indices, the cheapest first: points for which no other is at least as good in both and
    better in one."""
    found: list[int] = []
    for place in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        best = (costs[found[-1]], values[found[-1]]) if found else (0.0, -math.inf)
        if values[place] > best[1] or (costs[place], values[place]) == best:
            found.append(place)
    return found


def panels_of(run: Findings) -> list[Panel]:
    measures: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
        ("trainable parameters", lambda trial: trial.trainable_params),
        ("all parameters", lambda trial: trial.parameters.get("total")),
        (f"training time, {run.time_unit} s", lambda trial: trial.train_seconds),
        ("CPU time per clip, ms", lambda trial: run.cpu_ms.get(trial.trial_id)),
        ("size of the trained weights, kB", lambda trial: run.adapter_bytes.get(trial.trial_id, 0) / 1000),
    )
    groups = [arm for arm in run.groups if arm.full and arm.mean("val_acc") is not None]
    found = []
    for name, measure in measures:
        points = []
        for arm in groups:
            costs = [cost for cost in map(measure, arm.shown) if cost is not None and cost > 0]
            if costs:
                values = [100 * value for value in arm.values("val_acc")]
                mean, cost = sum(values) / len(values), sum(costs) / len(costs)
                size = _SIZES.get(arm.strategy, 48.0)
                points.append(Point(arm, run.look(arm), cost, mean, min(values), max(values), size, x=cost))
        if points:
            points = _visible(points)
            best = front([point.cost for point in points], [point.accuracy for point in points])
            found.append(Panel(name, points, [points[place] for place in best]))
    return found


def _visible(points: Sequence[Point]) -> list[Point]:
    """Move points sideways so that none covers another."""
    start, end, _ = log_axis([point.cost for point in points])
    width = _COVERED * math.log(end / start)
    height = _COVERED * max(max(point.high for point in points) - min(point.low for point in points), 10.0)
    moves = jitter([(math.log(point.cost) / width, point.accuracy / height) for point in points])
    return [replace(p, x=p.cost * math.exp(width * move)) for p, move in zip(points, moves, strict=True)]


def numbers_of(panels: Sequence[Panel]) -> dict[str, int]:
    """A number for the label of each arm on a front, the most accurate first."""
    on = {point.arm.label: -point.accuracy for panel in panels for point in panel.front}
    return {label: number for number, label in enumerate(sorted(on, key=lambda name: on[name]), start=1)}


def limits_of(panels: Sequence[Panel]) -> tuple[float, float]:
    """Limits of the accuracy axis; it does not begin at 0 if all arms are far above chance."""
    highest = max(point.high for panel in panels for point in panel.points)
    lowest = min(point.low for panel in panels for point in panel.points)
    span = max(highest - lowest, 10.0)
    low = lowest - 0.2 * span
    return (low if low > 10.0 else 0.0), min(highest + 0.12 * span, 104.0)


def _chance(run: Findings) -> float | None:
    """The accuracy of a random prediction of the validation clips, percent; None without predictions."""
    return 100 * run.validated.chance if run.validated else None


def picture(run: Findings) -> Picture:
    panels = panels_of(run)
    if not panels:
        return _nothing_yet(run)
    numbers = numbers_of(panels)
    caption = (
        "Upper left is better. The line is the Pareto front: no other arm is at least as good as one of its arms in "
        "both and better in one. Its arms are numbered by validation accuracy"
    )
    caption += "; bars span the seeds." if any(len(p.arm.shown) > 1 for p in panels[0].points) else "."
    if any(point.x != point.cost for panel in panels for point in panel.points):
        caption += " Overlapping markers are moved apart horizontally."
    if len({len(panel.points) for panel in panels}) > 1:
        caption += " An arm with an unknown cost is missing in that panel."
    missing = len(run.compared) - sum(trial.full and "val_acc" in trial.best for trial in run.compared)
    if missing:
        caption += f" Not shown: {missing} of {counted(len(run.compared), 'trial')}, with partial or no results."
    png, chart = _png(panels, numbers, run), _chart(panels, numbers, run)
    return Picture("efficiency_scatter", _HEADING, caption, png, chart, min_width=600)


def _nothing_yet(run: Findings) -> Picture:
    """A PNG without data, so that documents that embed this figure find a file."""
    caption = f"None of {counted(len(run.compared), 'trial')} has all its results yet."
    page = mpl.Sheet(_HEADING, run.banner, 7.0, 1.6)
    page.figure.text(0.15 / page.width, 0.7 / page.height, caption, fontsize=10, color=GREY, fontstyle="italic")
    return Picture("efficiency_scatter", _HEADING, caption, page.png())


def _grid(cells: int) -> tuple[int, int]:
    """Rows and columns of a grid with so many cells."""
    columns = cells if cells <= 3 else 2 if cells == 4 else 3
    return math.ceil(cells / columns), columns


def _png(panels: Sequence[Panel], numbers: Mapping[str, int], run: Findings) -> bytes:
    models, others = _keys(panels, run)
    rows, columns = _grid(len(panels) + 1)
    tall, gap = 2.7 if columns > 1 else 3.6, 0.65
    page = mpl.Sheet(_HEADING, run.banner, 10.5, rows * tall + (rows - 1) * gap + 0.72, [*models, *others], columns=6)
    (low, high), chance = limits_of(panels), _chance(run)
    places = page.cells(rows, columns, gap, page.foot + 0.62, tall, (0.35, gap))
    for number, panel in enumerate(panels):
        axes = page.panel(*places[number])
        if chance is not None and low < chance:
            mpl.chance_line(axes, chance, vertical=False)
        start, end, ticks = panel.axis
        axes.set_xscale("log")
        axes.set_xticks(ticks, [short_count(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(start, end)
        axes.set_ylim(low, high)
        axes.plot(*panel.steps, drawstyle="steps-post", color="#999999", linewidth=1.3, zorder=1.6)
        for p in panel.points:
            axes.vlines(p.x, p.low, p.high, colors=p.look.colour, linewidth=1.0, alpha=0.6, zorder=2)
            mpl.points(axes, [Spot(p.x, p.accuracy, p.arm.augment)], p.look, p.size)
        for point, words in panel.labels(numbers, high - low):
            # Nothing is above and to the left of a point of the front.
            style: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 9, "fontweight": "bold", "zorder": 5}
            axes.annotate(words, (point.x, point.accuracy), xytext=(-4, 3), textcoords="offset points", **style)
        axes.set_xlabel(panel.title)
        if number % columns == 0:
            axes.set_ylabel("validation accuracy, %")
        else:
            axes.tick_params(labelleft=False)
    _key(page, numbers, *places[len(panels)])
    return page.png()


def _key(page: mpl.Sheet, numbers: Mapping[str, int], left: float, bottom: float, width: float, tall: float) -> None:
    """List the numbered arms in a font size that fits the cell."""
    lines = [f"{number}  {shortened(label)}" for label, number in numbers.items()]
    size = min(9.0, tall * 72 / (1.35 * (len(lines) + 1.5)))
    size = max(4.5, min(size, size * (width + 0.1) / max(page.text_width(lines, size), 1e-9)))
    axes = page.axes(left, bottom, width, tall)
    axes.set_axis_off()
    style: dict[str, Any] = {"va": "top", "linespacing": 1.35, "fontsize": size}
    axes.text(0.0, 1.0, "\n".join(["On a Pareto front:", *lines]), **style)


def _keys(panels: Sequence[Panel], run: Findings) -> tuple[list[Key], list[Key]]:
    """The legend: the backbones, and what size, filling and lines mean."""
    shown = [point.arm for panel in panels for point in panel.points]
    models = [model for model in run.looks if model in {arm.model for arm in shown}]
    strategies = [name for name in _SIZES if name in {arm.strategy for arm in shown}]
    others = []
    if len(strategies) > 1:
        grey = Look(GREY, "o", "circle")
        others += [Key(STRATEGIES[name].title, grey, size=_SIZES[name] ** 0.5) for name in strategies]
    if len({arm.augment for arm in shown}) > 1:
        others += [Key("augmented"), Key("unaugmented", filled=False)]
    others.append(_FRONT)
    if (chance := _chance(run)) is not None and limits_of(panels)[0] < chance:
        others.append(chance_key(chance))
    return [Key(title(model), run.looks[model]) for model in models], others


def _chart(panels: Sequence[Panel], numbers: Mapping[str, int], run: Findings) -> go.Figure:
    rows, columns = _grid(len(panels) + 1)
    figure = make_subplots(rows, columns, horizontal_spacing=0.05, vertical_spacing=0.16, shared_yaxes="all")
    (low, high), chance = limits_of(panels), _chance(run)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        where = {"row": row + 1, "col": column + 1}
        words = {point.arm.label: f"<b>{text}</b>" for point, text in panel.labels(numbers, high - low)}
        start, end, ticks = panel.axis
        x, y = panel.steps
        style = {"mode": "lines", "line": {"shape": "hv", "color": "#999999", "width": 1.5}}
        figure.add_scatter(x=x, y=plotly_charts.rounded(y), hoverinfo="skip", showlegend=False, **style, **where)
        for model in run.looks:
            own = [p for p in panel.points if p.arm.model == model]
            if not own:
                continue
            look = run.looks[model]
            bars = plotly_charts.error([Spot(p.accuracy, 0, low=p.low, high=p.high) for p in own], look.colour)
            face = [look.colour if p.arm.augment else "#ffffff" for p in own]
            marker = plotly_charts.outlined(look.symbol, look.colour, face, [1.4 * p.size**0.5 for p in own])
            figure.add_scatter(
                x=[float(f"{p.x:.5g}") for p in own],
                customdata=[float(f"{p.cost:.5g}") for p in own],
                y=plotly_charts.rounded([p.accuracy for p in own]),
                error_y={**bars, "thickness": 1, "width": 0},
                mode="markers+text",
                text=[words.get(p.arm.label, "") for p in own],
                textposition="top left",
                cliponaxis=False,
                hovertext=[plotly_charts.escape(p.arm.label, 200) for p in own],
                hovertemplate="%{hovertext}<br>%{customdata:.4~s}, %{y:.1f} %<extra></extra>",
                name=plotly_charts.escape(title(model)),
                legendgroup=model,
                showlegend=number == 0,
                # By default plotly draws markers of several sizes transparent.
                marker={**marker, "opacity": 1},
                **where,
            )
        if chance is not None and low < chance:
            plotly_charts.chance_line(figure, chance, vertical=False, **where)
        numbered = {"tickvals": ticks, "ticktext": [short_count(tick) for tick in ticks]}
        limits = [math.log10(start), math.log10(end)]
        figure.update_xaxes(type="log", range=limits, **numbered, title=panel.title, **where)
    figure.update_yaxes(range=[low, high])
    figure.update_yaxes(title="validation accuracy, %", col=1)
    _chart_key(figure, numbers, *divmod(len(panels), columns))
    plotly_charts.legend(figure, _keys(panels, run)[1], legendrank=2000)
    return plotly_charts.styled(figure, 330 * rows)


def _chart_key(figure: go.Figure, numbers: Mapping[str, int], row: int, column: int) -> None:
    """List the numbered arms in the cell without a panel."""
    figure.update_xaxes(visible=False, row=row + 1, col=column + 1)
    figure.update_yaxes(visible=False, row=row + 1, col=column + 1)
    cell = figure.get_subplot(row + 1, column + 1)
    lines = [f"<b>{number}</b>  {plotly_charts.escape(label)}" for label, number in numbers.items()]
    place = {"x": cell.xaxis.domain[0], "y": cell.yaxis.domain[1], "xref": "paper", "yref": "paper"}
    style = {"xanchor": "left", "yanchor": "top", "align": "left", "font": {"size": 12 if len(lines) <= 14 else 9}}
    figure.add_annotation(text="<br>".join(["On a Pareto front:", *lines]), showarrow=False, **place, **style)
