"""Figures with one row for each arm, rudiment or kind of clip, drawn from one description as a PNG and as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import CHANCE, GREY, GRID, Dot, Key, Spot
from analysis.stats.arms import Look
from analysis.write.blocks import Picture


@dataclass(frozen=True)
class Series:
    """Markers of one shape and colour, and their intervals."""

    look: Look
    spots: Sequence[Spot]
    hover: Sequence[str]  # for each spot, in plotly's HTML
    name: str = ""  # in the legend; a series without a name is not listed


@dataclass(frozen=True)
class RowFigure:
    """One figure with rows; row 0 is on top, and `y` of markers and dots counts rows."""

    name: str
    heading: str
    caption: str
    banner: str | None
    labels: Sequence[str]
    axis: str  # label of the x axis
    limits: tuple[float, float]  # of the x axis
    series: Sequence[Series]
    keys: Sequence[Key] = ()  # of the legend, in addition to named series; `CHANCE` draws the line of chance as well
    dots: Sequence[Dot] = ()
    dot_hover: str = "%{x:.1f} %"  # plotly's template
    size: float = 6.5  # of a marker, points
    zero: bool = False  # draw a line at 0
    grid: bool = False  # draw a line along each row
    headings: Sequence[str] = ()  # labels in bold
    separators: Sequence[int] = ()  # rows with a line above them
    groups: Sequence[tuple[str, int, int]] = ()  # (name, first row, one past its last), named on the right
    width: float = 9.0  # inches
    row: float | None = None  # height of a row, inches
    pixels: float | None = None  # height of a row in the chart
    columns: int = 4  # of the legend

    def picture(self) -> Picture:
        return Picture(self.name, self.heading, self.caption, self._png(), self._chart())

    def _png(self) -> bytes:
        keys = [*(Key(series.name, series.look) for series in self.series if series.name), *self.keys]
        page, (axes,) = mpl.row_sheet(
            self.heading,
            self.banner,
            self.labels,
            self.width,
            legend=keys,
            columns=self.columns,
            row=self.row,
            headings=self.headings,
        )
        if CHANCE in self.keys:
            mpl.chance_line(axes)
        if self.zero:
            axes.axvline(0, color=GREY, linewidth=1, zorder=1)
        if self.grid:
            axes.grid(axis="y", color=GRID, linewidth=0.8)
        mpl.dots(axes, self.dots)
        for series in self.series:
            mpl.spots(axes, series.spots, series.look, self.size**2)
        for place in self.separators:
            axes.axhline(place - 0.5, color="#bbbbbb", linewidth=0.8)
        for text, begin, end in self.groups:
            right = self.limits[1] + 0.025 * (self.limits[1] - self.limits[0])
            axes.text(right, (begin + end - 1) / 2, text, rotation=270, va="center", ha="center", fontsize=8.5)
        axes.set_xlim(*self.limits)
        axes.set_xlabel(self.axis)
        return page.png()

    def _chart(self) -> go.Figure:
        figure = go.Figure()
        plotly_charts.legend(figure, [key for key in self.keys if key != CHANCE])
        if self.dots:
            names = [plotly_charts.escape(dot.name) for dot in self.dots]
            colours = [dot.colour for dot in self.dots]
            plotly_charts.dots(figure, self.dots, f"{self.dot_hover}<br>%{{text}}<extra></extra>", colours, text=names)
        for series in self.series:
            colour = series.look.colour
            face = [colour if spot.filled else "#ffffff" for spot in series.spots]
            intervals = any(np.isfinite(spot.low) for spot in series.spots)
            figure.add_scatter(
                x=plotly_charts.rounded([spot.x for spot in series.spots], 3),
                y=[round(spot.y, 3) for spot in series.spots],
                mode="markers",
                name=plotly_charts.label(series.name) or None,
                customdata=list(series.hover),
                hovertemplate=f"%{{customdata}}<extra>{'%{fullData.name}' if series.name else ''}</extra>",
                error_x=plotly_charts.error(series.spots, colour) if intervals else None,
                marker=plotly_charts.outlined(series.look.symbol, colour, face, round(1.6 * self.size, 1)),
                showlegend=bool(series.name),
            )
        height = plotly_charts.row_axis(figure, self.labels, self.headings)
        figure.update_yaxes(showgrid=self.grid)
        for place in self.separators:
            figure.add_hline(y=place - 0.5, line={"color": "#bbbbbb", "width": 1}, layer="below")
        for text, begin, end in self.groups:
            middle = {"y": (begin + end - 1) / 2, "text": text, "textangle": 90, "showarrow": False}
            figure.add_annotation(x=1.02, xref="paper", xanchor="center", **middle)
        if CHANCE in self.keys:
            plotly_charts.chance_line(figure)
            plotly_charts.legend(figure, [CHANCE])
        if self.zero:
            figure.add_vline(x=0, line={"color": GREY, "width": 1}, layer="below")
        figure.update_xaxes(title=self.axis, range=self.limits)
        if self.pixels is not None:
            height = self.pixels * max(len(self.labels), 3)
        plotly_charts.styled(figure, height, self.columns)
        return figure.update_layout(margin={"r": 40}) if self.groups else figure
