"""learning_curves: validation accuracy, validation loss and training cross entropy, by epochs and by seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import INK, paled
from analysis.load.trials import Trial
from analysis.stats.arms import Arm, Look, best_of_each, title
from analysis.write.blocks import Picture
from sousaphone.rudiments import SLUGS
from sousaphone.text import counted

_METRICS = (
    ("val_acc", "validation accuracy, %", 100.0),
    ("val_loss", "validation loss", 1.0),
    ("train_ce", "training cross entropy", 1.0),
)
_PANELS = [  # (row, column, what is along x, metric, its name)
    (row, column, span, metric, label)
    for row, span in enumerate(("epoch", "seconds of training"), start=1)
    for column, (metric, label, _) in enumerate(_METRICS, start=1)
]
# Of the arms of one backbone: (Matplotlib's style, plotly's).
_DASHES: tuple[tuple[Any, str], ...] = (
    ("-", "solid"),
    (":", "dot"),
    ("--", "dash"),
    ("-.", "dashdot"),
    ((0, (8, 3)), "longdash"),
    ((0, (8, 3, 2, 3)), "longdashdot"),
    ((0, (1, 4)), "2px,6px"),
    ((0, (4, 6)), "6px,9px"),
)
_FEW = 8  # arms, up to which all are drawn alike
_HIGHEST_LOSS = 2.2 * math.log(len(SLUGS))  # twice that of guessing; what diverges runs out of its panel
_MOST_POINTS = 3_000  # in one panel; longer curves are thinned, or the page grows by a megabyte


def picture(scene: Scene) -> Picture | None:
    known = [arm for arm in scene.groups if any(trial.history for trial in arm.trials)]
    if not known:
        return None
    strong = {arm.label for arm in (known if len(known) <= _FEW else best_of_each(known))}
    step = max(1, math.ceil(sum(len(trial.history) for trial in scene.trials) / _MOST_POINTS))
    told = "Above over epochs, below over the seconds spent in training steps. "
    if len(strong) < len(known):
        told += (
            f"Strong: the best arm of each backbone by validation, of {counted(len(known), 'arm')}; pale: the others. "
        )
    if any(len(arm.trials) > 1 for arm in known):
        told += (
            "A line is the mean over an arm's seeds, as far as all of them went; the thin ones beside strong lines are "
            "single seeds. "
        )
    told += "The marker is the best epoch."
    if step > 1:
        told += f" One epoch in {step} is drawn."
    drawing = _Drawing(scene, known, strong, _dashes(known, strong), step)
    return Picture("learning_curves", "Learning curves", told, _png(drawing), _chart(drawing))


@dataclass(frozen=True)
class _Drawing:
    """What both renderings share."""

    scene: Scene
    known: Sequence[Arm]  # the arms with at least an epoch, the best first
    strong: Collection[str]  # labels of those that are not pale
    dashes: Mapping[str, tuple[Any, str]]  # by variant: (Matplotlib's style, plotly's)
    step: int  # how many epochs are drawn as one

    def dash(self, arm: Arm) -> tuple[Any, str]:
        return self.dashes[arm.variant] if arm.label in self.strong else _DASHES[0]


def _dashes(known: Sequence[Arm], strong: Collection[str]) -> Mapping[str, tuple[Any, str]]:
    """A dash for each variant of the strong arms; the augmented ones take the plainer."""
    variants = sorted({(not arm.augment, arm.variant) for arm in known if arm.label in strong})
    return {variant: _DASHES[i % len(_DASHES)] for i, (_, variant) in enumerate(variants)}


@dataclass(frozen=True)
class Curve:
    """One line: of a trial, or the mean of several; `best` is the place of the best epoch in it."""

    epochs: Sequence[float]
    seconds: Sequence[float]
    values: Mapping[str, Sequence[float]]  # by metric, NaN where it is missing
    best: int | None

    def along(self, span: str) -> Sequence[float]:
        return self.epochs if span == "epoch" else self.seconds


def curve_of(trial: Trial, step: int = 1) -> Curve:
    """The course of one trial; of its epochs every `step`th, the best and the last."""
    rows, wanted = trial.history, trial.best.get("epoch")
    seconds = list(accumulate(row.get("epoch_seconds", math.nan) for row in rows))
    kept = [i for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1 or row["epoch"] == wanted]
    values = {name: [scale * rows[i].get(name, math.nan) for i in kept] for name, _, scale in _METRICS}
    best = next((place for place, i in enumerate(kept) if rows[i]["epoch"] == wanted), None)
    return Curve([float(rows[i]["epoch"]) for i in kept], [seconds[i] for i in kept], values, best)


def mean_curve(trials: Sequence[Trial], step: int = 1) -> Curve:
    """The mean of several trials at each epoch that all of them finished.

    Its best epoch is that of the highest mean macro F1, or accuracy where an old run has none.
    """
    curves = [curve_of(trial) for trial in trials]
    length = min(len(curve.epochs) for curve in curves)

    def mean(lines: Sequence[Sequence[float]]) -> list[float]:
        return [sum(line[i] for line in lines) / len(lines) for i in range(length)]

    values = {name: mean([curve.values[name] for curve in curves]) for name, _, _ in _METRICS}
    chosen_by = "val_macro_f1" if any("val_macro_f1" in trial.last for trial in trials) else "val_acc"
    scores = [sum(trial.history[i].get(chosen_by, -math.inf) for trial in trials) for i in range(length)]
    best = scores.index(max(scores)) if scores else None
    kept = [i for i in range(length) if i % step == 0 or i in (best, length - 1)]
    seconds = mean([curve.seconds for curve in curves])
    values = {name: [line[i] for i in kept] for name, line in values.items()}
    place = None if best is None else kept.index(best)
    return Curve([curves[0].epochs[i] for i in kept], [seconds[i] for i in kept], values, place)


def _lines(arm: Arm, step: int) -> tuple[list[tuple[Trial, Curve]], Curve | None]:
    """The lines of the single trials, and the one that stands for the arm; None where no epoch is common to all."""
    shown = [trial for trial in arm.shown if trial.history]
    single = [(trial, curve_of(trial, step)) for trial in arm.trials if trial.history]
    if len(single) == 1:
        return [], single[0][1]
    mean = mean_curve(shown, step) if shown else None
    return single, mean if mean is not None and mean.epochs else None


def _png(drawing: _Drawing) -> bytes:
    scene, known = drawing.scene, drawing.known
    legend = [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=6, linewidth=1.6, label=title(model))
        for model, look in scene.looks.items()
        if model in {arm.model for arm in known}
    ]
    if len(drawing.dashes) > 1:
        legend += [mpl.stroke(variant, INK, dash, 1.6) for variant, (dash, _) in drawing.dashes.items()]
    columns, width, panel, gap, left = 4, 10.5, 2.45, 0.62, 0.62
    foot = mpl.legend_height(len(legend), columns) + 0.6
    page = mpl.sheet("Learning curves", scene.banner, width, foot + 2 * panel + gap + 0.05)
    each = (width - 3 * left - 0.2) / 3
    panels = {}
    for row, column, span, metric, label in _PANELS:
        across, up = left + (column - 1) * (each + left), foot + (2 - row) * (panel + gap)
        axes = panels[span, metric] = page.panel(across, up, each, panel)
        axes.set_xlabel(span)
        axes.set_ylabel(label)
    for arm in reversed(known):  # the best on top
        look, bold = scene.look(arm), arm.label in drawing.strong
        single, whole = _lines(arm, drawing.step)
        shade = look.colour if arm.full else paled(look.colour, 0.5)
        for (span, metric), axes in panels.items():
            if bold or whole is None:
                # As one artist, which Matplotlib draws many times faster.
                lines = [np.column_stack([curve.along(span), curve.values[metric]]) for _, curve in single]
                thin: dict[str, Any] = {"colors": paled(look.colour, 0.35), "linewidths": 0.7, "zorder": 1.8}
                axes.add_collection(LineCollection(lines, **thin))
            if whole is not None:
                x, y = whole.along(span), whole.values[metric]
                style: dict[str, Any] = (
                    {"color": shade, "linewidth": 1.5} if bold else {"color": paled(shade), "linewidth": 0.9}
                )
                axes.plot(x, y, linestyle=drawing.dash(arm)[0], zorder=3 if bold else 2, **style)
                if whole.best is not None and (bold or len(x) == 1):  # a line of one epoch cannot be seen
                    axes.plot(x[whole.best], y[whole.best], marker=look.marker, markersize=5, zorder=4, **style)
    for (_, metric), axes in panels.items():
        axes.autoscale_view()
        axes.set_ylim(*_ends(drawing, metric))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    page.legend(legend, columns)
    return page.png()


def _ends(drawing: _Drawing, metric: str) -> tuple[float, float]:
    """Where the vertical axis begins and ends: an accuracy's at 0, a loss's a little below the lowest."""
    scale = next(scale for name, _, scale in _METRICS if name == metric)
    values = [scale * value for arm in drawing.known for trial in arm.trials for value in trial.values(metric)]
    highest = max(values, default=1.0) or 1.0
    if metric == "val_acc":
        return 0.0, 1.05 * highest
    lowest, highest = min(values, default=0.0), min(highest, _HIGHEST_LOSS)
    pad = 0.05 * max(highest - lowest, 0.01 * highest)
    return max(0.0, lowest - pad), highest + pad


def _chart(drawing: _Drawing) -> go.Figure:
    """A click on a name in the legend hides its lines everywhere."""
    scene, known = drawing.scene, drawing.known
    figure = make_subplots(2, len(_METRICS), horizontal_spacing=0.07, vertical_spacing=0.13)
    few = len(known) <= _FEW
    if not few:
        for model in scene.models:
            plotly_charts.legend_line(figure, title(model), "solid", scene.looks[model].colour, legendgroup=model)
        if len(drawing.dashes) > 1:
            for variant, (_, dash) in drawing.dashes.items():
                plotly_charts.legend_line(figure, variant, dash)
    for arm in reversed(known):
        single, whole = _lines(arm, drawing.step)
        bold = arm.label in drawing.strong
        own = {
            "name": plotly_charts.label(arm.label),
            "legendgroup": plotly_charts.label(arm.label if few else arm.model),
        }
        for row, column, span, metric, _ in _PANELS:
            if single and (bold or whole is None):
                _add_seeds(figure, single, span, metric, scene.look(arm), row=row, col=column, **own)
            if whole is not None:
                _add_whole(figure, drawing, arm, whole, span, metric, row=row, col=column, **own)
    if few:
        named: set[str] = set()
        for trace in figure.data[::-1]:  # the best arm is drawn last
            trace.showlegend = trace.name not in named and trace.mode != "lines"
            trace.legendrank = 1000 + len(named)
            named.add(trace.name)
    for row, column, span, metric, label in _PANELS:
        figure.update_xaxes(title=span, rangemode="tozero", row=row, col=column)
        figure.update_yaxes(title=label, range=list(_ends(drawing, metric)), row=row, col=column)
    return plotly_charts.styled(figure, 560, legend_columns=3)


def _add_whole(
    figure: go.Figure, drawing: _Drawing, arm: Arm, whole: Curve, span: str, metric: str, **more: Any
) -> None:
    look, bold, number = drawing.scene.look(arm), arm.label in drawing.strong, len(whole.epochs)
    colour = look.colour if arm.full else paled(look.colour, 0.5)
    # A line of a single epoch cannot be seen; its marker can.
    sizes = [9 if (i == whole.best and bold) or number == 1 else 0 for i in range(number)]
    figure.add_scatter(
        x=_x(whole.along(span), span),
        y=plotly_charts.packed(whole.values[metric]),
        mode="lines+markers",
        line={"color": colour if bold else paled(colour), "dash": drawing.dash(arm)[1], "width": 2 if bold else 1},
        marker={"symbol": look.symbol, "color": colour, "size": np.asarray(sizes, np.uint8), "opacity": 1},
        hovertemplate=f"{span} %{{x:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
        showlegend=False,
        **more,
    )


def _add_seeds(
    figure: go.Figure, single: Sequence[tuple[Trial, Curve]], span: str, metric: str, look: Look, **more: Any
) -> None:
    """The trials of an arm as one thin trace, parted by gaps: hundreds of traces make a page slow."""
    x, y, seeds = list[float](), list[float](), list[int]()
    for trial, curve in single:
        x += [*curve.along(span), curve.along(span)[-1]]
        y += [*curve.values[metric], math.nan]
        seeds += [int(trial.config.get("seed") or 0)] * (len(curve.epochs) + 1)
    figure.add_scatter(
        x=_x(x, span),
        y=plotly_charts.packed(y),
        customdata=np.asarray(seeds, np.uint8 if max(seeds) < 2**8 else np.float64),
        mode="lines",
        line={"color": paled(look.colour, 0.35), "width": 0.8},
        hovertemplate=f"seed %{{customdata}}, {span} %{{x:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
        showlegend=False,
        **more,
    )


def _x(values: Sequence[float], span: str) -> np.ndarray:
    """In as few bytes as will do."""
    return np.asarray(values, np.uint16 if span == "epoch" else np.float32)
