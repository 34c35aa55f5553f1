"""What one run leaves behind and where: the directory RUN, its plan (run.json), its lock.

    RUN/run.json        what was asked, every planned trial, where the data is, what produced it
    RUN/STATUS.md       how far it is, for a person
    RUN/.lock           held by the driver while it lives; the system releases it however the driver dies
    RUN/driver.json     which driver was the last to start, and the limits that it set its trials
    RUN/trials/         one directory a trial: its trial.json, checkpoints, TensorBoard file, results
    RUN/tune/001, ...   Ray Tune's experiments: of the first launch, and of each later one that Ray cannot restore
    RUN/report/         the report
    RUN/wandb/          what is for Weights & Biases, with --tracker wandb

Light: imports neither torch nor Ray.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, remove_temporary_files
from sousaphone.runs.statuses import Cause, Continuation, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import counted

SCHEMA = 2  # of run.json and of the directory; raise it whenever older runs cannot be gone on with


@dataclass(frozen=True)
class Limits:
    """What a driver tells its trials; it may differ from one launch to the next, since no result depends on it."""

    trial_seconds: float | None = None  # after which a trial ends as time_limit, earlier starts counted in; None: never
    # The moment at which the whole sweep ends so, by this machine's monotonic clock (s), which nobody sets; None: none.
    deadline: float | None = None
    stall_seconds: float | None = None  # a trial without a batch for so long ends as failed; None: it is waited for


_NO_LIMITS = Limits()
_LOCK_NAME = ".lock"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and what is read and written there."""

    path: Path

    @property
    def tune(self) -> Path:
        """The directory of Ray Tune's experiments."""
        return self.path / "tune"

    @property
    def experiments(self) -> list[Path]:
        """Ray Tune's experiments, the first first."""
        return sorted(path for path in self.tune.glob("[0-9]*") if path.is_dir())

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def status_page(self) -> Path:
        return self.path / "STATUS.md"

    @property
    def resume_command(self) -> str:
        """The line that continues this run."""
        here = self.path.resolve()
        return shlex.join(["python", "launch.py", "--resume", "--name", here.name, "--storage", str(here.parent)])

    def next_steps(self, ends: Iterable[tuple[Status, Cause | None]]) -> list[tuple[str, str | None]]:
        """(what for, the line to type, None where there is none) for trials that came to this."""
        counts = Counter(status.continuation(cause) for status, cause in ends)
        lines = {each: self.resume_command + each.options for each in Continuation if each.options is not None}
        return [(f"{c.purpose} ({counted(counts[c], 'trial')})", lines.get(c)) for c in Continuation if counts[c]]

    def trial(self, trial_id: str) -> Path:
        """The directory of one trial."""
        return self.path / "trials" / trial_id

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    @property
    def is_empty(self) -> bool:
        """Nothing is there but the lock, as a launch leaves it that was refused at its very beginning."""
        return all(path.name == _LOCK_NAME for path in self.path.iterdir())

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write run.json, whole or not at all; the directory is made if needed.

        Raises:
            UserError: the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path / "run.json") as temporary:
                temporary.write_text(json.dumps(plan, indent=1), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        why = error.strerror or error
        return UserError(f"{self.path} cannot be written ({why}); mend that, or give another --storage")

    def read_plan(self) -> dict[str, Any]:
        """run.json's content; a UserError where no run is there, or its plan is damaged."""
        if not self.exists:
            raise UserError(f"{self.path} is no run: it holds no run.json; give a directory that launch.py wrote")
        try:
            plan: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.path / 'run.json'} is damaged ({error}); restore it from a copy") from error
        if not isinstance(plan, dict):
            raise UserError(f"{self.path / 'run.json'} is damaged (it holds no object); restore it from a copy")
        if plan.get("schema") != SCHEMA:
            raise UserError(
                f"{self.path} was begun by another version of this program (schema {plan.get('schema')}, this one has "
                f"{SCHEMA}); use that version, or begin a new run"
            )
        return plan

    def record(self, trial_id: str) -> TrialRecord | None:
        """A trial's record; None if it has not begun, or the record is damaged. A trial left "running" by a driver
        that is gone has been interrupted, whatever its last record says."""
        record = TrialRecord.find(self.trial(trial_id))
        if record is not None and record.status is Status.RUNNING and not self.is_live():
            record.status = Status.INTERRUPTED
        return record

    def is_live(self) -> bool:
        """Whether a driver holds this run at this moment."""
        if not (self.path / _LOCK_NAME).exists():
            return False
        lock = FileLock(self.path / _LOCK_NAME)
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # read-only for us: go by the driver's process
            return _lives(read_driver(self.path))

    @contextmanager
    def held(self, limits: Limits = _NO_LIMITS) -> Iterator[None]:
        """Hold the run: no second driver may work on it. Its trials heed the limits.

        Raises:
            UserError: another driver does, or the directory cannot be written.
        """
        lock = FileLock(self.path / _LOCK_NAME)
        try:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=2)  # who only looks whether it is held (`is_live`) lets go at once
                remove_temporary_files(self.path)
                with atomic_write(self.path / "driver.json") as temporary:
                    temporary.write_text(json.dumps(_this_driver(limits)), encoding="utf-8")
            except Timeout:
                driver = read_driver(self.path) or {}
                raise UserError(
                    f"{self.path} is in use by process {driver.get('pid', '?')} on {driver.get('host', '?')}; "
                    "wait for it to end, or stop it, then resume"
                ) from None
            except OSError as error:
                raise self._unwritable(error) from error
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

    @property
    def limits(self) -> Limits:
        """The driver's; the deadline of one that is dead is past and means nothing to who goes on without it."""
        driver = self.driver or {}
        limits = Limits(**driver.get("limits", {}))
        if limits.deadline is None or not self.lived:
            return dataclasses.replace(limits, deadline=None)
        if driver["host"] != socket.gethostname():  # whose clock starts elsewhere
            return dataclasses.replace(limits, deadline=time.monotonic() + driver["deadline_unix"] - time.time())
        return limits

    def check(self) -> None:
        """Raise a DriverGoneError where the trial is to stop, without writing."""
        if read_driver(self.run) != self.driver:
            raise DriverGoneError(f"another driver has taken over {self.run}")
        if self.lived and not _lives(self.driver):
            raise DriverGoneError(f"the driver of {self.run} is gone")


