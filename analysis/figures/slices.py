"""accuracy_by_slice: the best arm of each backbone by tempo, length, tier, room and SoundFont."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from analysis.figures import mpl, plotly_charts
from analysis.figures.context import Scene
from analysis.figures.style import LABEL_LETTERS, accuracy_range, shortened
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


def _shifts(arms: Sequence[Arm]) -> dict[str, float]:
    """How far from the middle of a row each arm stands, in rows."""
    step = 0.72 / max(len(arms), 1)
    return {arm.label: step * (place - (len(arms) - 1) / 2) for place, arm in enumerate(arms)}


def _points(scene: Scene, arm: Arm, lines: Sequence[Line]) -> tuple[list[float], list[Slice]]:
    shift = _shifts(scene.best)[arm.label]
    known = [(y + shift, line.slices[arm.label]) for y, line in enumerate(lines) if arm.label in line.slices]
    return [y for y, _ in known], [part for _, part in known]


def _ends(known: Sequence[Slice]) -> tuple[list[float], list[float]]:
    """Where the intervals begin and end, in percent."""
    low, high = ([100 * possible(end) for end in ends] for ends in ([p.low for p in known], [p.high for p in known]))
    return low, high


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
            axes.axhline(place - 0.5, color="#bbbbbb", linewidth=0.8)
    mpl.chance_line(axes)
    for arm in scene.best:
        shade = scene.shade(arm)
        y, known = _points(scene, arm, lines)
        shades = [shade] * len(y)
        mpl.intervals(axes, y, *_ends(known), shades, 14)
        mpl.points(axes, [100 * p.accuracy for p in known], y, shades, scene.look(arm).marker, True, 17)
    axes.set_xlim(*_range(lines))
    axes.set_xlabel("test accuracy, %")
    return page.png()


def _chart(scene: Scene, lines: Sequence[Line]) -> go.Figure:
    figure = go.Figure()
    for arm in scene.best:
        look, shade = scene.look(arm), scene.shade(arm)
        y, known = _points(scene, arm, lines)
        values = [100 * p.accuracy for p in known]
        figure.add_scatter(
            x=plotly_charts.rounded(values),
            y=[round(value, 3) for value in y],
            mode="markers",
            name=plotly_charts.label(arm.name),
            customdata=[p.players for p in known],
            hovertemplate="%{x:.1f} %, %{customdata} players<extra>%{fullData.name}</extra>",
            error_x=plotly_charts.error(values, *_ends(known), shade),
            marker={"size": 9, "symbol": look.symbol, "color": shade},
            showlegend=True,
        )
    plotly_charts.row_axis(figure, [line.label for line in lines])
    words = [
        plotly_charts.label(line.label) if line.slices else f"<b>{plotly_charts.label(line.label)}</b>"
        for line in lines
    ]
    figure.update_yaxes(ticktext=words)
    for place, line in enumerate(lines):
        if place and not line.slices:
            figure.add_hline(y=place - 0.5, line={"color": "#bbbbbb", "width": 1}, layer="below")
    plotly_charts.chance_line(figure)
    plotly_charts.legend_chance(figure)
    figure.update_xaxes(title="test accuracy, %", range=_range(lines))
    return plotly_charts.styled(figure, (14 + 4 * min(len(scene.best), 5)) * len(lines), legend_columns=2)
