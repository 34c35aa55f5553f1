"""learning_curves: validation accuracy, validation loss and training cross entropy over epochs and over seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import INK, Key, jitter, paled
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
_PANELS = [  # (row, column, quantity along x, metric, label of the metric)
    (row, column, span, metric, label)
    for row, span in enumerate(("epoch", "seconds of training"), start=1)
    for column, (metric, label, _) in enumerate(_METRICS, start=1)
]
# For the arms of one backbone: (Matplotlib's style, plotly's).
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
_FEW = 8  # up to so many arms, all are drawn alike
_HIGHEST_LOSS = 2.2 * math.log(len(SLUGS))  # twice the loss of guessing; higher losses leave the panel
_MOST_POINTS = 3_000  # in one panel; longer curves are thinned, which saves a megabyte of the page


def picture(scene: Scene) -> Picture | None:
    known = [arm for arm in scene.groups if any(trial.history for trial in arm.trials)]
    if not known:
        return None
    strong = {arm.label for arm in (known if len(known) <= _FEW else best_of_each(known))}
    step = max(1, math.ceil(sum(len(trial.history) for trial in scene.trials) / _MOST_POINTS))
    caption = "Top: over epochs; bottom: over seconds in training steps. "
    if len(strong) < len(known):
        caption += (
            f"Strong: each backbone's best arm by validation, of {counted(len(known), 'arm')}; pale: the others. "
        )
    if any(len(arm.trials) > 1 for arm in known):
        caption += "Lines: mean over an arm's seeds, up to the last epoch that all of them reached. "
        caption += "Thin lines: single seeds of strong arms. "
    caption += "Markers: best epoch; overlapping markers are moved apart horizontally."
    if step > 1:
        caption += f" One epoch in {step} is drawn."
    curves = [_curves(arm, step) for arm in known]
    drawing = _Drawing(scene, known, strong, _dashes(known, strong), curves, _moves(known, curves))
    return Picture("learning_curves", "Learning curves", caption, _png(drawing), _chart(drawing), min_width=750)


@dataclass(frozen=True)
class _Drawing:
    """What the PNG and the chart share."""

    scene: Scene
    known: Sequence[Arm]  # the arms with at least an epoch, the best first
    strong: Collection[str]  # labels of the arms that are not pale
    dashes: Mapping[str, tuple[Any, str]]  # by variant: (Matplotlib's style, plotly's)
    curves: Sequence[tuple[list[tuple[Trial, Curve]], Curve | None]]  # of each known arm, see `_curves`
    moves: Mapping[tuple[str, str], Sequence[float]]  # by panel, for each known arm: see `_moves`

    def dash(self, arm: Arm) -> tuple[Any, str]:
        return self.dashes[arm.variant] if arm.label in self.strong else _DASHES[0]

    def keys(self, models: Collection[str]) -> list[Key]:
        """The legend: the backbones and, if there are several, the variants."""
        looks = ((model, look) for model, look in self.scene.looks.items() if model in models)
        variants = self.dashes.items() if len(self.dashes) > 1 else ()
        ink = Look(INK, "", "")
        return [
            *(Key(title(model), look, size=6, dash=_DASHES[0]) for model, look in looks),
            *(Key(variant, ink, dash=dash) for variant, dash in variants),
        ]


def _dashes(known: Sequence[Arm], strong: Collection[str]) -> Mapping[str, tuple[Any, str]]:
    """A dash for each variant of the strong arms; augmented arms get the plainer ones."""
    variants = sorted({(not arm.augment, arm.variant) for arm in known if arm.label in strong})
    return {variant: _DASHES[i % len(_DASHES)] for i, (_, variant) in enumerate(variants)}


@dataclass(frozen=True)
class Curve:
    """One line: of a trial, or the mean of several; `best` is the index of the best epoch."""

    epochs: Sequence[float]
    seconds: Sequence[float]
    values: Mapping[str, Sequence[float]]  # by metric; NaN where missing
    best: int | None

    def along(self, span: str) -> Sequence[float]:
        return self.epochs if span == "epoch" else self.seconds


def curve_of(trial: Trial, step: int = 1) -> Curve:
    """The curve of one trial: every `step`th epoch, the best and the last."""
    rows, wanted = trial.history, trial.best.get("epoch")
    seconds = list(accumulate(row.get("epoch_seconds", math.nan) for row in rows))
    kept = [i for i, row in enumerate(rows) if i % step == 0 or i == len(rows) - 1 or row["epoch"] == wanted]
    values = {name: [scale * rows[i].get(name, math.nan) for i in kept] for name, _, scale in _METRICS}
    best = next((place for place, i in enumerate(kept) if rows[i]["epoch"] == wanted), None)
    return Curve([float(rows[i]["epoch"]) for i in kept], [seconds[i] for i in kept], values, best)


def mean_curve(trials: Sequence[Trial], step: int = 1) -> Curve:
    """The mean of several trials at each epoch that all of them finished.

    Its best epoch has the highest mean macro F1, or accuracy in an old run without F1.
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


