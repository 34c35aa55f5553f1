"""The directory RUN of a run: its paths, its plan (run.json), its lock.

    RUN/run.json        options, every planned trial, data, provenance
    RUN/STATUS.md       progress, for people
    RUN/.lock           held by the driver while it runs; the system releases it however the driver ends
    RUN/driver.json     the latest driver, and the limits of its trials
    RUN/trials/         one directory per trial: its trial.json, checkpoints, TensorBoard file, results
    RUN/tune/001, ...   Ray Tune's experiments: of the first launch, and of each launch that Ray cannot restore
    RUN/report/         the report
    RUN/wandb/          files of Weights & Biases, with --tracker wandb

Imports neither torch nor Ray.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import shlex
import socket
import stat
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.errors import IS_CLONE, UserError, printable
from sousaphone.files import remove_temporary_files, write_json
from sousaphone.runs import schema
from sousaphone.runs.seal import is_sealed, seal
from sousaphone.runs.statuses import Cause, Continuation, Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import counted

SWEEP_COMMAND = ("python", "launch.py") if IS_CLONE else ("sousaphone", "sweep")
SCHEMA = 2  # of run.json and of the directory; raise it when older runs cannot be resumed


@dataclass(frozen=True)
class Limits:
    """Time limits that a driver sets its trials; they may differ between launches, since no result depends on them."""

    __pydantic_config__ = schema.STRICT
    trial_seconds: schema.Seconds | None = None  # limit of a trial over all its starts (time_limit); None: no limit
    # Time at which all trials end (time_limit), seconds on this machine's monotonic clock; None: no limit.
    deadline: schema.Number | None = None
    stall_seconds: schema.Seconds | None = None  # limit of the time without a batch (failed); None: no limit


_LOCK_NAME = ".lock"
_DRIVER = schema.fields(
    True,
    pid=schema.Count,
    started=float | None,
    limits=Limits,
    deadline_unix=float | None,
    **dict.fromkeys(("token", "host"), schema.Text),
)


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run, and reading and writing its files."""

    path: Path

    @property
    def tune(self) -> Path:
        """The directory of Ray Tune's experiments."""
        return self.path / "tune"

    @property
    def experiments(self) -> list[Path]:
        """Ray Tune's experiments, the oldest first."""
        found = [path for path in self.tune.glob("[0-9]*") if re.fullmatch("[0-9]+", path.name) and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name))

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def status_page(self) -> Path:
        return self.path / "STATUS.md"

    @property
    def resume_command(self) -> str:
        """The command that resumes this run."""
        here = self.path.resolve()
        return shlex.join([*SWEEP_COMMAND, "--resume", "--name", here.name, "--storage", str(here.parent)])

    @property
    def export_command(self) -> str:
        """The command that exports the best model of this run."""
        return shlex.join(["sousaphone", "export", str(self.path), "--to", "my_model"])

    def next_steps(
        self, plan: Mapping[str, Any], ends: Mapping[str, tuple[Status, Cause | None]]
    ) -> list[tuple[str, str | None]]:
        """Return (purpose, command or None) of each way to continue trials of the plan, given their statuses and
        causes. The configurations of a search are not continued once its finalists are planned."""
        has_finalists = any(trial.get("score_test") for trial in plan["trials"])
        decided = (plan.get("search") or {}).get("proposals", {}) if has_finalists else {}
        counts = Counter(status.continuation(cause) for name, (status, cause) in ends.items() if name not in decided)
        commands = {each: self.resume_command + each.options for each in Continuation if each.options is not None}
        return [(f"{c.purpose} ({counted(counts[c], 'trial')})", commands.get(c)) for c in Continuation if counts[c]]

    def trial(self, trial_id: str) -> Path:
        """The directory of one trial."""
        return self.path / "trials" / trial_id

    @property
    def exists(self) -> bool:
        """Whether the directory holds a run."""
        return (self.path / "run.json").is_file()

    @property
    def is_own(self) -> bool:
        """Whether this installation wrote run.json. One from elsewhere may name any directory as the data set."""
        return is_sealed(self.path, [self.path / "run.json"])

    @property
    def is_empty(self) -> bool:
        """Whether the directory holds nothing but a lock, which a refused launch leaves behind."""
        return all(path.name == _LOCK_NAME for path in self.path.iterdir())

    def write_plan(self, plan: dict[str, Any]) -> None:
        """Write run.json, atomically; create the directory if needed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.path / "run.json", plan, indent=1)
            seal(self.path, [self.path / "run.json"])
        except OSError as error:
            raise self._unwritable(error) from error

    def append_trials(self, trials: Iterable[TrainConfig], **fields: Any) -> None:
        """Add trials to the plan of a sweep whose trials are proposed while it runs, before they start; `fields` are
        further content of run.json."""
        plan, added = self.read_plan(), list(trials)
        configs, ids = map(dataclasses.asdict, added), (trial.trial_id for trial in added)
        self.write_plan(
            {**plan, "trials": [*plan["trials"], *configs], "trial_ids": [*plan["trial_ids"], *ids], **fields}
        )

    def _unwritable(self, error: OSError) -> UserError:
        path, why = error.filename or self.path, error.strerror or error
        return UserError(f"{path} cannot be written ({why}); fix that, or give another --storage")

    def _refuse_unwritable(self) -> None:
        for directory in (self.tune, self.path / "trials", *self.path.glob("trials/*")):
            if directory.is_dir() and not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(directory))

    def read_plan(self) -> dict[str, Any]:
        """Read run.json; raise a UserError if it is missing, damaged or of another version."""
        file = self.path / "run.json"
        if not self.exists:
            raise UserError(f"{self.path} is not a run directory: it holds no run.json; give one that launch.py wrote")
        try:
            version = schema.read(file, schema.VERSION).get("schema")
            if version == SCHEMA:
                return dict(schema.read(file, schema.PLAN))
        except (ValueError, OSError) as error:
            raise UserError(f"{error}; restore it from a copy") from error
        raise UserError(
            f"{self.path} was written by another version of this program (schema {version!r:.20}, not {SCHEMA}); use "
            "that version, or start a new run"
        )

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Raise a UserError that names run.json for the ValueError of content that `read_plan` does not check."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"{self.path / 'run.json'}: {error}; restore it from a copy") from error

    def read_foreign_plan(self) -> dict[str, Any]:
        """Read run.json of a run that may come from anybody: raise a UserError, too, if a file of it is unsafe to open:
        a link that leads out of the run, a pipe or a device, or one whose name cannot be printed."""
        if self.exists:
            self._refuse_unsafe_files()
        return self.read_plan()

    def _refuse_unsafe_files(self) -> None:
        root = Path(os.path.realpath(self.path))
        if printable(root.name) != root.name:
            raise UserError(f"the name of {root} has control characters; rename it")
        for directory, names, files in os.walk(root, onerror=_refuse_unreadable):
            for path in (Path(directory, name) for name in (*names, *files)):
                if printable(path.name) != path.name:
                    raise UserError(f"the name of {path} has control characters; rename or remove it")
                try:
                    mode = path.lstat().st_mode
                except FileNotFoundError:  # a live run removes temporary files
                    continue
                if stat.S_ISLNK(mode):
                    if not Path(os.path.realpath(path)).is_relative_to(root):
                        raise UserError(f"{path} is a link that leads out of the run; replace it with its content")
                elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise UserError(f"{path} is a pipe, a socket or a device, which no run has; remove it")
            if directory == str(root) and "wandb" in names:
                names.remove("wandb")  # Weights & Biases keeps links to its logs there, which nothing here follows

    def record(self, trial_id: str) -> TrialRecord | None:
        """Return a trial's record, interrupted if it is "running" without a live driver; None if missing or damaged."""
        record = TrialRecord.find(self.trial(trial_id))
        if record is not None:
            record.trial_id = trial_id  # a directory may have been renamed
            if record.status is Status.RUNNING and not self.is_live():
                record.status = Status.INTERRUPTED
        return record

    def is_live(self) -> bool:
        """Whether a driver holds the run's lock."""
        if not (self.path / _LOCK_NAME).is_file() or (self.path / _LOCK_NAME).is_symlink():
            return False
        lock = FileLock(self.path / _LOCK_NAME)
        try:
            with lock.acquire(blocking=False):
                return False
        except Timeout:
            return True
        except OSError:  # no write access: check the driver's process instead
            return _is_running(read_driver(self.path))

    @contextmanager
    def held(self, limits: Limits | None = None) -> Iterator[None]:
        """Lock the run, and set the limits of its trials; raise a UserError if it is locked or cannot be written."""
        lock = FileLock(self.path / _LOCK_NAME)
        try:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._refuse_unsafe_files()
                self._refuse_unwritable()
                lock.acquire(timeout=2)  # `is_live` holds it for a moment
                remove_temporary_files(self.path)
                write_json(self.path / "driver.json", _this_driver(limits or Limits()))
            except Timeout:
                driver = read_driver(self.path) or {}
                raise UserError(
                    f"{self.path} is in use by process {driver.get('pid', '?')} on {driver.get('host', '?')}; "
                    "wait for its end, or stop it, then resume"
                ) from None
            except OSError as error:
                raise self._unwritable(error) from error
            yield
        finally:
            lock.release()


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a live run removes temporary directories
        raise UserError(f"{error.filename} cannot be read ({error.strerror}); make it readable, or remove it")


