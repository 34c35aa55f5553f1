"""What Ray Tune remembers of an experiment, read through its ExperimentAnalysis; no cluster is started."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sousaphone.record import error_line

ERROR_NAME = "error.txt"


@dataclass(frozen=True)
class RayTrial:
    """One trial as Ray knows it.

    Attributes:
        state: Ray's own word: PENDING, RUNNING, PAUSED, TERMINATED or ERROR.
        history: one dict of flat metrics an epoch, the first epoch first.
        error: the line of its error file that says what went wrong, None without one.
        failed_at: when that file was written.
    """

    state: str
    history: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    failed_at: datetime | None = None


def read_ray_log(experiment: Path) -> tuple[dict[str, RayTrial], str | None]:
    """Every trial that Ray has a state of, by the name of its directory, and a note where nothing could be read."""
    if not any(experiment.glob("experiment_state-*.json")):
        return {}, "Ray Tune has not written its state yet; the rows come from the plan and the trials' own records."
    # Takes seconds, and `--help` needs none of it.
    from ray.tune import ExperimentAnalysis

    try:
        analysis = ExperimentAnalysis(experiment)
        return {trial.storage.trial_dir_name: _trial(trial, analysis) for trial in analysis.trials}, None
    # The state is JSON around pickles, so a torn one fails in any of these ways.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ImportError,
        EOFError,
        OSError,
        pickle.PickleError,
    ) as error:
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return {}, f"Ray Tune's state could not be read ({why}); the rows come from the trials' own records."


def _trial(trial: Any, analysis: Any) -> RayTrial:
    frame = analysis.trial_dataframes.get(trial.trial_id)
    rows = [] if frame is None else frame.to_dict("records")
    error_file = Path(trial.storage.trial_fs_path) / ERROR_NAME
    if trial.status != "ERROR" or not error_file.is_file():
        return RayTrial(trial.status, by_epoch(rows))
    error = error_line(error_file.read_text(errors="replace"))
    failed_at = datetime.fromtimestamp(error_file.stat().st_mtime, UTC)
    return RayTrial(trial.status, by_epoch(rows), error or None, failed_at)


def by_epoch(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reports as a history: finite flat numbers only, one row an epoch.

    A trial that was restored reports some epochs twice; the later report stands.
    """
    epochs: dict[int, dict[str, Any]] = {}
    for row in rows:
        numbers = {key: value for key, value in row.items() if "/" not in str(key) and _is_number(value)}
        if "epoch" in numbers:
            epochs[int(numbers["epoch"])] = numbers
    return [epochs[number] for number in sorted(epochs)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
