"""The three static pictures, by Matplotlib: every arm is shown; where results are partial or missing, its status is."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from analysis.arms import Arm, arms, colours, title
from analysis.trials import Trial
from sousaphone.rudiments import SLUGS
from sousaphone.words import counted

CHANCE_PERCENT = 100 / len(SLUGS)
_INK, _GREY = "#222222", "#767676"
_DPI = 150
PALE = 0.4  # opacity of partial results


def accuracy_comparison(trials: Sequence[Trial], banner: str | None) -> bytes:
    """Validation (hollow) and test (filled) accuracy of each arm in percent; several seeds as dots round their mean."""
    groups, colour = arms(trials), colours(trials)
    figure, (axes,) = _rows(groups, "Accuracy by arm", banner, width=9.0)
    axes.axvline(CHANCE_PERCENT, color=_GREY, linestyle="--", linewidth=1)
    for y, arm in enumerate(groups):
        val = [100 * v for v in arm.values("best", "val_acc")]
        test = [100 * v for v in arm.values("last", "test_acc")]
        shade, alpha = colour[arm.model], _strength(arm)
        if val and test:
            axes.plot([_mean(val), _mean(test)], [y, y], color=shade, linewidth=2, alpha=0.35 * alpha, zorder=1)
        for values, face, offset in ((val, "white", -0.22), (test, shade, 0.22)):
            if len(values) > 1:
                axes.scatter(values, [y + offset] * len(values), s=12, color=shade, alpha=0.5, linewidths=0, zorder=2)
            if values:
                style: dict[str, Any] = {"facecolor": face, "edgecolor": shade, "alpha": alpha}
                axes.scatter(_mean(values), y, s=75, linewidth=2, zorder=3, **style)
        if arm.state:
            _say(axes, y, arm.state, beside=max([*val, *test], default=0.0))
    axes.set_xlim(0, _upper(max(axes.dataLim.x1, 4 * CHANCE_PERCENT)))
    axes.set_xlabel("accuracy, %")
    _legend(
        figure,
        [
            Line2D([], [], **_marker("o"), markerfacecolor="white", label="validation, best epoch"),
            Line2D([], [], **_marker("o"), markerfacecolor=_INK, label="test, from that epoch"),
            Line2D([], [], color=_GREY, linestyle="--", label=f"chance, {CHANCE_PERCENT:g} %"),
        ],
    )
    return _png(figure)


def efficiency_scatter(trials: Sequence[Trial], banner: str | None) -> bytes:
    """Validation accuracy of each arm against its trainable parameters (adapters and fresh layers, log scale);
    several seeds as dots round their mean."""
    figure = _figure("Accuracy against what was trained", banner, 8.0, 5.4)
    axes, colour = figure.add_subplot(), colours(trials)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axhline(CHANCE_PERCENT, color=_GREY, linestyle="--", linewidth=1)
    shown = comparable(trials)
    for arm in arms(shown) if shown else ():
        accuracies = [100 * v for v in arm.values("best", "val_acc")]
        count, shade = arm.trials[0].trainable_params or 1, colour[arm.model]
        if len(accuracies) > 1:
            axes.scatter([count] * len(accuracies), accuracies, s=14, color=shade, alpha=0.5, linewidths=0)
        marker = _STRATEGY_MARKERS.get(arm.strategy, "o")
        face = shade if arm.augment else "white"
        style: dict[str, Any] = {"marker": marker, "facecolor": face, "edgecolor": shade, "alpha": 0.85}
        axes.scatter(count, _mean(accuracies), s=85, linewidth=2, zorder=3, **style)
    axes.set_xscale("log")
    counts = [t.trainable_params or 1 for t in shown] or [10_000, 1_000_000]
    # A decade at least, so that one trial or equal counts still leave a readable axis.
    axes.set_xlim(min(counts) / 3, max(counts) * 3)
    top = max((100 * t.best["val_acc"] for t in shown), default=0.0)
    axes.set_ylim(0, _upper(max(top, 4 * CHANCE_PERCENT)))
    axes.xaxis.set_major_formatter(_short_count)
    axes.xaxis.set_minor_formatter(lambda value, _: _short_count(value) if _leads_with(value, (2, 5)) else "")
    axes.tick_params(axis="x", which="minor", labelsize=8, labelcolor=_GREY)
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel("validation accuracy, %")
    axes.set_title(not_shown(trials), loc="right", color=_GREY, fontsize=9, fontstyle="italic")
    _legend(figure, _scatter_legend(trials, colour))
    return _png(figure)


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that the efficiency chart can show: all their results, and a count of parameters."""
    return [trial for trial in trials if trial.full and trial.trainable_params and "val_acc" in trial.best]


def not_shown(trials: Sequence[Trial]) -> str:
    """What the efficiency chart says of the others; empty if there are none."""
    missing = len(trials) - len(comparable(trials))
    return f"not shown: {missing} of {counted(len(trials), 'trial')}, with partial results or none" if missing else ""


