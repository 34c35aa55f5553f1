"""accuracy_by_slice: accuracy of the best arm of each backbone by tempo, length, tier, room and SoundFont."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.figures.rows import Panel, RowFigure, Series
from analysis.figures.style import LABEL_LETTERS, Spot, accuracy_range, shortened
from analysis.run_summary import Findings
from analysis.stats.arms import Arm
from analysis.stats.slices import DIMENSIONS, MOST_NAMES, Slice, parts, possible, slices_of
from analysis.write.blocks import Picture
from sousaphone.scores import FEWEST_PLAYERS


@dataclass(frozen=True)
class Line:
    """One row: a part of the clips with each arm's result, or the heading of a dimension (then `slices` is empty)."""

    label: str
    slices: dict[str, Slice]  # by the arm's label


def picture(run: Findings) -> Picture | None:
    lines = _lines(run)
    if not lines:
        return None
    few = any(part.players < FEWEST_PLAYERS for line in lines for part in line.slices.values())
    caption = (
        "Test accuracy of each backbone's best arm by validation on parts of the clips, averaged over seeds, then "
        "over players, with its 95 % interval (over players or clips, the wider"
        f"{f'; none below {FEWEST_PLAYERS} players' * few}); n is the number of clips. Players, tempos and rooms may "
        "be correlated; the figure does not separate their effects."
    )
    if any(run.predictions[column].nunique() > MOST_NAMES for column, _, unit in DIMENSIONS if unit is None):
        caption += f" Of more than {MOST_NAMES} names, those with the most clips are shown."
    headings = [line.label for line in lines if not line.slices]
    highest = max(v for ln in lines for part in ln.slices.values() for v in (part.accuracy, part.high) if v == v)
    series = [_series(run, arm, lines) for arm in run.best]
    arms = min(len(run.best), 5)
    return RowFigure(
        name="accuracy_by_slice",
        heading="Accuracy by group of clips",
        caption=caption,
        banner=run.banner,
        labels=[line.label for line in lines],
        panels=[Panel("test accuracy, %", accuracy_range(min(100 * highest, 100.0)), series)],
        chance=run.chance_percent,
        size=4.1,
        headings=headings,
        separators=[place for place, line in enumerate(lines) if place and not line.slices],
        width=8.5,
        row=0.13 + 0.045 * arms,
        columns=2,
    ).picture()


def _lines(run: Findings) -> list[Line]:
    rows = {arm.label: run.rows(arm) for arm in run.best}
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


def _series(run: Findings, arm: Arm, lines: Sequence[Line]) -> Series:
    """One arm's slices; the arms of a row are drawn one below the other."""
    number = len(run.best)
    shift = 0.72 / number * (run.best.index(arm) - (number - 1) / 2)
    known = [(y + shift, line.slices[arm.label]) for y, line in enumerate(lines) if arm.label in line.slices]
    spots = [Spot(100 * p.accuracy, y, True, 100 * possible(p.low), 100 * possible(p.high)) for y, p in known]
    hover = [f"{100 * part.accuracy:.1f} %, {part.players} players" for _, part in known]
    return Series(run.look(arm), spots, hover, arm.name)
