"""learning_curves: validation accuracy, validation loss and training cross entropy over epochs and over seconds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import INK, Key, jitter
from analysis.load.trials import Trial
from analysis.run_summary import Findings
from analysis.stats.arms import Arm, Look, best_of_each, paled, title
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


def picture(run: Findings) -> Picture | None:
    known = [arm for arm in run.groups if any(trial.history for trial in arm.trials)]
    if not known:
        return None
    strong = {arm.label for arm in (known if len(known) <= _FEW else best_of_each(known))}
    step = max(1, math.ceil(sum(len(trial.history) for trial in run.compared) / _MOST_POINTS))
    caption = f"Top: over epochs; bottom: over {run.time_unit} seconds in training steps. "
    if len(strong) < len(known):
        caption += (
            f"Strong: each backbone's best arm by validation, of {counted(len(known), 'arm')}; pale: the others. "
        )
    if any(len(arm.trials) > 1 for arm in known):
        caption += "Lines: mean over an arm's seeds, up to the last epoch that all of them reached. "
        caption += f"Thin lines: single seeds{' of strong arms' * (len(strong) < len(known))}. "
    caption += (
        "Markers: best epoch (the highest validation macro F1); overlapping markers are moved apart horizontally."
    )
    if step > 1:
        caption += f" One epoch in {step} is drawn."
    lines = _lines(known, strong, step)
    png, chart = _png(run, lines), _chart(run, lines)
    return Picture("learning_curves", "Learning curves", caption, png, chart, min_width=750)


@dataclass(frozen=True)
class Curve:
    """One line: the mean of one or several trials; `best` is the index of the best epoch."""

    epochs: Sequence[float]
    seconds: Sequence[float]
    values: Mapping[str, Sequence[float]]  # by metric; NaN where missing
    best: int

    def along(self, span: str) -> Sequence[float]:
        return self.epochs if span == "epoch" else self.seconds

    def thinned(self, step: int) -> Curve:
        """Keep every `step`th epoch, the best and the last."""
        kept = [i for i in range(len(self.epochs)) if i % step == 0 or i in (self.best, len(self.epochs) - 1)]
        values = {name: [line[i] for i in kept] for name, line in self.values.items()}
        return Curve([self.epochs[i] for i in kept], [self.seconds[i] for i in kept], values, kept.index(self.best))


def mean_curve(trials: Sequence[Trial]) -> Curve:
    """The mean of trials at each epoch that all of them finished.

    The best epoch of a single trial is the recorded one; that of several has the highest mean macro F1.
    """
    epochs = list(zip(*(trial.history for trial in trials), strict=False))

    def mean(metric: str, scale: float = 1.0) -> list[float]:
        return [sum(scale * row.get(metric, math.nan) for row in rows) / len(rows) for rows in epochs]

    scores = [-math.inf if math.isnan(score) else score for score in mean("val_macro_f1")]
    values = {name: mean(name, scale) for name, _, scale in _METRICS}
    recorded = [row is trials[0].best for row, *_ in epochs] if len(trials) == 1 else []
    best = recorded.index(True) if any(recorded) else scores.index(max(scores))
    return Curve(mean("epoch"), list(accumulate(mean(trials[0].clock))), values, best)


@dataclass(frozen=True)
class Line:
    """What is drawn of one arm."""

    arm: Arm
    strong: bool
    dash: tuple[Any, str]  # Matplotlib's style, plotly's
    single: Sequence[tuple[Trial, Curve]]  # one for each of a strong arm's trials, if there are several
    whole: Curve
    moves: dict[tuple[str, str], float] = field(default_factory=dict)  # of the best epoch's marker along x, by panel

    @property
    def marked(self) -> bool:
        """Whether the best epoch is marked; a line of one epoch is invisible without its marker."""
        return self.strong or len(self.whole.epochs) == 1


def _lines(known: Sequence[Arm], strong: Collection[str], step: int) -> list[Line]:
    # Augmented arms get the plainer dashes.
    variants = sorted({(not arm.augment, arm.variant) for arm in known if arm.label in strong})
    dashes = {variant: _DASHES[i % len(_DASHES)] for i, (_, variant) in enumerate(variants)}
    lines = []
    for arm in known:
        trials = [trial for trial in arm.trials if trial.history]
        single = [(trial, mean_curve([trial]).thinned(step)) for trial in trials]
        whole = mean_curve([trial for trial in arm.shown if trial.history] or trials).thinned(step)
        is_strong = arm.label in strong
        dash = dashes[arm.variant] if is_strong else _DASHES[0]
        lines.append(Line(arm, is_strong, dash, single if is_strong and len(single) > 1 else [], whole))
    for _, _, span, metric, _ in _PANELS:
        # Sizes of a marker in the panel's units.
        low, high = _limits(lines, metric)
        width = 0.028 * max(line.whole.along(span)[-1] for line in lines)
        height = 0.03 * (high - low)
        points = [
            (line.whole.along(span)[line.whole.best] / width, line.whole.values[metric][line.whole.best] / height)
            for line in lines
        ]
        for line, move in zip(lines, jitter(points), strict=True):
            line.moves[span, metric] = width * move
    return lines


def _keys(run: Findings, lines: Sequence[Line]) -> list[Key]:
    """The legend: the backbones and, if there are several, the variants."""
    models = {line.arm.model for line in lines}
    dashes = {
        line.arm.variant: line.dash for line in sorted(lines, key=lambda line: not line.arm.augment) if line.strong
    }
    return [
        *(Key(title(name), look, size=6, dash=_DASHES[0]) for name, look in run.looks.items() if name in models),
        *(Key(variant, Look(INK, "", ""), dash=dash) for variant, dash in dashes.items() if len(dashes) > 1),
    ]


def _png(run: Findings, lines: Sequence[Line]) -> bytes:
    panel, gap = 2.45, 0.62
    page = mpl.Sheet("Learning curves", run.banner, 10.5, 2 * panel + gap + 0.65, _keys(run, lines), columns=4)
    places = page.cells(2, len(_METRICS), gap, page.foot + 0.6, panel, (gap, gap))
    for place, (_, _, span, metric, label) in zip(places, _PANELS, strict=True):
        axes = page.panel(*place)
        axes.set_xlabel(span)
        axes.set_ylabel(label)
        for line in reversed(lines):  # the best on top
            look, whole = run.looks[line.arm.model], line.whole
            shade = look.colour if line.arm.full else paled(look.colour, 0.5)
            # Matplotlib draws one collection many times faster than single lines.
            thin = [np.column_stack([curve.along(span), curve.values[metric]]) for _, curve in line.single]
            axes.add_collection(LineCollection(thin, colors=paled(look.colour, 0.35), linewidths=0.7, zorder=1.8))
            x, y = whole.along(span), whole.values[metric]
            style: dict[str, Any] = {"color": paled(shade), "linewidth": 0.9}
            if line.strong:
                style = {"color": shade, "linewidth": 1.5}
            axes.plot(x, y, linestyle=line.dash[0], zorder=3 if line.strong else 2, **style)
            if line.marked:
                at = x[whole.best] + line.moves[span, metric]
                axes.plot(at, y[whole.best], marker=look.marker, markersize=5, zorder=4, **style)
        axes.autoscale_view()
        axes.set_ylim(*_limits(lines, metric))
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return page.png()


def _limits(lines: Sequence[Line], metric: str) -> tuple[float, float]:
    """Limits of the vertical axis: of an accuracy from 0, of a loss from slightly below the lowest value."""
    scale = next(scale for name, _, scale in _METRICS if name == metric)
    values = [scale * value for line in lines for trial in line.arm.trials for value in trial.values(metric)]
    highest = max(values, default=1.0) or 1.0
    if metric == "val_acc":
        return 0.0, 1.05 * highest
    lowest, highest = min(values, default=0.0), min(highest, _HIGHEST_LOSS)
    pad = 0.05 * max(highest - lowest, 0.01 * highest)
    return max(0.0, lowest - pad), highest + pad


def _chart(run: Findings, lines: Sequence[Line]) -> go.Figure:
    """The chart; a click on a name in the legend hides its lines in all panels."""
    figure = make_subplots(2, len(_METRICS), horizontal_spacing=0.07, vertical_spacing=0.13)
    few = len(lines) <= _FEW
    if not few:
        for key in _keys(run, lines):
            plotly_charts.legend(figure, [key], legendgroup=key.label)
    for line in reversed(lines):
        look, name = run.looks[line.arm.model], plotly_charts.escape(line.arm.label)
        for row, column, span, metric, _ in _PANELS:
            where = {"row": row, "col": column, "name": name, "showlegend": False}
            where["legendgroup"] = name if few else title(line.arm.model)
            if line.single:
                _add_seeds(figure, line.single, span, metric, look, **where)
            _add_whole(figure, line, span, metric, look, **where)
    if few:
        named: set[str] = set()
        for trace in figure.data[::-1]:  # the best arm is drawn last
            trace.showlegend = trace.name not in named and trace.mode != "lines"
            trace.legendrank = 1000 + len(named)
            named.add(trace.name)
    for row, column, span, metric, label in _PANELS:
        figure.update_xaxes(title=span, rangemode="tozero", row=row, col=column)
        figure.update_yaxes(title=label, range=list(_limits(lines, metric)), row=row, col=column)
    return plotly_charts.styled(figure, 560, legend_columns=3)


def _add_whole(figure: go.Figure, line: Line, span: str, metric: str, look: Look, **more: Any) -> None:
    whole = line.whole
    colour = look.colour if line.arm.full else paled(look.colour, 0.5)
    style = {"color": colour if line.strong else paled(colour), "dash": line.dash[1], "width": 2 if line.strong else 1}
    x, shown = np.asarray(whole.along(span), np.float32), "x"
    sizes = np.zeros(len(x), np.uint8)
    if line.marked:
        sizes[whole.best] = 9
        if move := line.moves[span, metric]:
            shown, more["customdata"] = "customdata", x.copy()  # the true value, for the hover text
            x[whole.best] += move
    figure.add_scatter(
        x=x,
        y=plotly_charts.packed(whole.values[metric]),
        mode="lines+markers",
        line=style,
        marker={"symbol": look.symbol, "color": colour, "size": sizes, "opacity": 1},
        hovertemplate=f"{span} %{{{shown}:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
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
        customdata=np.asarray(seeds, np.min_scalar_type(max(seeds))),
        mode="lines",
        line={"color": paled(look.colour, 0.35), "width": 0.8},
        hovertemplate=f"seed %{{customdata}}, {span} %{{x:.4~g}}: %{{y:.3~g}}<extra>%{{fullData.name}}</extra>",
        **more,
    )
