"""The groundwork of the PNGs, by Matplotlib: a sheet laid out in inches, rows, intervals, legends.

Places are computed: Matplotlib's layout engines draw a figure several times to find them. `plain_text` must be in force
while a figure is drawn, so that a `$` in a name is a `$`.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D

from analysis.figures.style import CHANCE_PERCENT, GREY, GRID, INK, Dot, Spot, shortened

_DPI = 150
_EDGE = 0.15  # inches kept free all round
_LEGEND_ROW = 0.21


@contextmanager
def plain_text() -> Iterator[None]:
    """No text is mathematics; a sign that the font lacks is a box, and nothing to warn of."""
    settings = {"text.parse_math": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#999999"}
    settings |= {"xtick.color": INK, "ytick.color": INK, "font.size": 9.0, "axes.labelsize": 9.5}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure whose body, below the heading and the banner, is laid out in inches.

    Attributes:
        width, body: of the body, inches.
        height: of the whole.
    """

    figure: Figure
    canvas: FigureCanvasAgg
    width: float
    body: float
    height: float

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes at this place, inches from the body's lower left corner."""
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def panel(self, left: float, bottom: float, width: float, height: float, rows: bool = False) -> Axes:
        """Axes with a grid and without a frame; with `rows` the grid is of x alone."""
        axes = self.axes(left, bottom, width, height)
        axes.grid(axis="x" if rows else "both", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"] if rows else ["top", "right"]].set_visible(False)
        return axes

    def text_width(self, texts: Sequence[str], size: float, weight: str = "normal") -> float:
        """Inches that the longest of these takes."""
        font, renderer = FontProperties(size=size, weight=weight), self.canvas.get_renderer()
        widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
        return float(max(widths, default=0.0)) / float(self.figure.dpi)

    def legend(self, entries: Sequence[Line2D], columns: int) -> None:
        """At the foot of the sheet, in `legend_height(len(entries), columns)` inches."""
        if entries:
            place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, (_EDGE / 2) / self.height)}
            pads: dict[str, Any] = {"borderaxespad": 0, "borderpad": 0.1, "columnspacing": 1.6, "handletextpad": 0.6}
            ncols = min(columns, len(entries))
            self.figure.legend(handles=list(entries), ncols=ncols, frameon=False, fontsize=8.5, **place, **pads)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def sheet(heading: str, banner: str | None, width: float, body: float) -> Sheet:
    """A sheet with its heading and, below it, what must be said of the numbers; `width` and `body` in inches."""
    lines = textwrap.wrap(banner or "", round(12.5 * width))
    height = body + 0.5 + (0.19 * len(lines) + 0.06 if lines else 0.0)
    figure = Figure(figsize=(width, height), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    figure.text(_EDGE / width, 1 - 0.12 / height, heading, fontsize=13, fontweight="bold", va="top")
    style: dict[str, Any] = {"fontsize": 9.5, "color": "#9a3412", "va": "top", "linespacing": 1.3}
    figure.text(_EDGE / width, 1 - 0.44 / height, "\n".join(lines), **style)
    return Sheet(figure, canvas, width, body, height)


def legend_height(entries: int, columns: int) -> float:
    """Inches."""
    return _LEGEND_ROW * -(-entries // columns) + 0.05 if entries else 0.0


def row_sheet(
    heading: str,
    banner: str | None,
    labels: Sequence[str],
    width: float = 9.0,
    panels: int = 1,
    legend: Sequence[Line2D] = (),
    columns: int = 4,
    row: float | None = None,
    headings: Sequence[str] = (),
) -> tuple[Sheet, list[Axes]]:
    """A sheet with a row for each label, the first on top, those that are headings in bold, and so many panels side by
    side."""
    number = len(labels)
    size = row if row is not None else 0.36 if number <= 12 else 0.3 if number <= 24 else 0.25
    rows = max(len(labels), 2)
    foot = legend_height(len(legend), columns) + 0.62
    page = sheet(heading, banner, width, rows * size + foot + 0.05)
    texts = [shortened(label) for label in labels]
    font = 9.0 if size > 0.25 else 8.0
    left = _EDGE + 0.08 + max(page.text_width(texts, font), page.text_width(headings, font, "bold"))
    gap = 0.3
    each = (width - left - 0.3 - gap * (panels - 1)) / panels
    found = []
    for number in range(panels):
        axes = page.panel(left + number * (each + gap), foot, each, rows * size, rows=True)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(labels)), texts if number == 0 else [""] * len(labels), fontsize=font)
        for tick in axes.get_yticklabels():
            if tick.get_text() in headings:
                tick.set_fontweight("bold")
        axes.set_ylim(rows - 0.5, -0.5)
        found.append(axes)
    page.legend(legend, columns)
    return page, found


