"""What one run leaves behind and where: the directory RUN, its plan (run.json), its lock.

    RUN/run.json        what was asked, every planned trial, where the data is, what produced it
    RUN/STATUS.md       how far it is, for a person
    RUN/.lock           held by the driver while it lives; the system releases it however the driver dies
    RUN/driver.json     which driver was the last to start
    RUN/tune/           Ray Tune's experiment; one directory a trial, with its trial.json, checkpoints, TensorBoard file
    RUN/report/         the report

Light: imports neither torch nor Ray.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.record import TrialRecord, atomic_write

EXPERIMENT = "tune"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and what is read and written there."""

    path: Path

    @property
    def experiment(self) -> Path:
        """Ray Tune's experiment directory."""
        return self.path / EXPERIMENT

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def status_page(self) -> Path:
        return self.path / "STATUS.md"

    @property
    def resume_command(self) -> str:
        """The line that goes on with this run."""
        here = self.path.resolve()
        return shlex.join(["python", "launch.py", "--resume", "--name", here.name, "--storage", str(here.parent)])

    def trial(self, trial_id: str) -> Path:
        """The directory of one trial."""
        return self.experiment / trial_id

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write run.json, whole or not at all; the directory is made if needed."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(plan, indent=1))

    def read_plan(self) -> dict[str, Any]:
        """
        Raises:
            UserError: no run is there, or its plan is damaged.
        """
        if not self.exists:
            raise UserError(f"{self.path} is no run: it holds no run.json; give a directory that launch.py wrote")
        try:
            plan: dict[str, Any] = json.loads((self.path / "run.json").read_text())
            return plan
        except ValueError as error:
            raise UserError(f"{self.path / 'run.json'} is damaged ({error}); restore it from a copy") from error

    def record(self, trial_id: str) -> TrialRecord | None:
        """A trial's record; None if it has not begun. A trial left "running" by a driver that is gone has been
        interrupted, whatever its last record says.

        Raises:
            ValueError: the record is damaged.
        """
        record = TrialRecord.read(self.trial(trial_id))
        if record is not None and record.status == "running" and not self.is_live():
            record.status = "interrupted"
        return record

    def is_live(self) -> bool:
        """Whether a driver holds this run at this moment."""
        if not (self.path / ".lock").exists():
            return False
        lock = FileLock(self.path / ".lock")
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # read-only for us: go by the driver's process
            return _lives(read_driver(self.path))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run: no second driver may work on it.

        Raises:
            UserError: another driver does, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(blocking=False)
        except Timeout:
            driver = read_driver(self.path) or {}
            raise UserError(
                f"{self.path} is in use by process {driver.get('pid', '?')} on {driver.get('host', '?')}; "
                "wait for it to end, or stop it, then resume"
            ) from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); give another --storage") from error
        try:
            with atomic_write(self.path / "driver.json") as temporary:
                driver = {"token": uuid.uuid4().hex, "pid": os.getpid(), "host": socket.gethostname()}
                temporary.write_text(json.dumps(driver))
            yield
        finally:
            lock.release()


class DriverGoneError(RuntimeError):
    """The driver that started this trial is dead, or another one has taken the run over."""


@dataclass(frozen=True)
class DriverWatch:
    """A trial's view of its driver: asked before every write, so that an orphan writes nothing."""

    run: Path
    driver: dict[str, Any] | None
    lived: bool

    @classmethod
    def begin(cls, run: Path) -> DriverWatch:
        """The driver of this moment; one that is dead already is not ours (Tune was restored by other means), and
        then only a takeover by a new one counts."""
        driver = read_driver(run)
        return cls(run, driver, _lives(driver))

    def check(self) -> None:
        """
        Raises:
            DriverGoneError: stop, without writing.
        """
        if read_driver(self.run) != self.driver:
            raise DriverGoneError(f"another driver has taken over {self.run}")
        if self.lived and not _lives(self.driver):
            raise DriverGoneError(f"the driver of {self.run} is gone")


def read_driver(run: Path) -> dict[str, Any] | None:
    """driver.json, None if there is none."""
    try:
        driver: dict[str, Any] = json.loads((run / "driver.json").read_text())
        return driver
    except FileNotFoundError:
        return None


def _lives(driver: dict[str, Any] | None) -> bool:
    """Whether a driver's process lives; one on another host is taken to."""
    if driver is None:
        return False
    return driver["host"] != socket.gethostname() or psutil.pid_exists(driver["pid"])


def banner(trials: Sequence[TrainConfig]) -> str | None:
    """What must stand above results that say nothing about the published models; None for those that do."""
    why = []
    if any(trial.scale == "nano" for trial in trials):
        why.append("nano-sized backbones")
    if any(trial.weights == "random" for trial in trials):
        why.append("random weights")
    if not why:
        return None
    what = " and ".join(why).capitalize()
    return f"{what}: this run shows that the tool works; it says nothing about the published models."
