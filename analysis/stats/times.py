"""Comparability of the trials' training times."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.load.trials import Trial

MOST_RATIO = 1.5  # of wall to processor time between two trials


def busy_machine(trials: Sequence[Trial]) -> str | None:
    """Return a warning if wall time and processor time of the training steps diverge between trials; else None.

    Runs without processor times have no warning, since nothing is known.
    """
    ratios = {
        trial.trial_id: sum(trial.values("epoch_seconds")) / seconds
        for trial in trials
        if trial.clock != "epoch_seconds" and (seconds := trial.train_seconds)
    }
    least, most = min(ratios, key=ratios.__getitem__, default=None), max(ratios, key=ratios.__getitem__, default=None)
    if least is None or most is None or ratios[most] < MOST_RATIO * ratios[least]:
        return None
    unit = trials[0].time_unit
    return (
        f"Wall time and {unit} time diverge: a {unit} second of training took {ratios[least]:.2g} s in {least}, but "
        f"{ratios[most]:.2g} s in {most}. Other programs were running, or the trials waited for data. Compare the "
        f"{unit} seconds of this report; the wall times are not comparable."
    )