def _curves(arm: Arm, step: int) -> tuple[list[tuple[Trial, Curve]], Curve | None]:
    """The curves of the single trials, and the curve of the arm; None if no epoch is common to all trials."""
    shown = [trial for trial in arm.shown if trial.history]
    single = [(trial, curve_of(trial, step)) for trial in arm.trials if trial.history]
    if len(single) == 1:
        return [], single[0][1]
    mean = mean_curve(shown, step) if shown else None
    return single, mean if mean is not None and mean.epochs else None


def _moves(known: Sequence[Arm], curves: Sequence[tuple[Any, Curve | None]]) -> dict[tuple[str, str], list[float]]:
    """How far to move the marker of each arm's best epoch along x, by (x axis, metric), so that none covers another."""
    found = {}
    for _, _, span, metric, _ in _PANELS:
        low, high = _limits(known, metric)
        width, height = 0.028 * max(max(c.along(span), default=1.0) for _, c in curves if c), 0.03 * (high - low)
        points = [
            (curve.along(span)[curve.best] / width, curve.values[metric][curve.best] / height)
            if curve is not None and curve.best is not None
            else (math.nan, math.nan)
            for _, curve in curves
        ]
        found[span, metric] = [width * move for move in jitter(points)]
    return found


def _png(drawing: _Drawing) -> bytes:
    scene, known = drawing.scene, drawing.known
    legend = drawing.keys({arm.model for arm in known})
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
    for place, arm in reversed(list(enumerate(known))):  # the best on top
        look, bold = scene.looks[arm.model], arm.label in drawing.strong
        single, whole = drawing.curves[place]
        shade = look.colour if arm.full else paled(look.colour, 0.5)
        for (span, metric), axes in panels.items():
            if bold or whole is None:
                # Matplotlib draws one collection many times faster than single lines.
                lines = [np.column_stack([curve.along(span), curve.values[metric]]) for _, curve in single]
                thin: dict[str, Any] = {"colors": paled(look.colour, 0.35), "linewidths": 0.7, "zorder": 1.8}
                axes.add_collection(LineCollection(lines, **thin))
            if whole is not None:
                x, y = whole.along(span), whole.values[metric]
                style: dict[str, Any] = (
                    {"color": shade, "linewidth": 1.5} if bold else {"color": paled(shade), "linewidth": 0.9}
                )
                axes.plot(x, y, linestyle=drawing.dash(arm)[0], zorder=3 if bold else 2, **style)
                if whole.best is not None and (bold or len(x) == 1):  # a line of one epoch is invisible
                    at = x[whole.best] + drawing.moves[span, metric][place]
                    axes.plot(at, y[whole.best], marker=look.marker, markersize=5, zorder=4, **style)
    for (_, metric), axes in panels.items():
        axes.autoscale_view()
        axes.set_ylim(*_limits(known, metric))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    page.legend(legend, columns)
    return page.png()


def _limits(known: Sequence[Arm], metric: str) -> tuple[float, float]:
    """Limits of the vertical axis: of an accuracy from 0, of a loss from slightly below the lowest value."""
    scale = next(scale for name, _, scale in _METRICS if name == metric)
    values = [scale * value for arm in known for trial in arm.trials for value in trial.values(metric)]
    highest = max(values, default=1.0) or 1.0
    if metric == "val_acc":
        return 0.0, 1.05 * highest
    lowest, highest = min(values, default=0.0), min(highest, _HIGHEST_LOSS)
    pad = 0.05 * max(highest - lowest, 0.01 * highest)
    return max(0.0, lowest - pad), highest + pad


