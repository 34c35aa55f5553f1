"""Ray's runtime: one of this program's own, or the cluster named by RAY_ADDRESS; and its loss.

launch.py never starts Ray in its own process. A child does, in a session of its own (`Runtime`): so the signal handlers
of launch.py stay its own, whatever ends Ray ends the child alone, and killing the session leaves nothing behind.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import cloudpickle

from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus, home_directory, memory_bytes
from sousaphone.sweep.signals import stops_deferred

# Measured: 0.7 GB for launch.py with torch, 0.5 GB for Ray's processes and their driver, 0.6 to 0.9 GB for a worker
# that trains.
_LEAST_BYTES = 2_000_000_000
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # of a Unix socket's address, its end not counted


def _check_address(address: str) -> None:
    """
    Raises:
        UserError: nobody answers at HOST:PORT; Ray itself would try for minutes.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in address:  # "auto" and client addresses are Ray's to resolve
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {address!r} does not answer ({error}); start the cluster, or unset RAY_ADDRESS"
        ) from error


def _check_machine() -> None:
    """What Ray needs to start here. Left to itself it tries for minutes, or ends in words of its own.

    Raises:
        UserError: something of it is missing.
    """
    home_directory()  # holds Ray's token
    if (memory := memory_bytes()) < _LEAST_BYTES:
        raise UserError(
            f"{memory / 1e6:,.0f} MB of memory are too little for Ray and a trial; give this machine or container "
            f"{_LEAST_BYTES / 1e6:,.0f} MB at least"
        )
    given = os.environ.get("RAY_TMPDIR") or (os.environ.get("TMPDIR") if sys.platform == "linux" else None) or "/tmp"
    os.environ["RAY_TMPDIR"] = str(Path(given).absolute())  # Ray starts from no relative or empty one
    directory = Path(os.environ["RAY_TMPDIR"], "ray")
    standing = next(path for path in (directory, *directory.parents) if path.exists() or path.is_symlink())
    if not standing.is_dir() or not os.access(standing, os.W_OK | os.X_OK):
        raise UserError(
            f"Ray's temporary directory cannot be {directory}: {standing} is not a directory that this user can write "
            "to; set RAY_TMPDIR to one that is"
        )
    if not str(directory).isascii():
        raise UserError(f"Ray's temporary directory {directory} is not ASCII; set RAY_TMPDIR to one that is")
    # The longest of the sockets that Ray puts there.
    socket_path = f"{directory}/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    most = _SOCKET_PATH_BYTES - len(os.fsencode(socket_path))
    if most < 0:
        raise UserError(
            f"Ray's temporary directory {directory} has a path too long for sockets, by {-most} characters; set "
            "RAY_TMPDIR to a shorter one, such as /tmp"
        )
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as error:
        raise UserError(
            f"Ray needs the loopback interface, and 127.0.0.1 does not answer ({error}); bring it up, such as by "
            "`ip link set lo up`"
        ) from error


class StoppedRayError(RuntimeError):
    """Ray could not go on; the trials' own checkpoints are whole."""


