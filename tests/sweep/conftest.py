"""Fixtures that start launch.py as a user does, in its own process."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from sousaphone.runs.trial_record import TrialRecord

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 8


class Launcher:
    """Starts launch.py on a small data set; all its files are in one directory."""

    def __init__(self, data: Path, storage: Path) -> None:
        self.storage = storage
        self.skipped = ["baselines", "timing"]
        self.environment = {**os.environ, "SOUSAPHONE_CACHE": str(storage / "cache")}
        settings = ["clip_seconds=1.0", "micro_batch=2", "accumulation=1", "learning_rate=0.001", "patience=99"]
        self.options = ["--data-dir", str(data), "--models", "ast", "--scale", "nano", "--epochs", str(EPOCHS)]
        self.options += ["--set", *settings]

    def start(self, *options: str, name: str = "run", under: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start launch.py, without what is `skipped` unless it is given; `under` is a command that runs it."""
        command = [
            *under,
            sys.executable,
            str(ROOT / "launch.py"),
            "--name",
            name,
            "--storage",
            str(self.storage),
            *options,
        ]
        for measured in self.skipped:
            command += [] if f"--{measured}" in options else [f"--no-{measured}"]
        log = (self.storage / "log.txt").open("a")
        return subprocess.Popen(
            command, cwd=self.storage, env=self.environment, stdout=log, stderr=log, text=True, start_new_session=True
        )

    @property
    def log(self) -> str:
        return (self.storage / "log.txt").read_text()

    def record(self, augment: str) -> TrialRecord | None:
        return TrialRecord.read(self.storage / "run" / "trials" / f"ast-lora-aug-{augment}-s0")

    def epochs(self, augment: str) -> int:
        record = self.record(augment)
        return len(record.history) if record else 0

    def wait_until(self, condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 480
        while not condition():
            assert process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)


@pytest.fixture
def launcher(small_sousa: Path, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher whose processes, Ray's included, are killed after the test."""
    yield Launcher(small_sousa, tmp_path)
    for process in psutil.process_iter():
        # Exactly the launcher's processes have its cache directory in the environment.
        if environment_of(process).get("SOUSAPHONE_CACHE") == str(tmp_path / "cache"):
            with contextlib.suppress(psutil.Error):  # it has just ended
                process.kill()


# The wall clock of every process of a launch, and the monotonic clock of its Python code.
JUMPING_CLOCKS = """
import os, sys, time
def jumping(name):
    real, path = getattr(time, name), os.path.join(os.environ["CLOCKS"], name)
    def read():
        if name == "monotonic" and "sousaphone" not in sys.modules or not os.path.exists(path):
            return real()
        with open(path) as file:
            return real() + float(file.read())
    return read
for name in ("time", "monotonic"):
    setattr(time, name, jumping(name))
"""


class JumpingClocks:
    """Sets the clocks of later launches forwards or backwards while they run."""

    def __init__(self, launcher: Launcher) -> None:
        self._directory = launcher.storage / "clocks"
        self._directory.mkdir()
        (self._directory / "sitecustomize.py").write_text(JUMPING_CLOCKS)
        path = os.pathsep.join([str(self._directory), str(ROOT), os.environ.get("PYTHONPATH", "")])
        launcher.environment |= {"PYTHONPATH": path, "CLOCKS": str(self._directory)}

    def jump(self, name: str, seconds: float) -> None:
        """Let a clock, `time` or `monotonic`, be so far from the true one, from now on."""
        (self._directory / "new").write_text(str(seconds))
        (self._directory / "new").replace(self._directory / name)


def name_of(process: psutil.Process) -> str:
    """The name of a process and of its program; empty if it has ended."""
    try:
        return " ".join([process.name(), *process.cmdline()[:1]])
    except psutil.Error:
        return ""


def free_port() -> int:
    """Return a port below those that the system gives to connections of other processes."""
    while True:
        with socket.socket() as listener, contextlib.suppress(OSError):
            port = random.randrange(20_000, 32_000)
            listener.bind(("127.0.0.1", port))
            return port


def environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        environment: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return environment


@dataclasses.dataclass(frozen=True)
class SmallDisk:
    """A file system of 40 MB and 600 files: at `path` for a process started with `prefix`, at `seen` for this one."""

    path: Path
    seen: Path
    prefix: tuple[str, ...] = ()

    def start(self, launcher: Launcher, *options: str, name: str = "run") -> subprocess.Popen[str]:
        """Start launch.py with its runs on this file system, its log and waveforms elsewhere."""
        command = [*self.prefix, sys.executable, str(ROOT / "launch.py"), "--name", name, "--storage", str(self.path)]
        with (launcher.storage / "log.txt").open("a") as log:
            return subprocess.Popen(
                [*command, "--no-timing", *options], env=launcher.environment, stdout=log, stderr=log, text=True
            )

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.seen / "fill").open("wb", buffering=0) as file:
            while file.write(bytes(2**16)):
                pass
        assert shutil.disk_usage(self.seen).free < 2**16

    def fill_inodes(self) -> None:
        (self.seen / "files").mkdir()
        with contextlib.suppress(OSError):
            for number in itertools.count():
                (self.seen / "files" / str(number)).touch()

    def free(self) -> None:
        (self.seen / "fill").unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk, mounted here with sufficient rights, else in its own name space."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=600", "tmpfs", str(path)]
    if sys.platform == "linux" and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield SmallDisk(path, path)
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        return
    if shutil.which("unshare") is None:
        pytest.skip("needs a Linux that mounts a tmpfs")
    keeper = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", '"$@" && echo mounted && exec sleep infinity', "sh", *mount],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert keeper.stdout is not None
        if keeper.stdout.readline() != "mounted\n":
            pytest.skip("this system does not allow mounting a tmpfs")
        enter = ("nsenter", "--target", str(keeper.pid), "--user", "--mount", "--preserve-credentials")
        yield SmallDisk(path, Path(f"/proc/{keeper.pid}/root{path}"), enter)
    finally:
        keeper.kill()
        keeper.wait()
