"""training_time: seconds spent in training steps, of a whole trial and of one epoch."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import INK, short_seconds
from analysis.load.trials import Trial
from analysis.stats.arms import Arm
from analysis.write.blocks import Picture

_MEASURES: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
    ("seconds a trial", lambda trial: trial.train_seconds),
    ("seconds an epoch", lambda trial: trial.seconds_per_epoch),
)


def picture(scene: Scene) -> Picture:
    several = any(len(arm.trials) > 1 for arm in scene.groups)
    told = "Time in training steps, evaluation not counted: the mean of an arm's trials, by validation macro F1."
    if several:
        told += " Dots: single seeds."
    if not all(arm.full for arm in scene.groups):
        told += " Pale: partial results; what has not ended took longer, or would."
    return Picture("training_time", "Training time", told, _png(scene), _chart(scene))


def _values(arm: Arm, measure: Callable[[Trial], float | None]) -> list[float]:
    return [value for value in map(measure, arm.shown) if value is not None]


def _png(scene: Scene) -> bytes:
    labels = [arm.label for arm in scene.groups]
    page, panels = mpl.row_sheet("Training time", scene.banner, labels, width=10.0, panels=2)
    for axes, (label, measure) in zip(panels, _MEASURES, strict=True):
        known = [(y, arm, values) for y, arm in enumerate(scene.groups) if (values := _values(arm, measure))]
        means = [sum(values) / len(values) for _, _, values in known]
        shades = [scene.shade(arm) for _, arm, _ in known]
        axes.barh([y for y, _, _ in known], means, height=0.62, color=shades)
        dotted = [(value, y) for y, _, values in known if len(values) > 1 for value in values]
        mpl.dots(axes, [value for value, _ in dotted], [y for _, y in dotted], [INK] * len(dotted), opaque=0.6)
        for (y, arm, values), mean in zip(known, means, strict=True):
            words = f"{short_seconds(mean)}   {arm.state}".strip()
            axes.annotate(words, (max(values), y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8.5)
        for y, arm in enumerate(scene.groups):
            if not _values(arm, measure):
                mpl.beside(axes, 0.0, y, arm.state, 4)
        # Room for the words beyond the longest bar.
        longest = max((max(values) for _, _, values in known), default=1.0) or 1.0
        axes.set_xlim(0, longest * (1.55 if any(arm.state for arm in scene.groups) else 1.22))
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))  # the panels' outermost numbers stand close
    return page.png()


def _chart(scene: Scene) -> go.Figure:
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (name, measure) in enumerate(_MEASURES, start=1):
        known = [(y, arm, values) for y, arm in enumerate(scene.groups) if (values := _values(arm, measure))]
        means = [sum(values) / len(values) for _, _, values in known]
        figure.add_bar(
            x=plotly_charts.rounded(means),
            y=[y for y, _, _ in known],
            width=0.62,
            orientation="h",
            text=[short_seconds(mean) for mean in means],
            textposition="outside",
            cliponaxis=False,
            hovertext=[plotly_charts.escape(arm.name) for _, arm, _ in known],
            hovertemplate="%{x:.1f} s<br>%{hovertext}<extra></extra>",
            marker={
                "color": [scene.shade(arm) for _, arm, _ in known],
            },
            showlegend=False,
            row=1,
            col=column,
        )
        dotted = [(value, y) for y, _, values in known if len(values) > 1 for value in values]
        figure.add_scatter(
            x=plotly_charts.packed([value for value, _ in dotted]),
            y=plotly_charts.packed([y for _, y in dotted]),
            mode="markers",
            marker={"size": 4, "color": INK, "opacity": 0.6},
            hovertemplate="%{x:.1f} s<extra></extra>",
            showlegend=False,
            row=1,
            col=column,
        )
        longest = max(means, default=1.0) or 1.0
        figure.update_xaxes(title=name, range=[0, 1.2 * longest], row=1, col=column)
    height = plotly_charts.row_axis(figure, [arm.name for arm in scene.groups], row=1, col=1)
    figure.update_yaxes(range=[max(len(scene.groups), 2) - 0.5, -0.5], showgrid=False, row=1, col=2)
    return plotly_charts.styled(figure, height)
