"""Shared parts of the charts, in plotly: one small template, rows, legends.

Every text from outside goes through `escape`, and none into a hover template, where `%{...}` is a variable.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import GREY, GRID, INK, LABEL_LETTERS, Key, Spot, shortened

_LEGEND_ROW = 22  # pixels
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


def escape(text: str, most: int = LABEL_LETTERS) -> str:
    """Escape text for plotly's subset of HTML; by default it is short enough for an axis or a legend."""
    # plotly decodes these entities, but not those of quotation marks.
    return html.escape(shortened(text, most), quote=False)


def packed(values: Sequence[float | None]) -> np.ndarray:
    """Numbers in the fewest bytes that plotly stores, four each; NaN is a gap."""
    whole = np.asarray([math.nan if value is None else value for value in values], dtype=np.float64)
    return whole.clip(-1e38, 1e38).astype(np.float32)


def rounded(values: Sequence[float | None], digits: int = 2) -> list[float | None]:
    """Numbers with few digits; what is not finite is a gap."""
    return [None if value is None or not math.isfinite(value) else round(float(value), digits) for value in values]


def styled(figure: go.Figure, height: float, legend_columns: int = 4) -> go.Figure:
    """Set the chart's template, its height (pixels, without the legend) and the legend below it."""
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


def error(spots: Sequence[Spot], colour: str) -> dict[str, Any]:
    """plotly's error bars; none where a limit is NaN."""
    sizes = {"array": rounded([s.high - s.x for s in spots]), "arrayminus": rounded([-(s.low - s.x) for s in spots])}
    return {"type": "data", "symmetric": False, "color": colour, "thickness": 1.6, "width": 4, **sizes}


def outlined(symbol: str, colour: str, face: str | Sequence[str], size: float | Sequence[float]) -> dict[str, Any]:
    """plotly's settings of a marker with an edge in this colour."""
    return {"symbol": symbol, "color": face, "size": size, "line": {"width": 2, "color": colour}}


def legend(figure: go.Figure, keys: Sequence[Key], **more: Any) -> None:
    """Add entries to the legend that have no points of their own."""
    for key in keys:
        colour, symbol = key.look.colour, key.look.symbol if key.filled else f"{key.look.symbol}-open"
        style: dict[str, Any] = {"mode": "markers", "marker": outlined(symbol, colour, colour, 1.3 * key.size)}
        if key.dash:
            style = {"mode": "lines", "line": {"dash": key.dash[1], "color": colour, "width": 1.5}}
        style |= {"name": escape(key.label), "showlegend": True, "hoverinfo": "skip"}
        figure.add_scatter(x=[None], y=[None], **style, **more)


def chance_line(figure: go.Figure, percent: float, vertical: bool = True, **where: int) -> None:
    place: dict[str, Any] = {"line": {"dash": "dash", "color": GREY, "width": 1}, "layer": "below"}
    draw = figure.add_vline if vertical else figure.add_hline
    draw(percent, **place, **where)
