"""What Ray Tune remembers of a run's experiments, read through its ExperimentAnalysis; no cluster is started."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

from sousaphone.runs.trial_record import error_line

ERROR_NAME = "error.txt"
# The state is JSON around pickles, so a torn one fails in any of these ways.
_TORN = (ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, OSError, pickle.PickleError)
_INSTEAD = "what it would tell comes from the trials' own records."


@dataclass(frozen=True)
class RayTrial:
    """One trial as Ray knows it."""

    state: str  # Ray's own word: PENDING, RUNNING, PAUSED, TERMINATED or ERROR
    history: list[dict[str, Any]] = field(default_factory=list)  # one dict of flat metrics an epoch, the first first
    error: str | None = None  # the line of its error file that says what went wrong, None without one
    failed_at: datetime | None = None  # when that file was written

    @property
    def last_heard(self) -> float | None:
        """When Ray last heard of it, Unix time in seconds: of its failure, else of an epoch; None if of neither."""
        if self.failed_at is not None:
            return self.failed_at.timestamp()
        return self.history[-1].get("timestamp") if self.history else None


def read_ray_log(experiments: Sequence[Path]) -> tuple[dict[str, RayTrial], list[str]]:
    """Every trial that Ray has a state of, by its id, and a remark for each experiment that could not be read.

    A trial that several experiments know has the histories of all of them, and what became of it by the last.

    Args:
        experiments: the first first.
    """
    known: dict[str, RayTrial] = {}
    remarks = [] if experiments else [f"Ray Tune has not begun yet; {_INSTEAD}"]
    for experiment in experiments:
        trials, remark = _read(experiment)
        remarks += [remark] if remark else []
        for trial_id, trial in trials.items():
            earlier = known[trial_id].history if trial_id in known else []
            known[trial_id] = replace(trial, history=by_epoch([*earlier, *trial.history]))
    return known, remarks


def _read(experiment: Path) -> tuple[dict[str, RayTrial], str | None]:
    if not any(experiment.glob("experiment_state-*.json")):
        return {}, f"Ray Tune has not written the state of its experiment {experiment.name} yet; {_INSTEAD}"
    try:
        with _quiet():
            # Takes seconds, and `--help` needs none of it.
            from ray.tune import ExperimentAnalysis

            analysis = ExperimentAnalysis(experiment)
            return {trial.storage.trial_dir_name: _trial(trial, analysis) for trial in analysis.trials}, None
    except _TORN as error:
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return {}, f"the state of Ray Tune's experiment {experiment.name} could not be read ({why}); {_INSTEAD}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is logged and no warning printed meanwhile: what Ray lacks is said by the report, in its own words."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _trial(trial: Any, analysis: Any) -> RayTrial:
    frame = analysis.trial_dataframes.get(trial.trial_id)
    rows = [] if frame is None else frame.to_dict("records")
    error_file = Path(trial.storage.trial_fs_path) / ERROR_NAME
    if trial.status != "ERROR" or not error_file.is_file():
        return RayTrial(trial.status, by_epoch(rows))
    error = error_line(error_file.read_text(errors="replace", encoding="utf-8"))
    failed_at = datetime.fromtimestamp(error_file.stat().st_mtime, UTC)
    return RayTrial(trial.status, by_epoch(rows), error or None, failed_at)


def by_epoch(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reports as a history: finite flat numbers only, one row an epoch.

    A trial that was restored reports some epochs twice; the later report stands.
    """
    epochs: dict[int, dict[str, Any]] = {}
    for row in rows:
        numbers = {key: value for key, value in row.items() if "/" not in str(key) and is_number(value)}
        if "epoch" in numbers:
            epochs[int(numbers["epoch"])] = numbers
    return [epochs[number] for number in sorted(epochs)]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
