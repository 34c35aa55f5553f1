"""Figures with one row for each arm, rudiment or group of clips, drawn from one description as a PNG and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import GREY, GRID, Bar, Dot, Key, Spot, chance_key, shortened
from analysis.stats.arms import Look
from analysis.write.blocks import Picture

_SEPARATOR = "#bbbbbb"
_BAR_HEIGHT = 0.62  # rows


@dataclass(frozen=True)
class Series:
    """Markers of one shape and colour, and their intervals."""

    look: Look
    spots: Sequence[Spot]
    hover: Sequence[str]  # for each spot, in plotly's HTML
    name: str = ""  # in the legend; a series without a name is not listed


@dataclass(frozen=True)
class Panel:
    """One x axis and what is drawn along it; `y` counts rows."""

    axis: str  # label of the x axis
    limits: tuple[float, float]
    series: Sequence[Series] = ()
    dots: Sequence[Dot] = ()
    bars: Sequence[Bar] = ()
    number: str = "%{x:.1f} %"  # plotly's template of the number of a dot or a bar


@dataclass(frozen=True)
class RowFigure:
    """One figure with rows, the first on top, and panels side by side."""

    name: str
    heading: str
    caption: str
    banner: str | None
    labels: Sequence[str]
    panels: Sequence[Panel]
    keys: Sequence[Key] = ()  # of the legend, in addition to named series
    chance: float | None = None  # accuracy of a random prediction, percent, drawn as a line
    size: float = 6.5  # of a marker, points
    zero: bool = False  # draw a line at 0
    grid: bool = False  # draw a line along each row
    headings: Sequence[str] = ()  # labels in bold
    separators: Sequence[int] = ()  # rows with a line above them
    groups: Sequence[tuple[str, int, int]] = ()  # (name, first row, one past its last), named on the right
    width: float = 9.0  # inches
    row: float | None = None  # height of a row, inches; by default it depends on the number of rows
    columns: int = 4  # of the legend

    def picture(self) -> Picture:
        min_width = 350 if len(self.panels) == 1 else 550
        return Picture(self.name, self.heading, self.caption, self._png(), self._chart(), min_width)

    @property
    def _chance(self) -> list[Key]:
        return [] if self.chance is None else [chance_key(self.chance)]

    @property
    def _rows(self) -> tuple[int, float]:
        """The number of rows, and the height of one, inches."""
        rows = max(len(self.labels), 2)
        return rows, self.row if self.row is not None else 0.36 if rows <= 12 else 0.3 if rows <= 24 else 0.25

    def _png(self) -> bytes:
        rows, size = self._rows
        legend = [Key(series.name, series.look) for panel in self.panels for series in panel.series if series.name]
        legend += [*self.keys, *self._chance]
        page = mpl.Sheet(self.heading, self.banner, self.width, rows * size + 0.67, legend, self.columns)
        texts = [shortened(label) for label in self.labels]
        font = 9.0 if size > 0.25 else 8.0
        left = 0.23 + max(page.text_width(texts, font), page.text_width(self.headings, font, "bold"))
        places = page.cells(1, len(self.panels), left, page.foot + 0.62, rows * size, (0.3, 0.0))
        for number, (panel, place) in enumerate(zip(self.panels, places, strict=True)):
            axes = page.panel(*place, rows=True)
            axes.tick_params(axis="y", length=0, labelleft=number == 0)
            axes.set_yticks(range(len(texts)), texts, fontsize=font)
            for tick in axes.get_yticklabels():
                if tick.get_text() in self.headings:
                    tick.set_fontweight("bold")
            axes.set_ylim(rows - 0.5, -0.5)
            self._draw(axes, panel)
        return page.png()

    def _draw(self, axes: Axes, panel: Panel) -> None:
        if self.chance is not None:
            mpl.chance_line(axes, self.chance)
        if self.zero:
            axes.axvline(0, color=GREY, linewidth=1, zorder=1)
        if self.grid:
            axes.grid(axis="y", color=GRID, linewidth=0.8)
        for bar in panel.bars:
            axes.barh(bar.y, bar.x, height=_BAR_HEIGHT, color=bar.colour)
            offset: dict[str, Any] = {"xytext": (5, 0), "textcoords": "offset points"}
            axes.annotate(bar.text, (bar.end, bar.y), **offset, va="center", fontsize=8.5)
        if panel.dots:  # behind the markers; a white edge separates neighbours
            at: dict[str, Any] = {"x": [dot.x for dot in panel.dots], "y": [dot.y for dot in panel.dots]}
            shades = [to_rgba(dot.colour, 0.5) for dot in panel.dots]
            axes.scatter(**at, s=13, color=shades, edgecolors="white", linewidths=0.4, zorder=1.5)
        for series in panel.series:
            self._draw_series(axes, series)
        for place in self.separators:
            axes.axhline(place - 0.5, color=_SEPARATOR, linewidth=0.8)
        for text, begin, end in self.groups:
            right = panel.limits[1] + 0.025 * (panel.limits[1] - panel.limits[0])
            axes.text(right, (begin + end - 1) / 2, text, rotation=270, va="center", ha="center", fontsize=8.5)
        axes.set_xlim(*panel.limits)
        axes.set_xlabel(panel.axis)
        if len(self.panels) > 1:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))  # the outermost numbers of the panels are close

    def _draw_series(self, axes: Axes, series: Series) -> None:
        """Draw markers and their intervals, which end in caps; markers without a value are left out."""
        colour, area = series.look.colour, self.size**2
        bars = [spot for spot in series.spots if np.isfinite([spot.low, spot.high]).all()]
        if bars:
            at, low, high = [spot.y for spot in bars], [spot.low for spot in bars], [spot.high for spot in bars]
            axes.hlines(at, low, high, colors=colour, linewidth=1.6, zorder=2)
            for ends in (low, high):
                axes.scatter(ends, at, marker="|", s=0.85 * area, color=colour, linewidths=1.6, zorder=2)
        mpl.points(axes, [spot for spot in series.spots if np.isfinite(spot.x)], series.look, area)

    def _chart(self) -> go.Figure:
        figure = make_subplots(1, len(self.panels), shared_yaxes=True, horizontal_spacing=0.04)
        plotly_charts.legend(figure, self.keys)
        for column, panel in enumerate(self.panels, start=1):
            self._add(figure, panel, row=1, col=column)
        rows, size = self._rows
        names = [plotly_charts.escape(text) for text in self.labels]
        names = [
            f"<b>{name}</b>" if text in self.headings else name for name, text in zip(names, self.labels, strict=True)
        ]
        ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "ticklabelstandoff": 5}
        figure.update_yaxes(range=[rows - 0.5, -0.5], showgrid=self.grid, **ticks)
        for place in self.separators:
            figure.add_hline(y=place - 0.5, line={"color": _SEPARATOR, "width": 1}, layer="below")
        for text, begin, end in self.groups:
            middle = {"y": (begin + end - 1) / 2, "text": text, "textangle": 90, "showarrow": False}
            figure.add_annotation(x=1.02, xref="paper", xanchor="center", **middle)
        if self.chance is not None:
            plotly_charts.chance_line(figure, self.chance)
            plotly_charts.legend(figure, self._chance)
        if self.zero:
            figure.add_vline(x=0, line={"color": GREY, "width": 1}, layer="below")
        plotly_charts.styled(figure, 93 * rows * size, self.columns)
        return figure.update_layout(margin={"r": 40}) if self.groups else figure

    def _add(self, figure: go.Figure, panel: Panel, **where: int) -> None:
        """Add one panel's bars, dots and series to the chart."""
        named = f"{panel.number}<br>%{{hovertext}}<extra></extra>"
        figure.update_xaxes(title=panel.axis, range=panel.limits, **where)
        if panel.bars:
            y = [bar.y for bar in panel.bars]
            figure.add_bar(
                x=plotly_charts.rounded([bar.x for bar in panel.bars]),
                y=y,
                width=_BAR_HEIGHT,
                orientation="h",
                hovertext=[plotly_charts.escape(bar.name, 200) for bar in panel.bars],
                hovertemplate=named,
                marker={"color": [bar.colour for bar in panel.bars]},
                showlegend=False,
                **where,
            )
            words = {"mode": "text", "textposition": "middle right", "hoverinfo": "skip", "cliponaxis": False}
            texts = [f" {bar.text}" for bar in panel.bars]
            figure.add_scatter(x=[bar.end for bar in panel.bars], y=y, text=texts, showlegend=False, **words, **where)
        if panel.dots:
            colours = [dot.colour for dot in panel.dots]
            edge = {"color": "#ffffff", "width": 0.5}
            figure.add_scatter(
                x=plotly_charts.packed([dot.x for dot in panel.dots]),
                y=plotly_charts.packed([dot.y for dot in panel.dots]),
                mode="markers",
                hovertext=[plotly_charts.escape(dot.name, 200) for dot in panel.dots],
                hovertemplate=named,
                marker={"size": 5, "opacity": 0.5, "color": colours, "line": edge},
                showlegend=False,
                **where,
            )
        for series in panel.series:
            colour = series.look.colour
            face = [colour if spot.filled else "#ffffff" for spot in series.spots]
            intervals = any(np.isfinite(spot.low) for spot in series.spots)
            figure.add_scatter(
                x=plotly_charts.rounded([spot.x for spot in series.spots], 3),
                y=[round(spot.y, 3) for spot in series.spots],
                mode="markers",
                name=plotly_charts.escape(series.name) or None,
                customdata=list(series.hover),
                hovertemplate=f"%{{customdata}}<extra>{'%{fullData.name}' if series.name else ''}</extra>",
                error_x=plotly_charts.error(series.spots, colour) if intervals else None,
                marker=plotly_charts.outlined(series.look.symbol, colour, face, round(1.6 * self.size, 1)),
                showlegend=bool(series.name),
                **where,
            )
