"""f1_by_rudiment: which rudiments are told apart, by the best arm of each backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.stats.arms import Arm
from analysis.stats.confusion import counts_of, f1_of_each, spoken
from analysis.write.blocks import Picture
from sousaphone.confusion import families
from sousaphone.rudiments import FAMILIES, SLUGS

Scores = npt.NDArray[np.float64]


def picture(scene: Scene) -> Picture | None:
    found = [(arm, f1_of(scene, arm)) for arm in scene.best]
    heard = [i for i in range(len(SLUGS)) if any(np.isfinite(scores[i]) for _, scores in found)]
    if not heard:
        return None
    # Within a family the easiest first, by the mean over backbones.
    means = np.nanmean(np.stack([scores for _, scores in found])[:, heard], axis=0)
    mean = dict(zip(heard, means.tolist(), strict=True))
    order = {family: place for place, family in enumerate(dict.fromkeys(FAMILIES.values()))}
    heard.sort(key=lambda i: (order[FAMILIES[SLUGS[i]]], -mean[i]))
    told = (
        "F1 on the test clips (the harmonic mean of precision and recall), the mean over seeds, of each backbone's "
        "best arm by validation. Families one below the other, the easiest rudiment of each first."
    )
    if len(heard) < len(SLUGS):
        told += f" {len(SLUGS) - len(heard)} rudiments are not among the test clips."
    png, chart = _png(scene, found, heard), _chart(scene, found, heard)
    return Picture("f1_by_rudiment", "F1 by rudiment", told, png, chart)


def f1_of(scene: Scene, arm: Arm) -> Scores:
    """[C] the F1 of each class, the mean over the arm's seeds; NaN for a class that was not heard."""
    rows = scene.rows(arm)
    return np.asarray(np.mean([f1_of_each(counts_of(rows, [name])) for name in scene.scored(arm)], axis=0))


def _png(scene: Scene, found: Sequence[tuple[Arm, Scores]], heard: Sequence[int]) -> bytes:
    legend = [mpl.shape(scene.look(arm).marker, arm.name, scene.shade(arm)) for arm, _ in found]
    labels = [spoken(SLUGS[i]) for i in heard]
    page, (axes,) = mpl.row_sheet("F1 by rudiment", scene.banner, labels, 8.0, legend=legend, columns=2, row=0.215)
    y = np.arange(len(heard))
    shown = [scores[list(heard)] for _, scores in found]
    axes.hlines(y, np.nanmin(shown, axis=0), np.nanmax(shown, axis=0), color="#cccccc", linewidth=1.2, zorder=1)
    for arm, scores in found:
        marker, colour = scene.look(arm).marker, scene.shade(arm)
        axes.scatter(scores[list(heard)], y, s=30, marker=marker, color=colour, alpha=0.9, linewidths=0, zorder=3)
    for family, begin, end in families([SLUGS[i] for i in heard]):
        if begin:
            mpl.separator(axes, begin - 0.5, "#999999")
        axes.text(1.035, (begin + end - 1) / 2, family, rotation=270, va="center", ha="center", fontsize=8.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("F1")
    return page.png()


def _chart(scene: Scene, found: Sequence[tuple[Arm, Scores]], heard: Sequence[int]) -> go.Figure:
    figure = go.Figure()
    for arm, scores in found:
        look = scene.look(arm)
        figure.add_scatter(
            x=plotly_charts.rounded(scores[list(heard)].tolist(), 3),
            y=list(range(len(heard))),
            mode="markers",
            name=plotly_charts.label(arm.name),
            hovertemplate="%{y}: %{x:.2f}<extra>%{fullData.name}</extra>",
            marker={"size": 9, "symbol": look.symbol, "color": scene.shade(arm), "opacity": 0.85},
            showlegend=True,
        )
    plotly_charts.row_axis(figure, [spoken(SLUGS[i]) for i in heard])
    figure.update_yaxes(showgrid=True)
    for family, begin, end in families([SLUGS[i] for i in heard]):
        if begin:
            figure.add_hline(y=begin - 0.5, line={"color": "#999999", "width": 1})
        figure.add_annotation(
            x=1.02, y=(begin + end - 1) / 2, xref="paper", text=family, textangle=90, showarrow=False, xanchor="center"
        )
    figure.update_xaxes(title="F1", range=[-0.02, 1.02])
    plotly_charts.styled(figure, 20 * max(len(heard), 3), legend_columns=2)
    return figure.update_layout(margin={"r": 40})
