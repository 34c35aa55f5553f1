"""Read the state of a run's Ray Tune experiments with Ray's ExperimentAnalysis; no cluster is started."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from sousaphone.errors import printable
from sousaphone.files import read_small
from sousaphone.runs.schema import MOST_NUMBER
from sousaphone.runs.seal import is_sealed, pickles
from sousaphone.runs.trial_record import error_line

# The state is JSON that contains pickles: reading a truncated one may raise any of these.
_TRUNCATED = (ValueError, KeyError, TypeError, AttributeError, ImportError, EOFError, OSError, pickle.PickleError)
_INSTEAD = "using the trials' own records instead."


@dataclass(frozen=True)
class RayTrial:
    """The state of one trial in Ray's log."""

    state: str  # Ray's status: PENDING, RUNNING, PAUSED, TERMINATED or ERROR
    history: list[dict[str, Any]] = field(default_factory=list)  # flat metrics of each epoch, in order
    error: str | None = None  # the error message in its error file, None without one
    failed_at: float | None = None  # when the error file was written, Unix time (s)


def read_ray_log(experiments: Sequence[Path]) -> tuple[dict[str, RayTrial], list[str]]:
    """Return every trial in Ray's log by its id, and a remark for each experiment that could not be read.

    `experiments` are in the order in which they ran. The histories of a trial that is in several experiments are
    merged; its state is that of the last experiment.
    """
    known: dict[str, RayTrial] = {}
    remarks = [] if experiments else [f"Ray Tune has not started yet; {_INSTEAD}"]
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
    if not is_sealed(experiment, pickles(experiment)):
        return {}, f"Ray Tune's experiment {experiment.name} was not sealed here, or changed after its seal; {_INSTEAD}"
    logging_level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the report has its own remarks about missing state
    try:
        with warnings.catch_warnings(action="ignore"):
            # Imported here: it takes seconds, and `--help` does not need it.
            from ray.tune import ExperimentAnalysis

            analysis = ExperimentAnalysis(experiment)
            return {trial.storage.trial_dir_name: _trial(trial, analysis) for trial in analysis.trials}, None
    except _TRUNCATED as error:
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return {}, f"the state of Ray Tune's experiment {experiment.name} could not be read ({why}); {_INSTEAD}"
    finally:
        logging.disable(logging_level)


def _trial(trial: Any, analysis: Any) -> RayTrial:
    frame = analysis.trial_dataframes.get(trial.trial_id)
    history = [] if frame is None else by_epoch(frame.to_dict("records"))
    error_file = Path(trial.storage.trial_fs_path) / "error.txt"
    if trial.status != "ERROR" or not error_file.is_file():
        return RayTrial(trial.status, history)
    error = printable(error_line(read_small(error_file).decode(errors="replace")))  # no seal covers it
    return RayTrial(trial.status, history, error or None, error_file.stat().st_mtime)


def by_epoch(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return reports as a history: one row per epoch, in order, with finite top-level numbers only.

    A restored trial reports some epochs twice; the later report is kept.
    """
    epochs: dict[int, dict[str, Any]] = {}
    for row in rows:
        numbers = {key: value for key, value in row.items() if "/" not in str(key) and is_number(value)}
        if "epoch" in numbers:
            epochs[int(numbers["epoch"])] = numbers
    return [epochs[number] for number in sorted(epochs)]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether the value is a finite number in range (not a bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST_NUMBER
