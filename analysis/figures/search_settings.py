"""search_settings: parallel coordinates of the configurations of a search, coloured by score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from matplotlib.collections import LineCollection
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import GRID, INK, Key
from analysis.run_summary import Findings
from analysis.stats.arms import Look, in_words, title, value_in_words
from analysis.stats.search_results import Configuration, SearchResults
from analysis.write.blocks import Picture
from sousaphone.config import TAGGED
from sousaphone.search.dimensions import Dimension
from sousaphone.text import counted

_HEADING = "Settings of the configurations"
_COLOURS = ("#d2e21b", "#7ad151", "#35b779", "#21918c", "#31688e", "#443983", "#440154")  # viridis, the best dark
_DASHES: tuple[Any, ...] = ((0, (4, 2)), "dash")  # of the untuned default
_KEYS = [
    Key("lowest score", Look(_COLOURS[0], "", ""), dash=("-", "solid")),
    Key("highest score", Look(_COLOURS[-1], "", ""), dash=("-", "solid")),
    Key("untuned default", Look(INK, "", ""), dash=_DASHES),
]


@dataclass(frozen=True)
class Axis:
    """One vertical axis from 0 to 1."""

    name: str
    ticks: Sequence[tuple[float, str]]  # (height, label)
    log: bool = False
    low: float = 0.0
    high: float = 1.0

    def height(self, value: Any) -> float:
        """Return the height of a value; NaN if it has none."""
        if not isinstance(value, int | float) or isinstance(value, bool):
            return math.nan
        if self.high <= self.low:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """One configuration: its heights on the axes, the last of them that of its score."""

    heights: Sequence[float]
    each: Configuration
    score: float

    @property
    def colour(self) -> str:
        return _COLOURS[min(int(self.heights[-1] * len(_COLOURS)), len(_COLOURS) - 1)]

    @property
    def hover(self) -> str:
        settings = "<br>".join(plotly_charts.escape(in_words({n: v})) for n, v in self.each.settings.items())
        return f"{plotly_charts.escape(self.each.name)}<br>{settings}<br>score {self.score:.3f}"


@dataclass(frozen=True)
class Panel:
    title: str
    axes: Sequence[Axis]
    lines: Sequence[Line]


def picture(run: Findings) -> Picture | None:
    if run.search is None:
        return None
    panels = [panel for model in run.search.configurations if (panel := _panel(run.search, model))]
    if not panels:
        return None
    first = min(run.search.search.rungs, default=0)
    caption = (
        f"Each line is a configuration; each axis a setting, from the lowest to the highest value of the backbone's "
        f"search space, and the last one the score: the best validation macro F1 up to the first rung ({first:,} "
        "steps), which is comparable between configurations. Dark: high scores of the backbone. Thick: finalists. "
        "Dashed: the untuned default. A setting may matter where dark and pale lines are apart on its axis; a bundle "
        "alone shows only where the search proposed more."
    )
    most = max(len(panel.axes) for panel in panels)
    chart = _chart(panels)
    return Picture("search_settings", _HEADING, caption, _png(run, panels), chart, min_width=200 + 110 * most)


def _panel(results: SearchResults, model: str) -> Panel | None:
    points, scores = results.compared(model)
    if not points:
        return None
    known = {id(point): score for point, score in zip(points, scores, strict=True)}
    own = [each for each in results.configurations[model] if id(each.settings) in known]
    space = results.search.space[model]
    names = [name for name in space if all(name in each.settings for each in own)]
    columns = {name: [each.settings[name] for each in own] for name in names}
    axes = [_axis(TAGGED.get(name, name), columns[name], space[name]) for name in names]
    places = [_places(columns[name], space[name], axis) for name, axis in zip(names, axes, strict=True)]
    low, high = min(scores), max(scores)
    last = Axis("score", [(0.0, f"{low:.3f}"), (1.0, f"{high:.3f}")], low=low, high=high)
    heights = zip(*places, map(last.height, scores), strict=True)
    lines = [Line(found, each, known[id(each.settings)]) for found, each in zip(heights, own, strict=True)]
    lines.sort(key=lambda line: (line.each.default, line.score))  # the best above the others
    return Panel(f"{title(model)}, {counted(len(lines), 'configuration')}", [*axes, last], lines)


def _choices(column: Iterable[Any], dimension: Dimension) -> list[str]:
    return list(dict.fromkeys(map(value_in_words, [*dimension.values, *column])))


def _axis(name: str, column: Sequence[Any], dimension: Dimension) -> Axis:
    if dimension.type == "choice":
        labels = _choices(column, dimension)
        most = max(len(labels) - 1, 1)
        return Axis(name, [(place / most, label) for place, label in enumerate(labels)])
    low, high = min(dimension.low, *column), max(dimension.high, *column)
    log = dimension.type == "loguniform" and low > 0
    return Axis(name, [(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")], log, low, high)


def _places(column: Sequence[Any], dimension: Dimension, axis: Axis) -> list[float]:
    if dimension.type != "choice":
        return [axis.height(value) for value in column]
    heights = {label: height for height, label in axis.ticks}
    return [heights[value_in_words(value)] for value in column]


def _width(line: Line) -> float:
    return 2.4 if line.each.finals else 1.1


def _png(run: Findings, panels: Sequence[Panel]) -> bytes:
    height, gap = 1.7, 0.75
    page = mpl.Sheet(_HEADING, run.banner, 10.0, len(panels) * (height + gap) + 0.1, _KEYS, columns=3)
    places = page.cells(len(panels), 1, 0.5, page.foot + 0.35, height, (0.0, gap))
    for panel, place in zip(panels, places, strict=True):
        axes = page.axes(*place)
        axes.set_axis_off()
        for x, axis in enumerate(panel.axes):
            axes.axvline(x, color="#999999", linewidth=1, zorder=1)
            axes.text(x, -0.13, axis.name, ha="center", va="top", fontsize=9)
            for y, label in axis.ticks:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
                axes.text(x + 0.03, y, label, va="center", fontsize=7.5, bbox=box, zorder=4)
        for default in (False, True):
            own = [line for line in panel.lines if line.each.default is default]
            axes.add_collection(
                LineCollection(
                    [list(enumerate(line.heights)) for line in own],
                    colors=[INK if default else line.colour for line in own],
                    linewidths=[_width(line) for line in own],
                    linestyles=[_DASHES[0] if default else "-"],
                    zorder=3 if default else 2,
                )
            )
        axes.set_title(panel.title, loc="left", fontsize=9.5)
        axes.set_xlim(-0.1, len(panel.axes) - 1 + 0.35)
        axes.set_ylim(-0.08, 1.08)
    return page.png()


def _chart(panels: Sequence[Panel]) -> go.Figure:
    """The chart, of ordinary lines: plotly's own parallel coordinates need WebGL, which the page's policy rejects."""
    titles = [plotly_charts.escape(panel.title) for panel in panels]
    figure = make_subplots(len(panels), 1, subplot_titles=titles, vertical_spacing=0.3 / len(panels))
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, panel in enumerate(panels, start=1):
        where = {"row": row, "col": 1}
        groups: dict[tuple[bool, str, float], list[Line]] = {}
        for line in panel.lines:  # few traces: hundreds make a page slow
            colour = INK if line.each.default else line.colour
            groups.setdefault((line.each.default, colour, _width(line)), []).append(line)
        for (default, colour, width), lines in groups.items():
            gap = len(panel.axes)
            figure.add_scatter(
                x=[x for _ in lines for x in (*range(gap), None)],
                y=[y for line in lines for y in (*plotly_charts.rounded(line.heights, 4), None)],
                text=[text for line in lines for text in (*[line.hover] * gap, "")],
                mode="lines",
                line={"color": colour, "width": 1.4 * width, "dash": _DASHES[1] if default else "solid"},
                hovertemplate="%{text}<extra></extra>",
                showlegend=False,
                **where,
            )
        for x, axis in enumerate(panel.axes):
            figure.add_vline(x, line={"color": "#999999", "width": 1}, layer="below", **where)
            for y, label in axis.ticks:
                style = {"showarrow": False, "xanchor": "left", "xshift": 3, "font": {"size": 11}}
                text = plotly_charts.escape(label, 16)
                figure.add_annotation(x=x, y=y, text=text, bgcolor="rgba(255,255,255,0.8)", **style, **where)
        names = [plotly_charts.escape(axis.name, 24) for axis in panel.axes]
        ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
        figure.update_xaxes(range=[-0.1, len(names) - 1 + 0.4], showline=False, **ticks, **where)
        figure.update_yaxes(range=[-0.1, 1.1], visible=False, gridcolor=GRID, **where)
    plotly_charts.legend(figure, _KEYS)
    return plotly_charts.styled(figure, 250 * len(panels))
