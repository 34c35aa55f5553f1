"""reliability: fraction of correct test clips against predicted probability, before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import mpl, plotly_charts
from analysis.figures.style import GREY, Key, Spot, shortened
from analysis.run_summary import Findings
from analysis.stats.arms import Look
from analysis.stats.calibration import Calibration, Scaling
from analysis.write.blocks import Picture

_MOST_ARMS, _COLUMNS = 12, 4
_HEADING = "Reliability"
_WAY = "centre window"
_DIAGONAL = Key("calibrated", Look("#999999", "", ""), dash=("--", "dash"))


@dataclass(frozen=True)
class Panel:
    """One arm's diagram."""

    title: str
    look: Look
    scaling: Scaling


def picture(run: Findings) -> Picture | None:
    found = [Panel(arm.label, run.look(arm), own[_WAY]) for arm, _, own in run.calibrated if _WAY in own]
    if not found:
        return None
    caption = (
        "Test clips in bins of equal size by the probability of the predicted rudiment (centre windows), for the best "
        "trial of each arm. Below the diagonal, the model is too confident. Hollow: before, filled: after scaling with "
        "the temperature fitted on validation clips."
    )
    if len(found) > _MOST_ARMS:
        caption += f" Only the {_MOST_ARMS} best arms by validation are shown."
    found = found[:_MOST_ARMS]
    return Picture("reliability", _HEADING, caption, _png(found, run.banner), _chart(found), min_width=550)


def _png(panels: Sequence[Panel], banner: str | None) -> bytes:
    columns = min(_COLUMNS, len(panels))
    rows, side, gap = -(-len(panels) // columns), 2.1, 0.62
    keys = [Key("before", filled=False), Key("after"), _DIAGONAL]
    width = columns * (side + 0.25) + 0.95
    page = mpl.Sheet(_HEADING, banner, max(width, 7.0), rows * (side + gap) + 0.3, keys, columns=3)
    places = page.cells(rows, columns, 0.7, page.foot + 0.62, side, (0.25, gap))
    for number, (panel, place) in enumerate(zip(panels, places, strict=False)):
        axes = page.panel(*place[:2], side, side)
        axes.plot([0, 100], [0, 100], color="#999999", linestyle="--", linewidth=1, zorder=1)
        for own, filled in ((panel.scaling.before, False), (panel.scaling.after, True)):
            axes.plot(100 * own.confidence, 100 * own.accuracy, color=panel.look.colour, linewidth=0.8, alpha=0.6)
            mpl.points(axes, _spots(own, filled), panel.look, 22.0)
        axes.set_xlim(-4, 104)
        axes.set_ylim(-4, 104)
        axes.set_title(shortened(panel.title, 34), fontsize=8.5, loc="left")
        if number % columns:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("correct, %")
        if number + columns >= len(panels):
            axes.set_xlabel("probability, %")
    return page.png()


def _spots(own: Calibration, filled: bool) -> list[Spot]:
    return [Spot(100 * x, 100 * y, filled) for x, y in zip(own.confidence, own.accuracy, strict=True)]


def _chart(panels: Sequence[Panel]) -> go.Figure:
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    titles = [plotly_charts.escape(panel.title, 34) for panel in panels]
    spacing: dict[str, Any] = {"horizontal_spacing": 0.05, "vertical_spacing": 0.35 / rows}
    figure = make_subplots(rows, columns, subplot_titles=titles, **spacing)
    figure.update_annotations(font_size=12)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        where = {"row": row + 1, "col": column + 1}
        line = {"color": "#999999", "dash": "dash", "width": 1}
        figure.add_scatter(x=[0, 100], y=[0, 100], mode="lines", line=line, hoverinfo="skip", showlegend=False, **where)
        for own, filled, name in ((panel.scaling.before, False, "before"), (panel.scaling.after, True, "after")):
            face = panel.look.colour if filled else "#ffffff"
            figure.add_scatter(
                x=plotly_charts.rounded([100 * x for x in own.confidence]),
                y=plotly_charts.rounded([100 * y for y in own.accuracy]),
                mode="lines+markers",
                line={"color": panel.look.colour, "width": 1},
                marker=plotly_charts.outlined(panel.look.symbol, panel.look.colour, face, 7),
                hovertemplate=f"{name}: probability %{{x:.0f}} %, correct %{{y:.0f}} %<extra></extra>",
                showlegend=False,
                **where,
            )
        figure.update_xaxes(range=[-4, 104], title="probability, %" if row == rows - 1 else None, **where)
        figure.update_yaxes(range=[-4, 104], title="correct, %" if column == 0 else None, **where)
    plotly_charts.legend(figure, [Key("before", Look(GREY, "o", "circle"), filled=False), Key("after"), _DIAGONAL])
    return plotly_charts.styled(figure, 260 * rows)
