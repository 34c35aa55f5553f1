"""The groundwork of the charts, by plotly: one small template, rows, legends. Every text that comes from outside goes
through `escape`, and none through a hover template, where `%{...}` would be read as a name."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import CHANCE_PERCENT, GREY, GRID, INK, Dot, Spot, shortened

_ROW, _LEGEND_ROW = 25, 22  # pixels
_AXIS = {
    "gridcolor": GRID,
    "linecolor": "#999999",
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
}
# plotly's own templates take seven kilobytes in every chart.
_TEMPLATE = go.layout.Template(
    layout={
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "hoverlabel": {"align": "left"},
        "colorway": [INK],
    }
)


def escape(text: str, most: int = 200) -> str:
    """Text as itself in plotly's small HTML."""
    # plotly turns these entities back into signs, and leaves those for quotation marks as they are.
    return html.escape(shortened(text, most), quote=False)


def label(text: str) -> str:
    """The same, short enough for an axis or a legend."""
    return escape(shortened(text))


def packed(values: Sequence[float | None]) -> np.ndarray:
    """Numbers as plotly keeps them in the fewest bytes: four each, of which NaN is a gap."""
    whole = np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
    return whole.clip(-1e38, 1e38).astype(np.float32)


def rounded(values: Sequence[float | None], digits: int = 2) -> list[float | None]:
    """Numbers as short text; what is no number is a gap."""
    return [None if value is None or not math.isfinite(value) else round(float(value), digits) for value in values]


def styled(figure: go.Figure, height: float, legend_columns: int = 4) -> go.Figure:
    """A chart of this height (pixels, without its legend), the legend below it, where it meets neither the tool bar
    nor the axis."""
    names = sum(trace.showlegend is True for trace in figure.data)
    legend = _LEGEND_ROW * math.ceil(names / legend_columns) if names else 0
    figure.update_layout(
        template=_TEMPLATE,
        height=round(height + legend + 90),
        margin={"l": 10, "r": 20, "t": 30, "b": 60 + legend},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
        showlegend=bool(names),
    )
    return figure


def row_axis(figure: go.Figure, labels: Sequence[str], **where: int) -> float:
    """A row for each label, the first on top; returns the height (pixels) that they take."""
    rows = max(len(labels), 2)
    ticks = {"tickmode": "array", "tickvals": list(range(len(labels))), "ticktext": [label(text) for text in labels]}
    figure.update_yaxes(range=[rows - 0.5, -0.5], showgrid=False, ticklabelstandoff=5, **ticks, **where)
    return _ROW * (1.3 if rows <= 12 else 1.0) * rows


def error(spots: Sequence[Spot], colour: str) -> dict[str, Any]:
    """plotly's bars of the intervals; none where a limit is NaN."""
    sizes = {"array": rounded([s.high - s.x for s in spots]), "arrayminus": rounded([-(s.low - s.x) for s in spots])}
    return {"type": "data", "symmetric": False, "color": colour, "thickness": 1.6, "width": 4, **sizes}


def outlined(symbol: str, colour: str, face: str | Sequence[str], size: float | Sequence[float]) -> dict[str, Any]:
    """plotly's settings of a marker whose edge has this colour."""
    return {"symbol": symbol, "color": face, "size": size, "line": {"width": 2, "color": colour}}


def dots(
    figure: go.Figure,
    found: Sequence[Dot],
    hover: str,
    colours: str | Sequence[str],
    size: float = 5,
    opacity: float = 0.5,
    **more: Any,
) -> None:
    """Small dots; `hover` is a template, which may show `%{text}`, a name given as `text`."""
    figure.add_scatter(
        x=packed([dot.x for dot in found]),
        y=packed([dot.y for dot in found]),
        mode="markers",
        hovertemplate=hover,
        marker={"size": size, "opacity": opacity, "color": colours},
        showlegend=False,
        **more,
    )


def named_dots(figure: go.Figure, found: Sequence[Dot], value: str) -> None:
    """Dots in their own colours; `value` is what a template says of one before its name."""
    names = [escape(dot.name) for dot in found]
    dots(figure, found, f"{value}<br>%{{text}}<extra></extra>", [dot.colour for dot in found], text=names)


def separator(figure: go.Figure, y: float) -> None:
    """A line between two rows."""
    figure.add_hline(y=y, line={"color": "#bbbbbb", "width": 1}, layer="below")


def legend_marker(figure: go.Figure, name: str, symbol: str, colour: str = INK, **more: Any) -> None:
    """An entry of the legend without points of its own."""
    _legend_entry(figure, name, mode="markers", marker=outlined(symbol, colour, colour, 9), **more)


def legend_line(figure: go.Figure, name: str, dash: str, colour: str = INK, **more: Any) -> None:
    """The same with a line."""
    _legend_entry(figure, name, mode="lines", line={"dash": dash, "color": colour, "width": 1.8}, **more)


def _legend_entry(figure: go.Figure, name: str, **more: Any) -> None:
    figure.add_scatter(x=[None], y=[None], name=label(name), showlegend=True, hoverinfo="skip", **more)


def legend_chance(figure: go.Figure, **more: Any) -> None:
    """The entry for `chance_line`."""
    legend_line(figure, f"chance, {CHANCE_PERCENT:g} %", "dash", GREY, **more)


def chance_line(figure: go.Figure, vertical: bool = True, **where: int) -> None:
    """The line itself; `legend_chance` names it."""
    place: dict[str, Any] = {"line": {"dash": "dash", "color": GREY, "width": 1}, "layer": "below"}
    draw = figure.add_vline if vertical else figure.add_hline
    draw(CHANCE_PERCENT, **place, **where)
