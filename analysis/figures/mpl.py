"""The groundwork of the PNGs, by Matplotlib: a sheet laid out in inches, rows, intervals, legends.

Everything has its place by arithmetic: Matplotlib's own layout engines draw a figure several times to find it, and a
report has many figures. `plain_text` must be in force while one is drawn: a `$` in a name is a `$`.
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

from analysis.figures.style import CHANCE_PERCENT, GREY, GRID, INK, shortened

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

    def axes(self, left: float, bottom: float, width: float, height: float, **more: Any) -> Axes:
        """Axes at this place, inches from the body's lower left corner."""
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place, **more)

    def text_width(self, texts: Sequence[str], size: float, weight: str = "normal") -> float:
        """Inches that the longest of these takes."""
        font, renderer = FontProperties(size=size, weight=weight), self.canvas.get_renderer()
        widths = [renderer.get_text_width_height_descent(text, font, False)[0] for text in texts]
        return float(max(widths, default=0.0)) / float(self.figure.dpi)

    def legend(self, entries: Sequence[Line2D], columns: int) -> None:
        """At the foot of the sheet, in `legend_height(len(entries), columns)` inches."""
        if entries:
            spot = (0.5, (_EDGE / 2) / self.height)
            style: dict[str, Any] = {"frameon": False, "fontsize": 8.5, "columnspacing": 1.6, "handletextpad": 0.6}
            self.figure.legend(
                handles=list(entries),
                loc="lower center",
                bbox_to_anchor=spot,
                ncols=min(columns, len(entries)),
                borderaxespad=0,
                borderpad=0.1,
                **style,
            )

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


def row_height(rows: int) -> float:
    """Inches: less where there are many."""
    return 0.36 if rows <= 12 else 0.3 if rows <= 24 else 0.25


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
    size = row if row is not None else row_height(len(labels))
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
        axes = page.axes(left + number * (each + gap), foot, each, rows * size)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(range(len(labels)), texts if number == 0 else [""] * len(labels), fontsize=font)
        for tick in axes.get_yticklabels():
            if tick.get_text() in headings:
                tick.set_fontweight("bold")
        axes.set_ylim(rows - 0.5, -0.5)
        found.append(axes)
    page.legend(legend, columns)
    return page, found


def intervals(
    axes: Axes,
    y: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colours: Sequence[str],
    cap: float = 40.0,
) -> None:
    """Horizontal bars with caps from `low` to `high`; none where a limit is NaN."""
    known = [i for i in range(len(y)) if np.isfinite(low[i]) and np.isfinite(high[i])]
    if not known:
        return
    shade = [colours[i] for i in known]
    at = [y[i] for i in known]
    axes.hlines(at, [low[i] for i in known], [high[i] for i in known], colors=shade, linewidth=1.6, zorder=2)
    for ends in (low, high):
        axes.scatter([ends[i] for i in known], at, marker="|", s=cap, color=shade, linewidths=1.6, zorder=2)


def points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colours: Sequence[str],
    marker: str = "o",
    filled: bool = True,
    size: float = 46.0,
) -> None:
    """Markers of one shape; hollow ones are white within, so that what lies behind does not show through."""
    face: Any = list(colours) if filled else "white"
    axes.scatter(x, y, s=size, marker=marker, facecolor=face, edgecolor=list(colours), linewidth=1.7, zorder=3)


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colours: Sequence[str], opaque: float = 0.5) -> None:
    """Small dots behind the markers: single seeds or players."""
    if x:
        axes.scatter(x, y, s=11, color=[to_rgba(c, opaque) for c in colours], linewidths=0, zorder=1.5)


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
