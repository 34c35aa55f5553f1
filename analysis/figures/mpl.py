"""Shared parts of the PNGs, in Matplotlib: a sheet laid out in inches, rows, intervals, legends.

Positions are computed here, because Matplotlib's layout engines draw a figure several times to find them. Figures must
be drawn inside `plain_text`, so that a `$` in a name is a `$`.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from analysis.figures.style import GREY, GRID, INK, Key, Spot, shortened
from analysis.stats.arms import Look

_DPI = 150
_EDGE = 0.15  # inches kept free all round
_LEGEND_ROW = 0.21


@contextmanager
def plain_text() -> Iterator[None]:
    """Parse no text as mathematics, and do not warn of characters that the font lacks."""
    settings = {"text.parse_math": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#999999"}
    settings |= {"xtick.color": INK, "ytick.color": INK, "font.size": 9.0, "axes.labelsize": 9.5}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


class Sheet:
    """A figure with a heading and a banner, whose body below them is laid out in inches."""

    def __init__(
        self, heading: str, banner: str | None, width: float, body: float, keys: Sequence[Key] = (), columns: int = 1
    ) -> None:
        """Draw heading, banner and a legend with so many columns below the body; `body` is the body's height."""
        lines = textwrap.wrap(banner or "", round(12.5 * width))
        self.foot = _LEGEND_ROW * -(-len(keys) // columns) + 0.05 if keys else 0.0  # height of the legend
        self.width, self.height = width, body + self.foot + 0.5 + (0.19 * len(lines) + 0.06 if lines else 0.0)
        self.figure = Figure(figsize=(self.width, self.height), facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        left = _EDGE / width
        self.figure.text(left, 1 - 0.12 / self.height, heading, fontsize=13, fontweight="bold", va="top")
        style: dict[str, Any] = {"fontsize": 9.5, "color": "#9a3412", "va": "top", "linespacing": 1.3}
        self.figure.text(left, 1 - 0.44 / self.height, "\n".join(lines), **style)
        if keys:
            place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, (_EDGE / 2) / self.height)}
            pads: dict[str, Any] = {"borderaxespad": 0, "borderpad": 0.1, "columnspacing": 1.6, "handletextpad": 0.6}
            handles, ncols = [_handle(key) for key in keys], min(columns, len(keys))
            self.figure.legend(handles=handles, ncols=ncols, frameon=False, fontsize=8.5, **place, **pads)

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Add axes; `left` and `bottom` are inches from the body's lower left corner."""
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def panel(self, left: float, bottom: float, width: float, height: float, rows: bool = False) -> Axes:
        """Add axes with a grid and without a frame; `rows` leaves out the horizontal lines."""
        axes = self.axes(left, bottom, width, height)
        axes.grid(axis="x" if rows else "both", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"] if rows else ["top", "right"]].set_visible(False)
        return axes

    def cells(
        self, rows: int, columns: int, left: float, foot: float, height: float, gaps: tuple[float, float]
    ) -> list[tuple[float, float, float, float]]:
        """Places (left, bottom, width, height) of panels of this height in a grid, in reading order.

        `left` and `foot` are kept free for labels; `gaps` are between columns and between rows.
        """
        width = (self.width - left - 0.25 - gaps[0] * (columns - 1)) / columns
        return [
            (left + column * (width + gaps[0]), foot + (rows - 1 - row) * (height + gaps[1]), width, height)
            for row in range(rows)
            for column in range(columns)
        ]

    def text_width(self, texts: Sequence[str], size: float, weight: str = "normal") -> float:
        """Width of the longest text, inches."""
        font, renderer = FontProperties(size=size, weight=weight), self.canvas.get_renderer()
        widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
        return float(max(widths, default=0.0)) / float(self.figure.dpi)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def _handle(key: Key) -> Line2D:
    style: dict[str, Any] = {"color": key.look.colour, "marker": key.look.marker, "markersize": key.size}
    style |= {"linestyle": key.dash[0] if key.dash else "", "linewidth": 1.5}
    face = key.look.colour if key.filled else "white"
    return Line2D([], [], markerfacecolor=face, label=shortened(key.label), **style)


def points(axes: Axes, spots: Sequence[Spot], look: Look, size: float) -> None:
    """Draw the markers alone; hollow ones are white inside, so that nothing behind shows through."""
    x, y, colour = [spot.x for spot in spots], [spot.y for spot in spots], look.colour
    face = [colour if spot.filled else "white" for spot in spots]
    axes.scatter(x, y, s=size, marker=look.marker, facecolor=face, edgecolor=colour, linewidth=1.7, zorder=3)


def chance_line(axes: Axes, percent: float, vertical: bool = True) -> None:
    draw = axes.axvline if vertical else axes.axhline
    draw(percent, color=GREY, linestyle="--", linewidth=1, zorder=1)
