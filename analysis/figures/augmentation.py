"""augmentation_effect: what augmentation changes, player by player."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import GREY
from analysis.stats.arms import Look
from analysis.stats.statistics import Contrast
from analysis.stats.verdict import augmentation_pairs
from analysis.write.blocks import Picture

_HEADING = "Effect of augmentation"


@dataclass(frozen=True)
class Effect:
    label: str
    look: Look
    contrast: Contrast


def picture(scene: Scene) -> Picture | None:
    found = effects(scene)
    if not found:
        return None
    players = max(effect.contrast.players for effect in found)
    told = (
        "Test accuracy with augmentation minus that without, on the same clips: mean over players with its 95 % "
        f"interval; small dots are single players ({players} at most), the seeds averaged. Filled where interval and "
        "sign-flip test both tell the difference from zero; this is not corrected for the number of rows."
    )
    return Picture("augmentation_effect", _HEADING, told, _png(found, scene.banner), _chart(found))


def effects(scene: Scene) -> list[Effect]:
    """The difference for every pair of arms that differ in augmentation alone and have all their results."""
    found = [
        Effect(
            pair.first.label.removesuffix(" · augmented").removesuffix("augmented") or "all",
            scene.look(pair.first),
            pair.contrast,
        )
        for pair in augmentation_pairs(scene.groups, scene.predictions)
    ]
    return sorted(found, key=lambda effect: -effect.contrast.difference)


def _span(found: Sequence[Effect]) -> tuple[float, float]:
    values = [100 * v for e in found for v in (e.contrast.low, e.contrast.high, *e.contrast.by_player, 0.0)]
    low, high = max(min(values), -100.0), min(max(values), 100.0)
    pad = 0.05 * max(high - low, 2.0)
    return low - pad, high + pad


def _png(found: Sequence[Effect], banner: str | None) -> bytes:
    legend = [
        mpl.shape("o", "told from zero"),
        mpl.shape("o", "not told from zero", filled=False),
        mpl.shape("o", "one player", GREY, size=3.5),
    ]
    page, (axes,) = mpl.row_sheet(_HEADING, banner, [e.label for e in found], legend=legend)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    for y, effect in enumerate(found):
        look, c = effect.look, effect.contrast
        mpl.dots(axes, [100 * v for v in c.by_player], [y + 0.25] * c.players, [look.colour] * c.players)
        mpl.intervals(axes, [y], [100 * c.low], [100 * c.high], [look.colour])
        mpl.points(axes, [100 * c.difference], [y], [look.colour], look.marker, c.significant)
    axes.set_xlim(*_span(found))
    axes.set_xlabel("difference in test accuracy, points: augmented better to the right")
    return page.png()


def _chart(found: Sequence[Effect]) -> go.Figure:
    figure = go.Figure()
    plotly_charts.legend_marker(figure, "told from zero", "circle")
    plotly_charts.legend_marker(figure, "not told from zero", "circle-open")
    plotly_charts.legend_marker(figure, "one player", "circle", GREY)
    dots = [(100 * v, y, e, name) for y, e in enumerate(found) for name, v in e.contrast.by_player.items()]
    figure.add_scatter(
        x=plotly_charts.packed([value for value, _, _, _ in dots]),
        y=plotly_charts.packed([y + 0.25 for _, y, _, _ in dots]),
        mode="markers",
        text=[plotly_charts.escape(str(name)) for _, _, _, name in dots],
        hovertemplate="%{x:+.1f} points<br>%{text}<extra></extra>",
        marker={"size": 5, "opacity": 0.5, "color": [e.look.colour for _, _, e, _ in dots]},
        showlegend=False,
    )
    for look in dict.fromkeys(effect.look for effect in found):
        own = [(y, effect.contrast) for y, effect in enumerate(found) if effect.look == look]
        values = [100 * c.difference for _, c in own]
        figure.add_scatter(
            x=plotly_charts.rounded(values),
            y=[y for y, _ in own],
            mode="markers",
            customdata=[f"[{100 * c.low:+.1f}, {100 * c.high:+.1f}], {c.players} players" for _, c in own],
            hovertemplate="%{x:+.1f} points %{customdata}<extra></extra>",
            error_x=plotly_charts.error(
                values, [100 * c.low for _, c in own], [100 * c.high for _, c in own], look.colour
            ),
            marker={
                "size": 11,
                "symbol": look.symbol,
                "color": [look.colour if c.significant else "#ffffff" for _, c in own],
                "line": {"width": 2, "color": look.colour},
            },
            showlegend=False,
        )
    height = plotly_charts.row_axis(figure, [effect.label for effect in found])
    figure.add_vline(x=0, line={"color": GREY, "width": 1}, layer="below")
    figure.update_xaxes(title="difference in test accuracy, points: augmented better to the right", range=_span(found))
    return plotly_charts.styled(figure, height)
