"""training_time: seconds in training steps for each trial and for each epoch."""

from __future__ import annotations

from collections.abc import Callable

from analysis.figures.rows import Panel, RowFigure
from analysis.figures.style import INK, Bar, dots_in_row, short_seconds
from analysis.load.trials import Trial
from analysis.run_summary import Findings
from analysis.write.blocks import Picture


def picture(run: Findings) -> Picture:
    caption = (
        f"Time in training steps ({run.time_unit} time), without evaluation; mean over each arm's trials. Sorted by "
        "validation macro F1."
    )
    if any(len(arm.trials) > 1 for arm in run.groups):
        caption += " Dots: single seeds; overlapping dots are moved apart vertically."
    if not all(arm.full for arm in run.groups):
        caption += " Pale: partial results; a full training takes longer."
    return RowFigure(
        name="training_time",
        heading="Training time",
        caption=caption,
        banner=run.banner,
        labels=[arm.name for arm in run.groups],
        panels=[
            _panel(run, f"{run.time_unit} seconds per trial", lambda trial: trial.train_seconds),
            _panel(run, f"{run.time_unit} seconds per epoch", lambda trial: trial.mean(trial.clock)),
        ],
        width=10.0,
    ).picture()


def _panel(run: Findings, axis: str, measure: Callable[[Trial], float | None]) -> Panel:
    """Bars of the arms with a known time, and dots for single seeds."""
    seeds = [[(t.trial_id, v) for t in arm.shown if (v := measure(t)) is not None] for arm in run.groups]
    highest = max((value for own in seeds for _, value in own), default=1.0) or 1.0
    limits = (0.0, 1.22 * highest)  # with room for the numbers
    bars, dots = [], []
    for y, (arm, own) in enumerate(zip(run.groups, seeds, strict=True)):
        values = [value for _, value in own]
        if own:
            mean = sum(values) / len(values)
            bars.append(Bar(mean, y, run.look(arm).colour, arm.name, short_seconds(mean), max(values)))
        if len(own) > 1:
            dots += dots_in_row(own, y, INK, limits, step=0.13, most=0.27)
    return Panel(axis, limits, dots=dots, bars=bars, number="%{x:.1f} s")
