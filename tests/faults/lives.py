"""A run's life without Ray, in a process that may die at any point of it, and what a resume must make of its death."""

from __future__ import annotations

import dataclasses
import functools
import gc
import hashlib
import json
import os
import re
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from analysis.report import read_run, write_report
from analysis.write.table import comparison_table
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import fill_caches, read_subset
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import SCHEMA, DriverWatch, Limits, RunDirectory
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord
from sousaphone.sweep.failures import name_ends
from sousaphone.sweep.status_page import write_status
from sousaphone.training import checkpoint, resumable_trial
from sousaphone.training.watchdog import HEARTBEAT_NAME, STACKS_NAME
from tests.conftest import write_sousa
from tests.faults.points import Points, steady_name

EPOCHS = 3  # the fewest with which an old checkpoint is removed
# What depends on the clock or the machine's load, among metrics, curves and the table's columns.
_VARYING = re.compile(r".*(seconds|per_second|_mb).*|git_commit")
_PATIENCE_SECONDS = 120
_HPARAMS = (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG)

Tell = Callable[[str, Any], None]


@dataclass(frozen=True)
class Case:
    """The point at which a run dies; `at` counts from the beginning of its phase, training or report."""

    phase: str
    at: int
    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.phase}:{self.at} {self.kind} {self.path}"


@dataclass
class Life:
    """What a process told until it ended: the epochs that it `trained` and `reported`, the `points` that it passed."""

    pid: int
    trained: list[int] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    points: list[tuple[str, str]] = field(default_factory=list)
    code: int = 0


