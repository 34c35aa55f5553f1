"""Ray's runtime, started by this program or on the cluster at RAY_ADDRESS, and the detection of its loss.

launch.py never starts Ray in its own process. A child process in its own session does (`Runtime`): the signal handlers
of launch.py stay in place, a crash of Ray ends only the child, and killing the session leaves no process behind.
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
from contextlib import nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import cloudpickle

from sousaphone.errors import UserError
from sousaphone.hardware import cluster_address, count_cpus, memory_bytes
from sousaphone.signals import STOPS, starts_process, stops_deferred
from sousaphone.sweep.ray_session import end_session, make_session, session_environment

# Measured: 0.7 GB for launch.py with torch, 0.5 GB for Ray's processes and driver, 0.6 to 0.9 GB for a training worker.
_LEAST_BYTES = 2_000_000_000


def _check_address(address: str) -> None:
    """Raise a UserError if nothing answers at HOST:PORT; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "/" in address:  # Ray resolves "auto" and client addresses
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS {address!r} does not answer ({error}); start the cluster, or unset RAY_ADDRESS"
        ) from error


def _check_machine() -> None:
    """Raise a UserError if Ray cannot start here; Ray itself would retry for minutes, or fail obscurely."""
    if (memory := memory_bytes()) < _LEAST_BYTES:
        raise UserError(
            f"{memory / 1e6:,.0f} MB of memory are too little for Ray and a trial; give this machine or container "
            f"at least {_LEAST_BYTES / 1e6:,.0f} MB"
        )
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=2).close()
    except OSError as error:
        raise UserError(
            f"Ray needs the loopback interface, but 127.0.0.1 does not answer ({error}); bring it up, for example with "
            "`ip link set lo up`"
        ) from error


class StoppedRayError(RuntimeError):
    """Ray stopped; the trials' own checkpoints are whole."""


