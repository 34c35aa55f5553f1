"""training_time: seconds in training steps for each trial and for each epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import INK, Dot, row_jitter, short_seconds
from analysis.load.trials import Trial
from analysis.write.blocks import Picture

_MEASURES: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
    ("seconds per trial", lambda trial: trial.train_seconds),
    ("seconds per epoch", lambda trial: trial.mean("epoch_seconds")),
)


class Bar(NamedTuple):
    y: int
    name: str
    colour: str
    mean: float
    end: float  # the slowest seed


def picture(scene: Scene) -> Picture:
    caption = "Time in training steps, without evaluation; mean over each arm's trials. Sorted by validation macro F1."
    if any(len(arm.trials) > 1 for arm in scene.groups):
        caption += " Dots: single seeds; overlapping dots are moved apart vertically."
    if not all(arm.full for arm in scene.groups):
        caption += " Pale: partial results; a full training takes longer."
    return Picture("training_time", "Training time", caption, _png(scene), _chart(scene), min_width=550)


def _bars(scene: Scene, measure: Callable[[Trial], float | None]) -> tuple[list[Bar], list[Dot], float]:
    """The arms with a known time, dots for single seeds, and the end of the x axis, with room for numbers."""
    seeds = [[v for v in map(measure, arm.shown) if v is not None] for arm in scene.groups]
    end = 1.22 * (max(map(max, filter(None, seeds)), default=1.0) or 1.0)
    bars, dots = [], []
    for y, (arm, own) in enumerate(zip(scene.groups, seeds, strict=True)):
        if own:
            bars.append(Bar(y, arm.name, scene.look(arm).colour, sum(own) / len(own), max(own)))
        if len(own) > 1:
            shifts = row_jitter(own, (0.0, end), step=0.13, most=0.27)
            dots += [Dot(value, y + shift, INK) for value, shift in zip(own, shifts, strict=True)]
    return bars, dots, end


def _png(scene: Scene) -> bytes:
    labels = [arm.name for arm in scene.groups]
    page, panels = mpl.row_sheet("Training time", scene.banner, labels, width=10.0, panels=2)
    for axes, (label, measure) in zip(panels, _MEASURES, strict=True):
        bars, dots, end = _bars(scene, measure)
        for bar in bars:
            axes.barh(bar.y, bar.mean, height=0.62, color=bar.colour)
            offset: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(short_seconds(bar.mean), (bar.end, bar.y), **offset, va="center", fontsize=8.5)
        mpl.dots(axes, dots, opaque=0.6)
        axes.set_xlim(0, end)
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))  # the outermost numbers of the panels are close
    return page.png()


def _chart(scene: Scene) -> go.Figure:
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (name, measure) in enumerate(_MEASURES, start=1):
        bars, dots, end = _bars(scene, measure)
        y, where = [bar.y for bar in bars], {"showlegend": False, "row": 1, "col": column}
        figure.add_bar(
            x=plotly_charts.rounded([bar.mean for bar in bars]),
            y=y,
            width=0.62,
            orientation="h",
            hovertext=[plotly_charts.escape(bar.name) for bar in bars],
            hovertemplate="%{x:.1f} s<br>%{hovertext}<extra></extra>",
            marker={"color": [bar.colour for bar in bars]},
            **where,
        )
        plotly_charts.dots(figure, dots, "%{x:.1f} s<extra></extra>", INK, 4, 0.6, row=1, col=column)
        words = {"mode": "text", "textposition": "middle right", "hoverinfo": "skip", "cliponaxis": False}
        texts = [f" {short_seconds(bar.mean)}" for bar in bars]
        figure.add_scatter(x=[bar.end for bar in bars], y=y, text=texts, **words, **where)
        figure.update_xaxes(title=name, range=[0, end], row=1, col=column)
    height = plotly_charts.row_axis(figure, [arm.name for arm in scene.groups], row=1, col=1)
    figure.update_yaxes(range=[max(len(scene.groups), 2) - 0.5, -0.5], showgrid=False, row=1, col=2)
    return plotly_charts.styled(figure, height)
