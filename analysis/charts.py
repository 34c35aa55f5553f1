"""The interactive charts of the page, by plotly. Every text that comes from outside is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.arms import Arm, arms, colours, title
from analysis.plots import CHANCE_PERCENT, PALE, comparable, not_shown
from analysis.trials import Trial
from sousaphone.words import counted

_GREY = "#767676"
_SYMBOLS = {"lora": "circle", "head": "triangle-up", "full": "square"}
_CURVES = (
    ("val_acc", "validation accuracy, %", 100.0),
    ("val_loss", "validation loss", 1.0),
    ("train_ce", "training cross entropy", 1.0),
)


def charts(trials: Sequence[Trial]) -> list[tuple[str, go.Figure]]:
    """(heading, figure) of each chart, in reading order."""
    return [
        ("Accuracy", _accuracy(trials)),
        ("Accuracy against trainable parameters", _efficiency(trials)),
        ("Training time", _time(trials)),
        ("Learning curves", _curves(trials)),
    ]


def _accuracy(trials: Sequence[Trial]) -> go.Figure:
    groups, colour = arms(trials), colours(trials)
    figure = go.Figure()
    for name, kind, metric, hollow in (
        ("validation, best epoch", "best", "val_acc", True),
        ("test, from that epoch", "last", "test_acc", False),
    ):
        points = [
            (arm, trial, getattr(trial, kind)[metric])
            for arm in groups
            for trial in arm.trials
            if metric in getattr(trial, kind)
        ]
        figure.add_scatter(
            x=[100 * value for _, _, value in points],
            y=[_escape(arm.label) for arm, _, _ in points],
            mode="markers",
            name=name,
            text=[_hover(trial) for _, trial, _ in points],
            hovertemplate="%{x:.1f} %<br>%{text}<extra></extra>",
            marker={
                "size": 11,
                "opacity": [1.0 if trial.full else PALE for _, trial, _ in points],
                "symbol": "circle-open" if hollow else "circle",
                "color": [colour[arm.model] for arm, _, _ in points],
                "line": {"width": 2, "color": [colour[arm.model] for arm, _, _ in points]},
            },
        )
    figure.add_vline(x=CHANCE_PERCENT, line={"dash": "dash", "color": _GREY}, annotation_text="chance")
    _arm_axis(figure, groups)
    pale = " (pale: partial results)" if any(trial.partial for trial in trials) else ""
    figure.update_xaxes(title=f"accuracy, %{pale}", rangemode="tozero")
    return _styled(figure, len(groups))


def _efficiency(trials: Sequence[Trial]) -> go.Figure:
    colour = colours(trials)
    figure = go.Figure()
    known = comparable(trials)
    for model in dict.fromkeys(trial.config.get("model", "") for trial in known):
        shown = [t for t in known if t.config.get("model", "") == model]
        symbols = [_SYMBOLS.get(t.config.get("strategy", ""), "circle") for t in shown]
        figure.add_scatter(
            x=[t.trainable_params for t in shown],
            y=[100 * t.best["val_acc"] for t in shown],
            mode="markers",
            name=_escape(title(model)),
            text=[_hover(t) for t in shown],
            hovertemplate="%{x:,} parameters, %{y:.1f} %<br>%{text}<extra></extra>",
            marker={
                "size": 11,
                "color": colour[model],
                "line": {"width": 2, "color": colour[model]},
                "symbol": [s if t.config.get("augment") else f"{s}-open" for s, t in zip(symbols, shown, strict=True)],
            },
        )
    figure.add_hline(y=CHANCE_PERCENT, line={"dash": "dash", "color": _GREY}, annotation_text="chance")
    # A decade at least, with ticks at 1, 2 and 5: plotly's own choice leaves a short log axis without numbers.
    counts = [t.trainable_params or 1 for t in known] or [10_000, 1_000_000]
    low, high = math.log10(min(counts) / 3), math.log10(max(counts) * 3)
    ticks = [lead * 10**power for power in range(math.floor(low), math.ceil(high)) for lead in (1, 2, 5)]
    figure.update_xaxes(type="log", range=[low, high], tickvals=ticks, tickformat="~s")
    figure.update_xaxes(title="trainable parameters (hollow: without augmentation)")
    figure.update_yaxes(title="validation accuracy, %", rangemode="tozero")
    figure.update_layout(
        title={"text": not_shown(trials), "font": {"size": 12, "color": _GREY}, "x": 1, "xanchor": "right"}
    )
    return _styled(figure, 10)


def _time(trials: Sequence[Trial]) -> go.Figure:
    groups, colour = arms(trials), colours(trials)
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.04)
    for column, (name, attribute) in enumerate(
        (("seconds a trial", "train_seconds"), ("seconds an epoch", "seconds_per_epoch")), start=1
    ):
        known = [(arm, [v for t in arm.shown if (v := getattr(t, attribute)) is not None]) for arm in groups]
        known = [(arm, values) for arm, values in known if values]
        figure.add_bar(
            x=[sum(values) / len(values) for _, values in known],
            y=[_escape(arm.label) for arm, _ in known],
            orientation="h",
            hovertemplate="%{x:.1f} s<extra></extra>",
            marker={
                "color": [colour[arm.model] for arm, _ in known],
                "opacity": [1.0 if arm.full else PALE for arm, _ in known],
            },
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_xaxes(title=name, rangemode="tozero", row=1, col=column)
    _arm_axis(figure, groups)
    return _styled(figure, len(groups))


def _curves(trials: Sequence[Trial]) -> go.Figure:
    """A line for each trial and measure; a click on an arm's name in the legend hides it everywhere."""
    colour = colours(trials)
    figure = make_subplots(1, len(_CURVES), horizontal_spacing=0.06)
    for arm in arms(trials):
        name = _escape(arm.label)
        for column, (metric, _, scale) in enumerate(_CURVES, start=1):
            # One trace an arm, its trials parted by a gap: hundreds of traces make a page slow.
            points: list[tuple[Any, Any, str]] = []
            for trial in arm.trials:
                told = _escape(trial.trial_id)
                points += [(row["epoch"], scale * row[metric], told) for row in trial.history if metric in row]
                points.append((None, None, ""))
            figure.add_scatter(
                x=[x for x, _, _ in points],
                y=[y for _, y, _ in points],
                text=[text for _, _, text in points],
                # A line of a single epoch cannot be seen; its marker can.
                mode="lines+markers" if any(len(trial.history) == 1 for trial in arm.trials) else "lines",
                line={"color": colour[arm.model], "dash": "solid" if arm.augment else "dot", "width": 1.8},
                marker={"size": 5},
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                hovertemplate="epoch %{x}: %{y:.3g}<br>%{text}<extra></extra>",
                row=1,
                col=column,
            )
    for column, (_, label, _) in enumerate(_CURVES, start=1):
        figure.update_xaxes(title="epoch", tickformat="d", row=1, col=column)
        figure.update_yaxes(title=label, rangemode="tozero", row=1, col=column)
    return _styled(figure, 12)