class Lives:
    """Runs of one nano trial, one after the other in one directory, each in a fork of this process."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: an empty directory for everything.
        """
        torch.set_num_threads(1)
        self._run, self._trained = RunDirectory(root / "run"), root / "trained"
        data = write_sousa(root / "sousa", rudiments=SLUGS[:3], long_clips=0)
        settings: dict[str, Any] = {"epochs": EPOCHS, "micro_batch": 4, "clip_seconds": 1.0, "learning_rate": 1e-3}
        self._config = TrainConfig(data_dir=str(data), cache_dir=str(root / "cache"), weights="random", **settings)
        fill_caches(read_subset(data, self._config.dataset), [self._config], root / "cache")
        # All that a life imports or computes once, here and not in every child.
        build_model(self._config, len(SLUGS))
        resumable_trial.provenance = functools.cache(resumable_trial.provenance)
        resumable_trial.provenance()
        gc.collect()
        gc.freeze()  # or every child would go through, and so copy, all that this process has
        self.cases = list(self._uninterrupted())

    def _uninterrupted(self) -> Iterator[Case]:
        """Every point of the run, which is then what all others are compared with."""
        self._expected = {}
        for phase, live in (("training", self._train), ("report", self._report)):
            life = _fork(live, lambda tell: Points(self._run.path, tell))
            if life.code:
                raise RuntimeError(f"the uninterrupted {phase} ended with exit code {life.code}")
            self._expected[phase] = self._outcome()
            if phase == "training":
                shutil.copytree(self._run.path, self._trained)
                write_report(self._run.path, self._trained.with_name("first report"))  # imports and fonts
            yield from (Case(phase, at, kind, path) for at, (kind, path) in enumerate(life.points))

    def faults(self, case: Case) -> list[str]:
        """Die there, resume, and say what is not as if nothing had happened."""
        shutil.rmtree(self._run.path)
        if case.phase == "report":  # up to there every life is the same
            shutil.copytree(self._trained, self._run.path)
        live = self._train if case.phase == "training" else self._report
        dead = _fork(live, lambda tell: Points(self._run.path, tell, case.at))
        if dead.code != -signal.SIGKILL:
            return [f"did not die there: exit code {dead.code}"]
        whole = self._whole_epochs()

        def resume(tell: Tell) -> None:
            # TensorBoard reads files by name: second, then process, both in digits.
            if str(os.getpid()) < str(dead.pid):
                time.sleep(1.0)
            self._train(tell)
            if case.phase == "report":
                self._report(tell)

        resumed = _fork(resume)
        if resumed.code:
            return [f"the resume ended with exit code {resumed.code}"]
        left = list(range(whole + 1, EPOCHS + 1))
        found = []
        if max(dead.trained, default=0) > whole + 1:
            found.append(f"epochs {dead.trained} were trained, and {whole} are in a checkpoint")
        if resumed.trained != left:
            found.append(f"the resume trained {resumed.trained}, not {left}")
        if resumed.reported != (left or [EPOCHS]):
            found.append(f"the resume reported {resumed.reported}, not {left or [EPOCHS]}")
        outcome, expected = self._outcome(), self._expected[case.phase]
        found += [
            f"{name}: {outcome[name]}, not {expected[name]}" for name in expected if outcome[name] != expected[name]
        ]
        return found

    def _train(self, tell: Tell) -> None:
        """As launch.py and Ray drive a run of one trial, without Ray."""
        run, config = self._run, self._config

        def report(metrics: dict[str, Any]) -> None:
            tell("reported", metrics["epoch"])
            write_status(run)

        resumable_trial.fit = _telling(resumable_trial.fit, tell)
        ids = [config.trial_id]
        with run.held(Limits(stall_seconds=_PATIENCE_SECONDS)):
            new = {"schema": SCHEMA, "trials": [dataclasses.asdict(config)], "trial_ids": ids}
            run.write_plan(run.read_plan() if run.exists else new)
            name_ends(run, ids, Cause.DRIVER_KILLED, "the driver was killed")
            resumable_trial.run_trial(config, run.trial(config.trial_id), DriverWatch.begin(run.path), report)
            name_ends(run, ids)

    def _report(self, tell: Tell) -> None:
        write_report(self._run.path)

    def _whole_epochs(self) -> int:
        """How many epochs are in a whole checkpoint."""
        state = checkpoint.newest(self._run.trial(self._config.trial_id))
        return len(state["history"]) if state else 0

    def _outcome(self) -> dict[str, Any]:
        """All that a run leaves, but for what the clock says; names of files without their random parts."""
        directory = self._run.trial(self._config.trial_id)
        record = TrialRecord.read(directory)
        assert record is not None
        row = comparison_table(read_run(self._run.path).trials).iloc[0].to_dict()
        board = EventAccumulator(str(directory)).Reload()
        curves = {
            name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]
        }
        pictures = {
            name: [(e.step, e.encoded_image_string) for e in board.Images(name)] for name in board.Tags()["images"]
        }
        # What a killed trial told of itself while it ran stays, and is heeded only while it runs.
        files = [path for path in self._run.path.rglob("*") if path.name not in (HEARTBEAT_NAME, STACKS_NAME)]
        return {
            "status": record.status,
            "reason": record.reason,
            "history": [_steady(epoch) for epoch in record.history],
            "curves": {
                name: [step for step, _ in curve] if _VARYING.fullmatch(name) else curve
                for name, curve in sorted(curves.items())
            },
            "pictures": {
                name: [(step, hashlib.sha256(png).hexdigest()[:12]) for step, png in drawn]
                for name, drawn in sorted(pictures.items())
            },
            "hparams": [board.SummaryMetadata(tag).plugin_data.content for tag in sorted(_HPARAMS)],
            "table row": {name: str(value) for name, value in _steady(row).items()},
            "status page": re.findall(r"^# .*|^\| ast.*", self._run.status_page.read_text(), re.MULTILINE),
            "results": [_digest(directory / name) for name in (PREDICTIONS_NAME, resumable_trial.ADAPTER_NAME)],
            "whole epochs": self._whole_epochs(),
            "files": sorted({steady_name(str(path.relative_to(self._run.path))) for path in files}),
        }


def _fork(live: Callable[[Tell], None], watched: Callable[[Tell], Points] | None = None) -> Life:
    """Live in a child process and wait for its end; what it tells comes through a pipe, which survives it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(_PATIENCE_SECONDS)
            tell = _teller(write)
            points = watched(tell) if watched else None
            if points:
                points.watch()
            live(tell)
            if points:
                points.reach("end", points.root)
            code = 0
        except BaseException:  # a child must never run on in its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    life = Life(pid)
    with open(read) as told:  # noqa: PTH123
        for line in told:
            what, value = json.loads(line)
            getattr(life, what).append(tuple(value) if what == "points" else value)
    life.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return life


def _teller(pipe: int) -> Tell:
    def tell(what: str, value: Any) -> None:
        os.write(pipe, (json.dumps([what, value]) + "\n").encode())

    return tell


def _telling(fit: Callable[..., Iterator[Any]], tell: Tell) -> Callable[..., Iterator[Any]]:
    def told(*arguments: Any) -> Iterator[Any]:
        for epoch in fit(*arguments):
            tell("trained", epoch.number)
            yield epoch

    return told


def _steady(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not _VARYING.fullmatch(name)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "missing"
