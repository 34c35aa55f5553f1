"""search_budget: the best validation score so far against the optimiser steps spent on a backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import GREY, Key
from analysis.run_summary import Findings
from analysis.stats.arms import Look, title
from analysis.write.blocks import Picture

_HEADING = "Best score against optimiser steps"
_X, _Y = "optimiser steps of the search", "best validation macro F1"
_DEFAULT = Key("untuned default at its end", Look(GREY, "", ""), dash=(":", "dot"))


@dataclass(frozen=True)
class Line:
    """A backbone: its steps, its best score so far, and the score of its untuned default (NaN: none)."""

    name: str
    look: Look
    steps: Sequence[float]
    scores: Sequence[float]
    default: float


def picture(run: Findings) -> Picture | None:
    if run.search is None:
        return None
    lines = []
    for model in run.search.configurations:
        points = [(steps, score) for steps, score in run.search.course(model) if math.isfinite(score)]
        default = run.search.default(model)
        score = default.score if default is not None and math.isfinite(default.score) else math.nan
        if points:
            steps, scores = ([point[i] for point in points] for i in (0, 1))
            lines.append(Line(title(model), run.looks[model], steps, scores, score))
    if not lines:
        return None
    caption = (
        "Best validation macro F1 of any configuration so far, after each epoch, against the optimiser steps spent on "
        "the backbone (steps of the search, without the finalists), in the order of a search of one trial at a time. "
        "Dotted: the best score of the untuned default. A line that still rises at its end may gain from a larger "
        "budget."
    )
    return Picture("search_budget", _HEADING, caption, _png(run, lines), _chart(lines), min_width=450)


def _highest(lines: list[Line]) -> float:
    return 1.08 * max([0.05, *(score for line in lines for score in (*line.scores, line.default) if score > 0)])


def _png(run: Findings, lines: list[Line]) -> bytes:
    keys = [*(Key(line.name, line.look, size=5, dash=("-", "solid")) for line in lines), _DEFAULT]
    page = mpl.Sheet(_HEADING, run.banner, 8.5, 3.9, keys, columns=5)
    axes = page.panel(0.75, page.foot + 0.6, 7.5, 3.1)
    for line in lines:
        colour = line.look.colour
        axes.step(line.steps, line.scores, where="post", color=colour, linewidth=1.6, zorder=3)
        axes.plot(line.steps[-1:], line.scores[-1:], color=colour, marker=line.look.marker, markersize=6, zorder=4)
        axes.axhline(line.default, color=colour, linestyle=":", linewidth=1.2, zorder=2)
    axes.set_xlabel(_X)
    axes.set_ylabel(_Y)
    axes.set_xlim(left=0)
    axes.set_ylim(0, _highest(lines))
    return page.png()


def _chart(lines: list[Line]) -> go.Figure:
    figure = go.Figure()
    for line in lines:
        figure.add_scatter(
            x=line.steps,
            y=plotly_charts.packed(line.scores),
            name=plotly_charts.escape(line.name),
            mode="lines+markers",
            line={"shape": "hv", "color": line.look.colour, "width": 2},
            marker={"symbol": line.look.symbol, "size": [0] * (len(line.steps) - 1) + [9], "opacity": 1},
            hovertemplate="%{x:,} steps: %{y:.3f}<extra>%{fullData.name}</extra>",
            showlegend=True,
        )
        if math.isfinite(line.default):
            figure.add_hline(line.default, line={"dash": "dot", "color": line.look.colour, "width": 1.2})
    plotly_charts.legend(figure, [_DEFAULT])
    figure.update_xaxes(title=_X, rangemode="tozero")
    figure.update_yaxes(title=_Y, range=[0, _highest(lines)])
    return plotly_charts.styled(figure, 340)