def _escape(text: str) -> str:
    # plotly turns these entities back into signs, and leaves those for quotation marks as they are.
    return html.escape(text, quote=False)


def _hover(trial: Trial) -> str:
    """What a point says of its trial, in plotly's own small HTML."""
    lines = [trial.trial_id, f"{trial.status}, {counted(len(trial.history), 'epoch')}"]
    return "<br>".join(_escape(line) for line in lines)


def _arm_axis(figure: go.Figure, groups: Sequence[Arm]) -> None:
    """Every arm has its row, with or without a number, the first on top; one with partial results or none has its
    status beside its name."""
    labels = [_escape(arm.label) for arm in groups]
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=labels, range=[len(labels) - 0.4, -0.6])
    words = [f"{label} ({arm.state})" if arm.state else label for label, arm in zip(labels, groups, strict=True)]
    figure.update_yaxes(automargin=True, tickmode="array", tickvals=labels, ticktext=words)


def _styled(figure: go.Figure, rows: int) -> go.Figure:
    # Below the chart, where it meets neither the tool bar nor the axis: room for four names a line.
    names = sum(trace.showlegend is not False for trace in figure.data)
    legend = 24 * math.ceil(names / 4)
    figure.update_layout(
        template="plotly_white",
        height=100 + legend + 30 * max(rows, 4),
        margin={"l": 10, "r": 20, "t": 40, "b": 60 + legend},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#222222"},
    )
    return figure
