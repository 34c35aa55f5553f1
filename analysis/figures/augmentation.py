"""augmentation_effect: the change in test accuracy due to augmentation, for each player."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.figures.rows import Panel, RowFigure, Series
from analysis.figures.style import GREY, Dot, Key, Spot, dots_in_row
from analysis.run_summary import Findings
from analysis.stats.arms import Look
from analysis.stats.contrast import Contrast
from analysis.write.blocks import Picture


@dataclass(frozen=True)
class Effect:
    label: str
    look: Look
    contrast: Contrast


def picture(run: Findings) -> Picture | None:
    found = effects(run)
    if not found:
        return None
    players = max(effect.contrast.players for effect in found)
    limits = _limits(found)
    series = [_series(found, look) for look in dict.fromkeys(effect.look for effect in found)]
    dots: list[Dot] = []
    for y, effect in enumerate(found):
        own = [(str(player), 100 * float(value)) for player, value in effect.contrast.by_player.items()]
        dots += dots_in_row(own, y + 0.32, effect.look.colour, limits, step=0.1, most=0.12)
    return RowFigure(
        name="augmentation_effect",
        heading="Effect of augmentation",
        caption="Test accuracy with augmentation minus test accuracy without it, on the same clips: the mean over "
        f"players with its 95 % interval. Small dots: the test players (up to {players}), averaged over seeds; "
        "overlapping dots are moved apart vertically. Filled: significant, by both the interval and the sign-flip "
        "test, without correction for the number of rows.",
        banner=run.banner,
        labels=[effect.label for effect in found],
        panels=[Panel("change in test accuracy, percentage points", limits, series, dots, number="%{x:+.1f} points")],
        keys=[
            Key("significant"),
            Key("not significant", filled=False),
            Key("one player", Look(GREY, "o", "circle"), size=3.5),
        ],
        size=6.8,
        zero=True,
    ).picture()


def effects(run: Findings) -> list[Effect]:
    """The difference of each pair of arms that differ in augmentation only and have all their results."""
    found = [
        Effect(
            pair.first.label_without_augmentation,
            run.look(pair.first),
            pair.contrast,
        )
        for pair in run.augmentation
    ]
    return sorted(found, key=lambda effect: -effect.contrast.difference)


def _limits(found: Sequence[Effect]) -> tuple[float, float]:
    values = [100 * v for e in found for v in (e.contrast.low, e.contrast.high, *e.contrast.by_player, 0.0)]
    low, high = max(min(values), -100.0), min(max(values), 100.0)
    pad = 0.05 * max(high - low, 2.0)
    return low - pad, high + pad


def _series(found: Sequence[Effect], look: Look) -> Series:
    """The effects of one backbone."""
    own = [(y, effect.contrast) for y, effect in enumerate(found) if effect.look == look]
    spots = [Spot(100 * c.difference, y, c.significant, 100 * c.low, 100 * c.high) for y, c in own]
    hover = [
        f"{spot.x:+.1f} points [{spot.low:+.1f}, {spot.high:+.1f}], {contrast.players} players"
        for (_, contrast), spot in zip(own, spots, strict=True)
    ]
    return Series(look, spots, hover)