class DriverGoneError(RuntimeError):
    """The driver that started this trial has ended, or another driver has taken over the run."""


@dataclass(frozen=True)
class DriverWatch:
    """A trial's check of its driver before every write, so that an orphaned trial writes nothing."""

    run: Path
    driver: dict[str, Any] | None
    lived: bool  # whether the driver was running at the start

    @classmethod
    def begin(cls, run: Path) -> DriverWatch:
        """Watch the latest driver. If it has ended already (Tune was restored by other means), only a takeover by a new
        driver stops the trial."""
        driver = read_driver(run)
        return cls(run, driver, _is_running(driver))

    @property
    def limits(self) -> Limits:
        """The driver's limits, without the deadline if the driver had ended already."""
        driver = self.driver or {}
        limits: Limits = driver.get("limits", Limits())
        if limits.deadline is None or not self.lived:
            return dataclasses.replace(limits, deadline=None)
        if driver["host"] != socket.gethostname():  # its monotonic clock differs
            return dataclasses.replace(limits, deadline=time.monotonic() + driver["deadline_unix"] - time.time())
        return limits

    def check(self) -> None:
        """Raise a DriverGoneError if the trial must stop without writing."""
        if read_driver(self.run) != self.driver:
            raise DriverGoneError(f"another driver has taken over {self.run}")
        if self.lived and not _is_running(self.driver):
            raise DriverGoneError(f"the driver of {self.run} has ended")