class Runtime:
    """Ray, and its driver in a child process that runs what it is called with.

    As a context manager it leaves no process behind. Ctrl-C in a terminal does not reach the child's session.
    """

    def __init__(self, dashboard: bool, device: str) -> None:
        self._dashboard, self._device = dashboard, device
        self._process: Any = None
        self._pipe: Connection
        self._vital: list[psutil.Process] = []
        self._address = ""

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        with stops_deferred():
            self.kill()

    def start(self) -> None:
        """Let Ray start, which takes seconds; `wait` waits for it. It may be up already.

        Raises:
            UserError: this machine, or RAY_ADDRESS, is not fit for it.
        """
        if self._process is not None:
            return
        address = os.environ.get("RAY_ADDRESS")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            _check_machine()
            # Trials pass no objects through Ray's store, so it needs none of the memory.
            options |= {"include_dashboard": self._dashboard, "dashboard_host": "127.0.0.1"}
            options |= {"num_cpus": count_cpus(), "object_store_memory": 100 * 2**20}
            options |= {"resources": {"mps": 1.0} if self._device == "mps" else None}
        else:
            _check_address(address)
            options |= {"address": address}
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        resource_tracker.ensure_running()  # which unblocks signals
        with stops_deferred():  # in the child until it is out of the terminal's reach
            self._process = context.Process(target=_serve, args=(theirs, options, self._dashboard, sys.stdout.encoding))
            self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Until Ray is up.

        Raises:
            UserError: it cannot start.
        """
        if self._address:
            return
        try:
            self._address = self._answer()
        except StoppedRayError as error:
            raise UserError(f"Ray cannot start on this machine: {error}") from error
        self._vital = [p for p in psutil.Process(self._process.pid).children() if p.name() in ("gcs_server", "raylet")]

    def restart(self) -> None:
        """Without any process of before.

        Raises:
            StoppedRayError: it does not start again.
        """
        self.kill()
        try:
            self.start()
            self.wait()
        except UserError as error:
            raise StoppedRayError(str(error)) from error

    def call(self, function: Callable[..., Any], *arguments: Any, look: Callable[[], None] | None = None) -> Any:
        """What a function returns, or raises, in the child.

        Args:
            look: called every second meanwhile; what it raises ends the waiting.

        Raises:
            StoppedRayError: Ray or the child is gone.
        """
        self._pipe.send_bytes(cloudpickle.dumps((function, arguments)))
        return self._answer(look)

    def _answer(self, look: Callable[[], None] | None = None) -> Any:
        while not self._pipe.poll(1.0):
            if look:
                look()
            self._check()
        try:
            returned, value = cloudpickle.loads(self._pipe.recv_bytes())
        except (EOFError, ConnectionError):
            self._process.join()
            ended = f"the process that drives Ray ended with {_code(self._process.exitcode)}"
            returned, value = False, StoppedRayError(ended)
        if returned:
            return value
        if look:
            look()
        self._check()  # whatever Ray says once its own processes are gone, that is why
        raise value

    def _check(self) -> None:
        """Ray itself would wait a minute; of a cluster only its address can be seen from here, and it may be slow once.

        Raises:
            StoppedRayError: Ray's processes are gone.
        """
        if self._vital:
            alive = all(map(_lives, self._vital))
        else:
            alive = not self._address or any(_answers(self._address) for _ in range(3))
        if not alive:
            raise StoppedRayError("Ray's own processes were killed")

    def interrupt(self, seconds: float) -> None:
        """Raise KeyboardInterrupt in what the child runs, and give it so long to end."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        self._pipe.poll(seconds)

    def kill(self) -> None:
        """The child and all that it has started are gone when this returns. A cluster sees its driver go."""
        if self._process is None:
            return
        self._process.kill()
        self._process.join()
        _kill_session(self._process.pid)
        self._pipe.close()
        self._process, self._address, self._vital = None, "", []


def _serve(pipe: Connection, options: Mapping[str, Any], dashboard: bool, encoding: str) -> None:
    """What the child does: start Ray, and call what is asked for."""
    os.setsid()
    threading.Thread(target=_follow_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets those of the start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    sys.stdout.reconfigure(encoding=encoding, errors="replace", line_buffering=True)  # type: ignore[union-attr]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for Ray's workers, whose warnings nobody reads

    def answer(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            value = True, function(*arguments)
        except (UserError, StoppedRayError) as error:
            value = False, error
        pipe.send_bytes(cloudpickle.dumps(value))

    answer(_start, options, dashboard)
    import sousaphone.sweep.experiment  # noqa: F401  what is called first; launch.py still plans

    with suppress(EOFError, KeyboardInterrupt):
        while True:
            function, arguments = cloudpickle.loads(pipe.recv_bytes())
            answer(function, *arguments)


def _start(options: Mapping[str, Any], dashboard: bool) -> str:
    """Returns Ray's address.

    Raises:
        UserError: it cannot start.
    """
    address = options.get("address")
    try:
        context = ray.init(**options)
    except Exception as error:  # Ray's own are of any class, a plain Exception among them
        said = str(error).partition("\n")[0] or type(error).__name__
        if address is None:
            raise UserError(f"Ray cannot start on this machine: {said}") from error
        raise UserError(
            f"RAY_ADDRESS {address!r} takes no connection ({said}); give HOST:PORT of a cluster with the same Ray "
            "and Python, and if it asks for a token, set RAY_AUTH_MODE=token"
        ) from error
    # A failed trial's traceback is in its record and its error.txt; the terminal has one line of it.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if dashboard and context.dashboard_url:
        print(f"dashboard: http://{context.dashboard_url}")
    return str(ray.get_runtime_context().gcs_address)


def _follow_parent() -> None:
    """However launch.py ends, nothing of Ray outlives it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _kill_session(os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_session(session: int) -> None:
    """All its processes but this one; they are gone when this returns."""
    while family := [p for p in psutil.process_iter() if p.pid != os.getpid() and _session(p) == session]:
        for process in family:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _session(process: psutil.Process) -> int | None:
    """None of one that has ended, and may wait for ever for whoever started it to ask how."""
    try:
        return os.getsid(process.pid) if _lives(process) else None
    except OSError:
        return None


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
        return True
    except OSError:
        return False


def _code(exit_code: int | None) -> str:
    """An exit code, or the signal that it stands for, in words."""
    return signal.Signals(-exit_code).name if exit_code and exit_code < 0 else f"exit code {exit_code}"
