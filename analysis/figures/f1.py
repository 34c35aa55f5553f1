"""f1_by_rudiment: test F1 of each rudiment for the best arm of each backbone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from analysis.figures.rows import Panel, RowFigure, Series
from analysis.figures.style import Spot, row_jitter
from analysis.run_summary import Findings
from analysis.stats.arms import Arm
from analysis.stats.confusion import counts_of, f1_of_each
from analysis.write.blocks import Picture
from sousaphone.confusion import families
from sousaphone.rudiments import FAMILIES, SLUGS, spoken

Scores = npt.NDArray[np.float64]
_LIMITS = (-0.02, 1.02)


def picture(run: Findings) -> Picture | None:
    scores = [f1_of(run, arm) for arm in run.best]
    known = [i for i in range(len(SLUGS)) if any(np.isfinite(own[i]) for own in scores)]
    if not known:
        return None
    # Within a family by the mean over backbones, the highest first.
    means = np.nanmean(np.stack(scores)[:, known], axis=0)
    mean = dict(zip(known, means.tolist(), strict=True))
    order = {family: place for place, family in enumerate(dict.fromkeys(FAMILIES.values()))}
    known.sort(key=lambda i: (order[FAMILIES[SLUGS[i]]], -mean[i]))
    clips = run.rows(run.best[0]).drop_duplicates("sample_id").rudiment.astype(str).value_counts()
    names = [f"{spoken(SLUGS[i])} ({clips.get(SLUGS[i], 0)})" for i in known]
    groups = families([SLUGS[i] for i in known])
    caption = (
        "F1 on the test clips (the harmonic mean of precision and recall) of each backbone's best arm by validation, "
        "averaged over seeds; in brackets the number of clips. Rudiments are grouped by family and sorted by their "
        "mean "
        "F1, which for few clips is mostly chance; overlapping markers are moved apart vertically."
    )
    if len(known) < len(SLUGS):
        caption += f" {len(SLUGS) - len(known)} rudiments are not among the test clips."
    shifts = [row_jitter([float(own[i]) for own in scores], _LIMITS, 0.25, 0.375, width=0.013) for i in known]
    series = []
    for number, (arm, own) in enumerate(zip(run.best, scores, strict=True)):
        spots = [Spot(float(own[i]), y + shifts[y][number]) for y, i in enumerate(known)]
        hover = [f"{name}: {spot.x:.2f}" for name, spot in zip(names, spots, strict=True)]
        series.append(Series(run.look(arm), spots, hover, arm.name))
    return RowFigure(
        name="f1_by_rudiment",
        heading="F1 by rudiment",
        caption=caption,
        banner=run.banner,
        labels=names,
        panels=[Panel("F1", _LIMITS, series)],
        size=4.0,
        grid=True,
        separators=[begin for _, begin, _ in groups if begin],
        groups=groups,
        width=8.0,
        row=0.27,
        columns=2,
    ).picture()


def f1_of(run: Findings, arm: Arm) -> Scores:
    """[C] the F1 of each class, averaged over the arm's seeds; NaN for a class without clips."""
    rows = run.rows(arm)
    return np.asarray(np.mean([f1_of_each(counts_of(rows, [name])) for name in run.scored(arm)], axis=0))
