"""augmentation_effect: what augmentation changes, player by player."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import GREY, Dot, Spot
from analysis.stats.arms import Look
from analysis.stats.statistics import Contrast
from analysis.stats.verdict import augmentation_pairs
from analysis.write.blocks import Picture

_HEADING = "Effect of augmentation"
_ALONG = "difference in test accuracy, points: augmented better to the right"


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


def _players(found: Sequence[Effect]) -> list[Dot]:
    points = [(y, effect, each) for y, effect in enumerate(found) for each in effect.contrast.by_player.items()]
    return [Dot(100 * value, y + 0.25, effect.look.colour, str(name)) for y, effect, (name, value) in points]


def _spots(found: Sequence[Effect], look: Look) -> list[tuple[Contrast, Spot]]:
    """The effects of one backbone."""
    own = [(y, effect.contrast) for y, effect in enumerate(found) if effect.look == look]
    return [(c, Spot(100 * c.difference, y, look.colour, c.significant, 100 * c.low, 100 * c.high)) for y, c in own]


def _png(found: Sequence[Effect], banner: str | None) -> bytes:
    legend = [
        mpl.shape("o", "told from zero"),
        mpl.shape("o", "not told from zero", filled=False),
        mpl.shape("o", "one player", GREY, size=3.5),
    ]
    page, (axes,) = mpl.row_sheet(_HEADING, banner, [e.label for e in found], legend=legend)
    axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    mpl.dots(axes, _players(found))
    for look in dict.fromkeys(effect.look for effect in found):
        for _, spot in _spots(found, look):
            mpl.spots(axes, [spot], look.marker)
    axes.set_xlim(*_span(found))
    axes.set_xlabel(_ALONG)
    return page.png()


def _chart(found: Sequence[Effect]) -> go.Figure:
    figure = go.Figure()
    plotly_charts.legend_marker(figure, "told from zero", "circle")
    plotly_charts.legend_marker(figure, "not told from zero", "circle-open")
    plotly_charts.legend_marker(figure, "one player", "circle", GREY)
    plotly_charts.named_dots(figure, _players(found), "%{x:+.1f} points")
    for look in dict.fromkeys(effect.look for effect in found):
        own = _spots(found, look)
        spots = [spot for _, spot in own]
        face = [look.colour if spot.filled else "#ffffff" for spot in spots]
        figure.add_scatter(
            x=plotly_charts.rounded([spot.x for spot in spots]),
            y=[spot.y for spot in spots],
            mode="markers",
            customdata=[f"[{spot.low:+.1f}, {spot.high:+.1f}], {each.players} players" for each, spot in own],
            hovertemplate="%{x:+.1f} points %{customdata}<extra></extra>",
            error_x=plotly_charts.error(spots, look.colour),
            marker=plotly_charts.outlined(look.symbol, look.colour, face, 11),
            showlegend=False,
        )
    height = plotly_charts.row_axis(figure, [effect.label for effect in found])
    figure.add_vline(x=0, line={"color": GREY, "width": 1}, layer="below")
    figure.update_xaxes(title=_ALONG, range=_span(found))
    return plotly_charts.styled(figure, height)