def _chart(drawing: _Drawing) -> go.Figure:
    """The chart; a click on a name in the legend hides its lines in all panels."""
    scene, known = drawing.scene, drawing.known
    figure = make_subplots(2, len(_METRICS), horizontal_spacing=0.07, vertical_spacing=0.13)
    few = len(known) <= _FEW
    if not few:
        for key in drawing.keys(scene.models):
            plotly_charts.legend(figure, [key], legendgroup=key.label)
    for place, arm in reversed(list(enumerate(known))):
        single, whole = drawing.curves[place]
        bold = arm.label in drawing.strong
        own = {
            "name": plotly_charts.label(arm.label),
            "legendgroup": plotly_charts.label(arm.label) if few else title(arm.model),
        }
        for row, column, span, metric, _ in _PANELS:
            if single and (bold or whole is None):
                _add_seeds(figure, single, span, metric, scene.looks[arm.model], row=row, col=column, **own)
            if whole is not None:
                _add_whole(figure, drawing, place, whole, span, metric, row=row, col=column, **own)
    if few:
        named: set[str] = set()
        for trace in figure.data[::-1]:  # the best arm is drawn last
            trace.showlegend = trace.name not in named and trace.mode != "lines"
            trace.legendrank = 1000 + len(named)
            named.add(trace.name)
    for row, column, span, metric, label in _PANELS:
        figure.update_xaxes(title=span, rangemode="tozero", row=row, col=column)
        figure.update_yaxes(title=label, range=list(_limits(known, metric)), row=row, col=column)
    return plotly_charts.styled(figure, 560, legend_columns=3)


def _add_whole(
    figure: go.Figure, drawing: _Drawing, place: int, whole: Curve, span: str, metric: str, **more: Any
) -> None:
    arm, along = drawing.known[place], np.asarray(whole.along(span), np.float32)
    look, bold, number = drawing.scene.looks[arm.model], arm.label in drawing.strong, len(whole.epochs)
    colour = look.colour if arm.full else paled(look.colour, 0.5)
    x, shown, move = along, "x", drawing.moves[span, metric][place]
    if whole.best is not None and move and (bold or number == 1):
        x, shown, more["customdata"] = along.copy(), "customdata", along
        x[whole.best] += move
    # A line of a single epoch is invisible; its marker is not.
    sizes = [9 if (i == whole.best and bold) or number == 1 else 0 for i in range(number)]
    figure.add_scatter(
        x=x,
        y=plotly_charts.packed(whole.values[metric]),
        mode="lines+markers",
        line={"color": colour if bold else paled(colour), "dash": drawing.dash(arm)[1], "width": 2 if bold else 1},
        marker={"symbol": look.symbol, "color": colour, "size": np.asarray(sizes, np.uint8), "opacity": 1},
        hovertemplate=f"{span} %{{{shown}:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
        showlegend=False,
        **more,
    )


def _add_seeds(
    figure: go.Figure, single: Sequence[tuple[Trial, Curve]], span: str, metric: str, look: Look, **more: Any
) -> None:
    """Draw the trials of an arm as one thin trace with gaps: hundreds of traces make a page slow."""
    x, y, seeds = list[float](), list[float](), list[int]()
    for trial, curve in single:
        x += [*curve.along(span), curve.along(span)[-1]]
        y += [*curve.values[metric], math.nan]
        seeds += [int(trial.config.get("seed") or 0)] * (len(curve.epochs) + 1)
    figure.add_scatter(
        x=np.asarray(x, np.uint16 if span == "epoch" else np.float32),
        y=plotly_charts.packed(y),
        customdata=np.asarray(seeds, np.uint8 if max(seeds) < 2**8 else np.float64),
        mode="lines",
        line={"color": paled(look.colour, 0.35), "width": 0.8},
        hovertemplate=f"seed %{{customdata}}, {span} %{{x:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
        showlegend=False,
        **more,
    )
