"""confusion: confusion matrix of the best arm; on the page, of the best arm of each backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.patches import Rectangle

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import INK, shortened
from analysis.run_summary import Findings
from analysis.stats.confusion import Counts, Pair, counts_of, worst_pairs
from analysis.write.blocks import Picture
from sousaphone.confusion import FRAME, draw_matrix, families, row_fractions
from sousaphone.rudiments import SLUGS, spoken
from sousaphone.text import counted

_MOST_NAMED = 8
_NAMES = [spoken(slug) for slug in SLUGS]


@dataclass(frozen=True)
class Matrix:
    name: str  # of the arm
    counts: Counts
    worst: Sequence[Pair]


def picture(run: Findings) -> Picture | None:
    found = []
    for arm in run.best:
        counts = counts_of(run.rows(arm), run.scored(arm))
        found.append(Matrix(arm.name, counts, worst_pairs(counts, _MOST_NAMED)))
    if not found:
        return None
    first, number = found[0], len(run.scored(run.best[0]))
    seeds = f", {counted(number, 'seed')} summed" if number > 1 else ""
    caption = (
        f"{first.name}, the best arm by validation{seeds}. Rows: true rudiment; columns: predicted rudiment; "
        "colour: fraction of the row's test clips. Frames: families."
    )
    if first.worst:
        pairs = [f"{spoken(p.true)} → {spoken(p.predicted)} ({p.count} of {p.support})" for p in first.worst[:4]]
        caption += f" Most frequent confusions: {'; '.join(pairs)}."
    chart = _chart(found)
    return Picture("confusion", "Confusion matrix", caption, _png(first, run.banner), chart, min_width=650)


def _png(matrix: Matrix, banner: str | None) -> bytes:
    side, left, bottom = 6.6, 1.75, 1.75
    page = mpl.Sheet(f"Confusion matrix: {shortened(matrix.name)}", banner, 11.0, bottom + side + 0.1)
    axes = page.axes(left, bottom, side, side)
    image = draw_matrix(axes, matrix.counts, 7.0)
    for pair in matrix.worst:
        x, y = SLUGS.index(pair.predicted) - 0.5, SLUGS.index(pair.true) - 0.5
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=INK, linewidth=1.1))
    text_left = left + side + 0.3
    bar = page.axes(text_left, bottom + side - 0.42, 1.8, 0.13)
    page.figure.colorbar(image, cax=bar, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"], fontsize=8)
    bar.set_title("fraction of the row's clips", fontsize=8.5, loc="left")
    words = page.axes(text_left, bottom, 11.0 - text_left - 0.1, side - 0.95)
    words.set_axis_off()
    words.text(
        0, 1, "Most frequent confusions\n(outlined), true → predicted:", va="top", fontsize=8.5, fontweight="bold"
    )
    for place, pair in enumerate(matrix.worst):
        lines = f"{spoken(pair.true)}\n    → {spoken(pair.predicted)}: {pair.count} of {pair.support}"
        lines += f" ({100 * pair.fraction:.0f} %)"
        words.text(0, 0.925 - 0.075 * place, lines, va="top", fontsize=7.8, linespacing=1.3)
    return page.png()


def _chart(found: Sequence[Matrix]) -> go.Figure:
    figure = go.Figure()
    frames = [_frame(begin, begin, end - begin, FRAME) for _, begin, end in families()]
    notes: list[dict[str, Any]] = []
    for family, begin, end in families():
        # To the right of its frame; the last has no room there.
        x, side = (begin - 0.7, "right") if end == len(SLUGS) else (end - 0.3, "left")
        note = {"x": x, "xanchor": side, "y": (begin + end - 1) / 2, "text": family, "showarrow": False}
        notes.append({**note, "font": {"color": FRAME, "size": 12}})
    buttons: list[dict[str, Any]] = []
    for number, matrix in enumerate(found):
        percent = np.nan_to_num(100 * row_fractions(matrix.counts)).round().astype(np.uint8)
        figure.add_heatmap(
            z=percent,
            customdata=matrix.counts.astype(np.min_scalar_type(matrix.counts.max())),
            zmin=0,
            zmax=100,
            colorscale="Blues",
            colorbar={"title": {"text": "% of row"}, "len": 0.5, "thickness": 14, "x": 1.0},
            hovertemplate="true: %{y}<br>predicted: %{x}<br>%{z} % (%{customdata} clips)<extra></extra>",
            visible=number == 0,
            xgap=0.5,
            ygap=0.5,
        )
        outlines = [_frame(SLUGS.index(p.predicted), SLUGS.index(p.true), 1, INK) for p in matrix.worst]
        seen = {"visible": [place == number for place in range(len(found))]}
        shapes = {"shapes": [*frames, *outlines]}
        buttons.append({"label": plotly_charts.escape(matrix.name), "method": "update", "args": [seen, shapes]})
        if number == 0:
            figure.update_layout(**shapes, annotations=notes)
    ticks = {"tickvals": list(range(len(SLUGS))), "ticktext": _NAMES, "tickfont": {"size": 10}, "showgrid": False}
    figure.update_xaxes(**ticks, tickangle=-90, title="predicted", range=[-0.5, len(SLUGS) - 0.5])
    figure.update_yaxes(**ticks, title="true", range=[len(SLUGS) - 0.5, -0.5])
    plotly_charts.styled(figure, 800)
    menu = {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom", "showactive": True}
    return figure.update_layout(margin={"t": 60}, updatemenus=[menu])


def _frame(column: int, row: int, cells: int, colour: str) -> dict[str, Any]:
    """plotly's outline of a square of `cells` cells whose first is (column, row)."""
    x, y = {"x0": column - 0.5, "x1": column + cells - 0.5}, {"y0": row - 0.5, "y1": row + cells - 0.5}
    return {"type": "rect", **x, **y, "line": {"color": colour, "width": 1.5}}