def spots(axes: Axes, spots: Sequence[Spot], marker: str, size: float = 46.0, cap: float = 40.0) -> None:
    """Markers of one shape with their intervals, which end in caps; those without a value are left out."""
    bars = [spot for spot in spots if np.isfinite([spot.low, spot.high]).all()]
    if bars:
        at, shades = [spot.y for spot in bars], [spot.colour for spot in bars]
        low, high = [spot.low for spot in bars], [spot.high for spot in bars]
        axes.hlines(at, low, high, colors=shades, linewidth=1.6, zorder=2)
        for ends in (low, high):
            axes.scatter(ends, at, marker="|", s=cap, color=shades, linewidths=1.6, zorder=2)
    points(axes, [spot for spot in spots if np.isfinite(spot.x)], marker, size)


def points(axes: Axes, spots: Sequence[Spot], marker: str, size: float) -> None:
    """The markers alone; hollow ones are white within, so that what lies behind does not show through."""
    x, y, edge = [spot.x for spot in spots], [spot.y for spot in spots], [spot.colour for spot in spots]
    face = [spot.colour if spot.filled else "white" for spot in spots]
    axes.scatter(x, y, s=size, marker=marker, facecolor=face, edgecolor=edge, linewidth=1.7, zorder=3)


def dots(axes: Axes, found: Sequence[Dot], opaque: float = 0.5) -> None:
    """Small dots behind the markers."""
    if found:
        shades = [to_rgba(dot.colour, opaque) for dot in found]
        axes.scatter([d.x for d in found], [d.y for d in found], s=11, color=shades, linewidths=0, zorder=1.5)


def separator(axes: Axes, y: float, colour: str = "#bbbbbb") -> None:
    """A line between two rows."""
    axes.axhline(y, color=colour, linewidth=0.8)


def chance_line(axes: Axes, vertical: bool = True) -> None:
    draw = axes.axvline if vertical else axes.axhline
    draw(CHANCE_PERCENT, color=GREY, linestyle="--", linewidth=1, zorder=1)


def beside(axes: Axes, x: float, y: float, text: str, gap: float = 10.0) -> None:
    """Words to the right of a value or where one would stand; grid and lines do not cross them."""
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
    style: dict[str, Any] = {"color": GREY, "fontstyle": "italic", "fontsize": 8.5, "va": "center", "zorder": 4}
    axes.annotate(shortened(text), (x, y), xytext=(gap, 0), textcoords="offset points", bbox=plate, **style)


def shape(marker: str, label: str, colour: str = INK, filled: bool = True, size: float = 7.0) -> Line2D:
    """A marker for the legend."""
    face = colour if filled else "white"
    return Line2D(
        [], [], color=colour, marker=marker, linestyle="", markersize=size, markerfacecolor=face, label=shortened(label)
    )


def stroke(label: str, colour: str = GREY, style: Any = "--", width: float = 1.2) -> Line2D:
    """A line for the legend."""
    return Line2D([], [], color=colour, linestyle=style, linewidth=width, label=shortened(label))


def chance_entry() -> Line2D:
    return stroke(f"chance, {CHANCE_PERCENT:g} %")