def read_driver(run: Path) -> dict[str, Any] | None:
    """Read driver.json; None if there is none or it is damaged."""
    try:
        return dict(schema.read(run / "driver.json", _DRIVER))
    except (FileNotFoundError, ValueError):
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


def _is_running(driver: dict[str, Any] | None) -> bool:
    """Whether a driver's process is running; on another host it is assumed to be."""
    if driver is None:
        return False
    if driver["host"] != socket.gethostname():
        return True
    # Process numbers are reused, so the start time is compared as well.
    return _started(driver["pid"]) == driver["started"]


def _started(pid: int) -> float | None:
    """Return the start time of a process on a clock that cannot be set; None if there is no such process."""
    try:
        if sys.platform == "linux":  # ticks since boot; psutil's Unix time moves with the clock
            return float(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return None


def banner(arms: Iterable[tuple[str, str, str]]) -> str | None:
    """Return the warning if trials (model, scale, weights) say nothing about the published models, else None."""
    known = list(arms)
    titles = {model: REGISTRY[model].title if model in REGISTRY else model for model, _, _ in known}
    # One that has no published weights is the same at every scale, and complete with random ones.
    pretrained = {model for model in titles if model not in REGISTRY or REGISTRY[model].is_pretrained}
    random = {model for model, _, weights in known if weights == "random" and model in pretrained}
    small = any(scale == "nano" and model in pretrained for model, scale, _ in known)
    reasons = ["nano-sized backbones"] if small else []
    if random:
        *most, last = (title for model, title in titles.items() if model in random)
        which = f"{', '.join(most)} and {last}" if most else last
        reasons.append("random weights" if len(random) == len(titles) else f"random weights in {which}")
    if not reasons:
        return None
    why = f"{' and '.join(reasons)} cannot rank the published models"
    return f"No verdict: {why}. This run only shows that the tool works."