class Runtime:
    """Ray, with its driver in a child process that calls functions on request.

    As a context manager it leaves no process behind, and no file of Ray outside the run unless `keep_logs` was called.
    Ctrl-C in a terminal does not reach the child's session.
    """

    def __init__(self, dashboard: bool, device: str) -> None:
        self._dashboard, self._device = dashboard, device
        self._process: Any = None
        self._pipe: Connection
        self._vital: list[psutil.Process] = []
        self._address = ""
        self._session: Path | None = None  # of Ray started here; None on a cluster
        self._kept = False

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        with stops_deferred():
            self.kill()
            if self._session is not None:
                end_session(self._session, self._kept)

    def keep_logs(self) -> Path | None:
        """Keep the directory of Ray's logs after the end, and return it; a cluster keeps its own (None)."""
        self._kept = True
        return self._session

    def start(self) -> None:
        """Start Ray unless it is started, without waiting (see `wait`); raise a UserError if it cannot start here."""
        if self._process is not None:
            return
        address = cluster_address()
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            _check_machine()
            self._session = self._session or make_session()
            # Trials pass no objects through Ray's store, so it can be small.
            options |= {"include_dashboard": self._dashboard, "dashboard_host": "127.0.0.1"}
            options |= {"num_cpus": count_cpus(), "object_store_memory": 100 * 2**20}
            options |= {"resources": {"mps": 1.0} if self._device == "mps" else None}
        else:
            _check_address(address)
            options |= {"address": address}
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, options, self._dashboard, sys.stdout.encoding, self._session)
        environment = session_environment(self._session) if self._session else nullcontext()
        with starts_process(), environment:  # signals are blocked in the child until it has its own session
            self._process = context.Process(target=_serve, args=arguments)
            self._process.start()
        theirs.close()

    def wait(self) -> None:
        """Wait until Ray is up; raise a UserError if it cannot start."""
        if self._address:
            return
        try:
            self._address = self._answer()
        except (StoppedRayError, UserError) as error:
            message = f"Ray cannot start on this machine: {error}" if isinstance(error, StoppedRayError) else str(error)
            logs = self.keep_logs()
            raise UserError(f"{message}; Ray's logs: {logs}" if logs else message) from error
        self._vital = [p for p in psutil.Process(self._process.pid).children() if p.name() in ("gcs_server", "raylet")]

    def restart(self) -> None:
        """Kill Ray and start it again; raise a StoppedRayError if it does not start."""
        self.kill()
        try:
            self.start()
            self.wait()
        except UserError as error:
            raise StoppedRayError(str(error)) from error

    def call(self, function: Callable[..., Any], *arguments: Any, check: Callable[[], None] | None = None) -> Any:
        """Call a function in the child; return its value or raise its error, or a StoppedRayError if Ray ended.

        `check` is called every second while waiting; an exception of it ends the wait.
        """
        with suppress(BrokenPipeError):  # the child has ended, which `_answer` finds
            self._pipe.send_bytes(cloudpickle.dumps((function, arguments)))
        return self._answer(check)

    def _answer(self, check: Callable[[], None] | None = None) -> Any:
        while not self._pipe.poll(1.0):
            if check:
                check()
            self._check()
        try:
            returned, value = cloudpickle.loads(self._pipe.recv_bytes())
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            end = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            returned, value = False, StoppedRayError(f"the process that drives Ray ended with {end}")
        if returned:
            return value
        if check:
            check()
        self._check()  # if Ray's own processes have ended, that is the cause of any other error
        raise value

    def _check(self) -> None:
        """Raise a StoppedRayError if Ray's processes have ended; Ray itself takes a minute to notice.

        Of a cluster only the address can be checked from here, three times because it may be slow.
        """
        if self._vital:
            alive = all(map(_is_running, self._vital))
        else:
            alive = not self._address or any(_answers(self._address) for _ in range(3))
        if not alive:
            raise StoppedRayError("Ray's own processes were killed")

    def interrupt(self, seconds: float) -> None:
        """Raise KeyboardInterrupt in the child's function, and wait at most so long for its end."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        self._pipe.poll(seconds)

    def kill(self) -> None:
        """Kill the child and all processes it has started, and wait for their end; a cluster loses its driver."""
        if self._process is None:
            return
        self._process.kill()
        self._process.join()
        _kill_session(self._process.pid)
        self._pipe.close()
        self._process, self._address, self._vital = None, "", []


def _serve(
    pipe: Connection, options: Mapping[str, Any], dashboard: bool, encoding: str, directory: Path | None
) -> None:
    """Run the child process: start Ray, then call the functions that the parent sends."""
    os.setsid()
    threading.Thread(target=_follow_parent, args=(directory,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # discards signals pending since the start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    sys.stdout.reconfigure(encoding=encoding, errors="replace", line_buffering=True)  # type: ignore[union-attr]
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for Ray's workers

    def answer(function: Callable[..., Any], *arguments: Any) -> None:
        try:
            value = True, function(*arguments)
        except (UserError, StoppedRayError) as error:
            value = False, error
        pipe.send_bytes(cloudpickle.dumps(value))

    answer(start_ray, options, dashboard)
    import sousaphone.sweep.experiment  # noqa: F401  needed by the first call; launch.py is still planning

    with suppress(EOFError, KeyboardInterrupt):
        while True:
            function, arguments = cloudpickle.loads(pipe.recv_bytes())
            answer(function, *arguments)


def start_ray(options: Mapping[str, Any], dashboard: bool) -> str:
    """Call `ray.init(**options)` and return Ray's address; raise a UserError if Ray cannot start."""
    address = options.get("address")
    try:
        context = ray.init(**options)
    except Exception as error:  # Ray raises errors of any class, plain Exception among them
        message = str(error).partition("\n")[0] or type(error).__name__
        if address is None:
            raise UserError(f"Ray cannot start on this machine: {message}") from error
        raise UserError(
            f"RAY_ADDRESS {address!r} takes no connection ({message}); give HOST:PORT of a cluster with the same Ray "
            "and Python, and if it requires a token, set RAY_AUTH_MODE=token"
        ) from error
    # A failed trial's traceback is in its record and in Ray's error.txt; the terminal shows one line of it.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if dashboard and context.dashboard_url:
        token = os.environ.get("RAY_AUTH_TOKEN_PATH")
        print(
            f"dashboard: http://{context.dashboard_url}" + (f", which asks for the token in {token}" if token else "")
        )
    return str(ray.get_runtime_context().gcs_address)


def _follow_parent(directory: Path | None) -> None:
    """Kill this session and remove Ray's directory as soon as launch.py has ended, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    _kill_session(os.getpid())
    if directory is not None:
        end_session(directory, keep_logs=False)
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_session(session: int) -> None:
    """Kill all other processes of a session and wait for their end."""
    while members := [p for p in psutil.process_iter() if p.pid != os.getpid() and _session(p) == session]:
        for process in members:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def _session(process: psutil.Process) -> int | None:
    """Return the session of a process; None if it has ended, even if its parent has not waited for it."""
    try:
        return os.getsid(process.pid) if _is_running(process) else None
    except OSError:
        return None


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _answers(address: str) -> bool:
    with suppress(UserError):
        _check_address(address)
        return True
    return False