def read_driver(run: Path) -> dict[str, Any] | None:
    """driver.json, None if there is none."""
    try:
        driver: dict[str, Any] = json.loads((run / "driver.json").read_text(encoding="utf-8"))
        return driver
    except FileNotFoundError:
        return None


def _this_driver(limits: Limits) -> dict[str, Any]:
    deadline = limits.deadline
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "limits": dataclasses.asdict(limits),
        # For trials on other machines.
        "deadline_unix": None if deadline is None else time.time() + deadline - time.monotonic(),
    }


def _lives(driver: dict[str, Any] | None) -> bool:
    """Whether a driver's process lives; one on another host is taken to."""
    if driver is None:
        return False
    if driver["host"] != socket.gethostname():
        return True
    # A process number is used again; together with its start it is not.
    return _started(driver["pid"]) == driver["started"]


def _started(pid: int) -> float | None:
    """When a process started, by a clock that nobody sets; None if there is none."""
    try:
        if sys.platform == "linux":  # ticks since the system's start; psutil's Unix time moves with the clock
            return float(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None


def banner(arms: Iterable[tuple[str, str, str]]) -> str | None:
    """What must stand above results that say nothing about the published models; None for those that do.

    Args:
        arms: model, scale and weights of each trial.
    """
    known = list(arms)
    titles = {model: REGISTRY[model].title if model in REGISTRY else model for model, _, _ in known}
    drawn = {model for model, _, weights in known if weights == "random"}
    why = ["nano-sized backbones"] if any(scale == "nano" for _, scale, _ in known) else []
    if drawn:
        *most, last = (title for model, title in titles.items() if model in drawn)
        which = f"{', '.join(most)} and {last}" if most else last
        why.append("random weights" if len(drawn) == len(titles) else f"random weights in {which}")
    if not why:
        return None
    what = " and ".join(why)
    return (
        f"{what[0].upper()}{what[1:]}: this run shows that the tool works; it says nothing about the published models."
    )
