"""Runs without Ray in a process that can be killed at any point, and the comparison of the resumed run."""

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
from sousaphone.runs.trial_record import ADAPTER_NAME, PREDICTIONS_NAME, TrialRecord, now, predictions_name
from sousaphone.sweep.failures import name_ends
from sousaphone.sweep.status_page import write_status
from sousaphone.training import checkpoint, resumable_trial
from sousaphone.training.watchdog import HEARTBEAT_NAME, STACKS_NAME
from tests.conftest import write_sousa
from tests.faults.points import Points, steady_name

EPOCHS = 3  # the fewest with which an old checkpoint is removed
# Metrics, curves and columns of the table that depend on the clock or the machine's load.
_VARYING = re.compile(r".*(seconds|per_second|_mb).*|git_commit")
_TIMEOUT_SECONDS = 120
_HPARAMS = (metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG)

Send = Callable[[str, Any], None]


@dataclass(frozen=True)
class Case:
    """The point at which a run is killed; `at` counts from the start of its phase, training or report."""

    phase: str
    at: int
    kind: str
    path: str

    def __str__(self) -> str:
        return f"{self.phase}:{self.at} {self.kind} {self.path}"


@dataclass
class Process:
    """What a process sent until it exited: the epochs that it `trained` and `reported`, the `points` that it passed."""

    pid: int
    trained: list[int] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    points: list[tuple[str, str]] = field(default_factory=list)
    code: int = 0


class KilledRuns:
    """Runs of one nano trial, one at a time in one directory, each in a fork of this process."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: an empty directory for all files.
        """
        torch.set_num_threads(1)
        self._run, self._trained = RunDirectory(root / "run"), root / "trained"
        data = write_sousa(root / "sousa", rudiments=SLUGS[:3], long_clips=0)
        settings: dict[str, Any] = {"epochs": EPOCHS, "micro_batch": 4, "clip_seconds": 1.0, "learning_rate": 1e-3}
        self._config = TrainConfig(data_dir=str(data), cache_dir=str(root / "cache"), weights="random", **settings)
        fill_caches(read_subset(data, self._config.dataset), [self._config], root / "cache")
        # Import and compute here what every child would otherwise repeat.
        build_model(self._config, len(SLUGS))
        resumable_trial.provenance = functools.cache(resumable_trial.provenance)
        resumable_trial.provenance()
        gc.collect()
        gc.freeze()  # else collections in a child would copy the memory of this process
        self.cases = list(self._uninterrupted())

    def _uninterrupted(self) -> Iterator[Case]:
        """Every point of the uninterrupted run; the others are compared with its outcome."""
        self._expected = {}
        for phase, work in (("training", self._train), ("report", self._report)):
            process = _fork(work, lambda send: Points(self._run.path, send))
            if process.code:
                raise RuntimeError(f"the uninterrupted {phase} failed with exit code {process.code}")
            self._expected[phase] = self._outcome()
            if phase == "training":
                shutil.copytree(self._run.path, self._trained)
                write_report(self._run.path, self._trained.with_name("first report"))  # loads modules and fonts
            yield from (Case(phase, at, kind, path) for at, (kind, path) in enumerate(process.points))

    def faults(self, case: Case) -> list[str]:
        """Kill a run at the point, resume it, and describe each difference from the uninterrupted run."""
        shutil.rmtree(self._run.path)
        if case.phase == "report":
            shutil.copytree(self._trained, self._run.path)
        work = self._train if case.phase == "training" else self._report
        killed = _fork(work, lambda send: Points(self._run.path, send, case.at))
        if killed.code != -signal.SIGKILL:
            return [f"was not killed there: exit code {killed.code}"]
        saved = self._saved_epochs()

        def resume(send: Send) -> None:
            # TensorBoard reads files in the order of their names, which contain the second and the process id.
            if str(os.getpid()) < str(killed.pid):
                time.sleep(1.0)
            self._train(send)
            if case.phase == "report":
                self._report(send)

        resumed = _fork(resume)
        if resumed.code:
            return [f"the resume failed with exit code {resumed.code}"]
        remaining = list(range(saved + 1, EPOCHS + 1))
        found = []
        if max(killed.trained, default=0) > saved + 1:
            found.append(f"epochs {killed.trained} were trained, but only {saved} are in a checkpoint")
        if resumed.trained != remaining:
            found.append(f"the resume trained {resumed.trained}, not {remaining}")
        if resumed.reported != (remaining or [EPOCHS]):
            found.append(f"the resume reported {resumed.reported}, not {remaining or [EPOCHS]}")
        outcome, expected = self._outcome(), self._expected[case.phase]
        found += [
            f"{name}: {outcome[name]}, not {expected[name]}" for name in expected if outcome[name] != expected[name]
        ]
        return found

    def _train(self, send: Send) -> None:
        """Run the trial as launch.py does, without Ray."""
        run, config = self._run, self._config

        def report(metrics: dict[str, Any]) -> None:
            send("reported", metrics["epoch"])
            write_status(run)

        resumable_trial.fit = _sending(resumable_trial.fit, send)
        ids = [config.trial_id]
        with run.held(Limits(stall_seconds=_TIMEOUT_SECONDS)):
            new = {"schema": SCHEMA, "created": now(), "config": "backbones", "request": {}}
            new |= {"trials": [dataclasses.asdict(config)], "trial_ids": ids}
            run.write_plan(run.read_plan() if run.exists else new)
            name_ends(run, ids, Cause.DRIVER_KILLED, "the driver was killed")
            resumable_trial.run_trial(config, run.trial(config.trial_id), DriverWatch.begin(run.path), report)
            name_ends(run, ids)

    def _report(self, send: Send) -> None:
        write_report(self._run.path)

    def _saved_epochs(self) -> int:
        """The number of epochs in the newest complete checkpoint."""
        state = checkpoint.newest(self._run.trial(self._config.trial_id))
        return len(state["history"]) if state else 0

    def _outcome(self) -> dict[str, Any]:
        """Everything that a run leaves, except times; file names without their random parts."""
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
        # The heartbeat and stack files of a killed trial remain; they are read only while it runs.
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
            "results": [
                _digest(directory / name) for name in (PREDICTIONS_NAME, predictions_name("val"), ADAPTER_NAME)
            ],
            "saved epochs": self._saved_epochs(),
            "files": sorted({steady_name(str(path.relative_to(self._run.path))) for path in files}),
        }


def _fork(work: Callable[[Send], None], make_points: Callable[[Send], Points] | None = None) -> Process:
    """Run `work` in a child process and wait for its exit. What the child sends through a pipe outlives a kill."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(_TIMEOUT_SECONDS)

            def send(name: str, value: Any) -> None:
                os.write(write, (json.dumps([name, value]) + "\n").encode())

            points = make_points(send) if make_points else None
            if points:
                points.watch()
            work(send)
            if points:
                points.reach("end", points.root)
            code = 0
        except BaseException:  # a child must never return into its parent's code
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    process = Process(pid)
    with open(read) as lines:  # noqa: PTH123
        for line in lines:
            name, value = json.loads(line)
            getattr(process, name).append(tuple(value) if name == "points" else value)
    process.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return process


def _sending(fit: Callable[..., Iterator[Any]], send: Send) -> Callable[..., Iterator[Any]]:
    def sending_fit(*arguments: Any) -> Iterator[Any]:
        for epoch in fit(*arguments):
            send("trained", epoch.number)
            yield epoch

    return sending_fit


def _steady(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not _VARYING.fullmatch(name)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "missing"
