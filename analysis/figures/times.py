"""training_time: seconds in training steps for each trial and for each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import INK, Dot, row_jitter, short_seconds
from analysis.load.trials import Trial
from analysis.stats.arms import Arm
from analysis.write.blocks import Picture

_MEASURES: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
    ("seconds per trial", lambda trial: trial.train_seconds),
    ("seconds per epoch", lambda trial: trial.mean("epoch_seconds")),
)


@dataclass(frozen=True)
class Bar:
    y: int
    arm: Arm
    seeds: list[float]

    @property
    def mean(self) -> float:
        return sum(self.seeds) / len(self.seeds)


def picture(scene: Scene) -> Picture:
    caption = "Time in training steps, without evaluation; mean over each arm's trials. Sorted by validation macro F1."
    if any(len(arm.trials) > 1 for arm in scene.groups):
        caption += " Dots: single seeds; overlapping dots are moved apart vertically."
    if not all(arm.full for arm in scene.groups):
        caption += " Pale: partial results; a full training takes longer."
    return Picture("training_time", "Training time", caption, _png(scene), _chart(scene), min_width=550)


def _bars(scene: Scene, measure: Callable[[Trial], float | None]) -> tuple[list[Bar], list[Dot]]:
    """The arms with a known time, and dots for single seeds."""
    rows = [Bar(y, arm, [v for v in map(measure, arm.shown) if v is not None]) for y, arm in enumerate(scene.groups)]
    bars = [bar for bar in rows if bar.seeds]
    limits = (0.0, max((value for bar in bars for value in bar.seeds), default=1.0) or 1.0)
    dots = []
    for bar in bars:
        if len(bar.seeds) > 1:
            shifts = row_jitter(bar.seeds, limits, step=0.13, most=0.27)
            dots += [Dot(value, bar.y + shift, INK) for value, shift in zip(bar.seeds, shifts, strict=True)]
    return bars, dots


def _png(scene: Scene) -> bytes:
    labels = [arm.name for arm in scene.groups]
    page, panels = mpl.row_sheet("Training time", scene.banner, labels, width=10.0, panels=2)
    for axes, (label, measure) in zip(panels, _MEASURES, strict=True):
        bars, dots = _bars(scene, measure)
        shades = [scene.look(bar.arm).colour for bar in bars]
        axes.barh([bar.y for bar in bars], [bar.mean for bar in bars], height=0.62, color=shades)
        mpl.dots(axes, dots, opaque=0.6)
        for bar in bars:
            end = max(bar.seeds), bar.y
            offset: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(short_seconds(bar.mean), end, **offset, va="center", fontsize=8.5)
        # Room for the number beyond the longest bar.
        axes.set_xlim(0, 1.22 * (max((max(bar.seeds) for bar in bars), default=1.0) or 1.0))
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))  # the outermost numbers of the panels are close
    return page.png()


def _chart(scene: Scene) -> go.Figure:
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (name, measure) in enumerate(_MEASURES, start=1):
        bars, dots = _bars(scene, measure)
        means = [bar.mean for bar in bars]
        figure.add_bar(
            x=plotly_charts.rounded(means),
            y=[bar.y for bar in bars],
            width=0.62,
            orientation="h",
            hovertext=[plotly_charts.escape(bar.arm.name) for bar in bars],
            hovertemplate="%{x:.1f} s<br>%{hovertext}<extra></extra>",
            marker={"color": [scene.look(bar.arm).colour for bar in bars]},
            showlegend=False,
            row=1,
            col=column,
        )
        plotly_charts.dots(figure, dots, "%{x:.1f} s<extra></extra>", INK, 4, 0.6, row=1, col=column)
        ends = [max(bar.seeds) for bar in bars]
        figure.add_scatter(
            x=ends,
            y=[bar.y for bar in bars],
            mode="text",
            text=[f" {short_seconds(mean)}" for mean in means],
            textposition="middle right",
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=column,
        )
        longest = max(ends, default=1.0) or 1.0
        figure.update_xaxes(title=name, range=[0, 1.2 * longest], row=1, col=column)
    height = plotly_charts.row_axis(figure, [arm.name for arm in scene.groups], row=1, col=1)
    figure.update_yaxes(range=[max(len(scene.groups), 2) - 0.5, -0.5], showgrid=False, row=1, col=2)
    return plotly_charts.styled(figure, height)