def training_time(trials: Sequence[Trial], banner: str | None) -> bytes:
    """Seconds spent in training steps: of a whole trial, and of one epoch; several seeds as dots round their mean."""
    groups, colour = arms(trials), colours(trials)
    figure, panels = _rows(groups, "Training time", banner, width=10.5, columns=2)
    measures: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
        ("seconds a trial", lambda trial: trial.train_seconds),
        ("seconds an epoch", lambda trial: trial.seconds_per_epoch),
    )
    for axes, (label, measure) in zip(panels, measures, strict=True):
        for y, arm in enumerate(groups):
            values = [v for v in map(measure, arm.shown) if v is not None]
            if not values:
                _say(axes, y, arm.state, beside=0.0)
                continue
            mean = _mean(values)
            axes.barh(y, mean, height=0.62, color=colour[arm.model], alpha=0.85 * _strength(arm))
            if len(values) > 1:
                axes.scatter(values, [y] * len(values), s=10, color=_INK, alpha=0.6, linewidths=0, zorder=3)
            words = f"{_short(mean)}   {arm.state}"
            axes.annotate(words, (max(values), y), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
        # Room for the words beyond the longest bar.
        longest = axes.dataLim.x1 if axes.dataLim.x1 > 0 else 1.0
        axes.set_xlim(0, longest * (1.5 if any(arm.state for arm in groups) else 1.18))
        axes.set_xlabel(label)
    return _png(figure)


_STRATEGY_MARKERS: Mapping[str, str] = {"lora": "o", "head": "^", "full": "s"}


def _scatter_legend(trials: Sequence[Trial], colour: Mapping[str, str]) -> list[Line2D]:
    models = dict.fromkeys(trial.config.get("model", "") for trial in trials)
    entries = [Line2D([], [], color=colour[m], marker="o", linestyle="", markersize=8, label=title(m)) for m in models]
    strategies = dict.fromkeys(trial.config.get("strategy", "") for trial in trials)
    if len(strategies) > 1:
        entries += [Line2D([], [], **_marker(_STRATEGY_MARKERS.get(s, "o")), label=s) for s in strategies]
    if len({bool(trial.config.get("augment")) for trial in trials}) > 1:
        entries += [
            Line2D([], [], **_marker("o"), label="augmented"),
            Line2D([], [], **_marker("o"), markerfacecolor="white", label="unaugmented"),
        ]
    return [*entries, Line2D([], [], color=_GREY, linestyle="--", label=f"chance, {CHANCE_PERCENT:g} %")]


def _figure(heading: str, banner: str | None, width: float, height: float) -> Figure:
    """A figure with its heading and, below it, what must be said of the numbers."""
    lines = textwrap.wrap(banner or "", round(12.5 * width))
    extent = 0.42 + 0.2 * len(lines)  # inches
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - extent / height), w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.015, 1 - 0.12 / height, heading, fontsize=14, fontweight="bold", color=_INK, va="top")
    style: dict[str, Any] = {"fontsize": 9.5, "color": "#9a3412", "va": "top", "linespacing": 1.3, "parse_math": False}
    figure.text(0.015, 1 - 0.44 / height, "\n".join(lines), **style)
    return figure


def _rows(
    groups: Sequence[Arm], heading: str, banner: str | None, width: float, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """A figure with a row for each arm, the first on top; it grows with their number."""
    figure = _figure(heading, banner, width, 1.9 + 0.34 * max(len(groups), 3))
    panels = list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    labels = [textwrap.shorten(arm.label, 60, placeholder=" …") for arm in groups]
    panels[0].set_yticks(range(len(groups)), labels, parse_math=False)
    panels[0].set_ylim(max(len(groups), 3) - 0.4, -0.6)
    return figure, panels


def _say(axes: Axes, y: int, text: str, beside: float) -> None:
    """Words where a number would stand, or to the right of one that is not the last word."""
    style: dict[str, Any] = {"color": _GREY, "fontstyle": "italic", "fontsize": 9, "va": "center", "zorder": 4}
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # grid and chance line do not cross the words
    axes.annotate(text, (beside, y), xytext=(10 if beside else 4, 0), textcoords="offset points", bbox=plate, **style)


def _legend(figure: Figure, entries: Sequence[Line2D]) -> None:
    figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 4), frameon=False, fontsize=9)


def _marker(shape: str) -> dict[str, Any]:
    return {"color": _INK, "marker": shape, "linestyle": "", "markersize": 8, "markeredgewidth": 1.6}


def _upper(percent: float) -> float:
    """Where an accuracy axis ends: a little above the highest value, never far above 100 %."""
    return min(1.08 * percent, 103.0)


def _strength(arm: Arm) -> float:
    """Partial results are pale."""
    return 1.0 if arm.full else PALE


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _leads_with(value: float, digits: Sequence[int]) -> bool:
    return int(f"{value:e}"[0]) in digits


def _short_count(value: float, _: float = 0) -> str:
    """12000 as 12k, 1.3e6 as 1.3M."""
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{sign}"
    return f"{value:g}"


def _short(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
