"""accuracy_by_slice: the best arm of each backbone by tempo, length, tier, room and SoundFont."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import LABEL_LETTERS, Spot, accuracy_range, shortened
from analysis.stats.arms import Arm
from analysis.stats.slices import DIMENSIONS, FEWEST_PLAYERS, MOST_NAMES, Slice, parts, possible, slices_of
from analysis.write.blocks import Picture

_HEADING = "Accuracy by kind of clip"


@dataclass(frozen=True)
class Line:
    """One row: a part of the clips and each arm on it, or the heading of a dimension (then `slices` is empty)."""

    label: str
    slices: dict[str, Slice]  # by the arm's label


def picture(scene: Scene) -> Picture | None:
    lines = _lines(scene)
    if not lines:
        return None
    few = any(part.players < FEWEST_PLAYERS for line in lines for part in line.slices.values())
    told = (
        "Test accuracy of each backbone's best arm by validation on parts of the clips: mean over players, the seeds "
        f"averaged first, with its 95 % t interval over players{f' where there are {FEWEST_PLAYERS} or more' * few}; "
        "n is the number of clips. What players, tempos and rooms have in common is not taken apart here."
    )
    if any(scene.predictions[column].nunique() > MOST_NAMES for column, _, unit in DIMENSIONS if unit is None):
        told += f" Of more than {MOST_NAMES} names, those with the most clips are shown."
    return Picture("accuracy_by_slice", _HEADING, told, _png(scene, lines), _chart(scene, lines))


def _lines(scene: Scene) -> list[Line]:
    rows = {arm.label: scene.rows(arm) for arm in scene.best}
    if not rows:
        return []
    first = next(iter(rows.values()))
    clips = first.drop_duplicates("sample_id").set_index("sample_id")
    found = []
    for column, heading, unit in DIMENSIONS:
        part = parts(clips, column)
        if part is None:
            continue
        by_arm = {label: slices_of(own, part) for label, own in rows.items()}
        found.append(Line(f"{heading}, {unit}" if unit else heading, {}))
        for name in part.cat.categories:
            slices = {label: own[name] for label, own in by_arm.items() if name in own}
            if slices:
                count = max(part.clips for part in slices.values())
                found.append(Line(f"{shortened(str(name), LABEL_LETTERS - 16)} (n = {count:,})", slices))
    return found


def _spots(scene: Scene, arm: Arm, lines: Sequence[Line]) -> list[tuple[Slice, Spot]]:
    """One arm's parts; the arms stand one below the other in each row."""
    number, shade = len(scene.best), scene.shade(arm)
    shift = 0.72 / number * (scene.best.index(arm) - (number - 1) / 2)
    known = [(y + shift, line.slices[arm.label]) for y, line in enumerate(lines) if arm.label in line.slices]
    ends = [[100 * possible(end) for end in (part.low, part.high)] for _, part in known]
    return [(p, Spot(100 * p.accuracy, y, shade, True, *both)) for (y, p), both in zip(known, ends, strict=True)]


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    values = [100 * max(v for v in (p.accuracy, p.high) if v == v) for line in lines for p in line.slices.values()]
    return accuracy_range(min(max(values), 100.0))


def _png(scene: Scene, lines: Sequence[Line]) -> bytes:
    legend = [mpl.shape(scene.look(arm).marker, arm.name, scene.shade(arm)) for arm in scene.best]
    legend.append(mpl.chance_entry())
    row = 0.13 + 0.045 * min(len(scene.best), 5)
    labels, headings = [line.label for line in lines], [line.label for line in lines if not line.slices]
    page, (axes,) = mpl.row_sheet(
        _HEADING, scene.banner, labels, 8.5, legend=legend, columns=2, row=row, headings=headings
    )
    for place, line in enumerate(lines):
        if place and not line.slices:
            mpl.separator(axes, place - 0.5)
    mpl.chance_line(axes)
    for arm in scene.best:
        mpl.spots(axes, [spot for _, spot in _spots(scene, arm, lines)], scene.look(arm).marker, 17, 14)
    axes.set_xlim(*_range(lines))
    axes.set_xlabel("test accuracy, %")
    return page.png()


def _chart(scene: Scene, lines: Sequence[Line]) -> go.Figure:
    figure = go.Figure()
    for arm in scene.best:
        own, shade = _spots(scene, arm, lines), scene.shade(arm)
        spots = [spot for _, spot in own]
        figure.add_scatter(
            x=plotly_charts.rounded([spot.x for spot in spots]),
            y=[round(spot.y, 3) for spot in spots],
            mode="markers",
            name=plotly_charts.label(arm.name),
            customdata=[part.players for part, _ in own],
            hovertemplate="%{x:.1f} %, %{customdata} players<extra>%{fullData.name}</extra>",
            error_x=plotly_charts.error(spots, shade),
            marker={"size": 9, "symbol": scene.look(arm).symbol, "color": shade},
            showlegend=True,
        )
    plotly_charts.row_axis(figure, [line.label for line in lines])
    words = [plotly_charts.label(line.label) for line in lines]
    bold = [text if line.slices else f"<b>{text}</b>" for text, line in zip(words, lines, strict=True)]
    figure.update_yaxes(ticktext=bold)
    for place, line in enumerate(lines):
        if place and not line.slices:
            plotly_charts.separator(figure, place - 0.5)
    plotly_charts.chance_line(figure)
    plotly_charts.legend_chance(figure)
    figure.update_xaxes(title="test accuracy, %", range=_range(lines))
    return plotly_charts.styled(figure, (14 + 4 * min(len(scene.best), 5)) * len(lines), legend_columns=2)
