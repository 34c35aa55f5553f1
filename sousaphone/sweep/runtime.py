"""Ray's runtime: one of this program's own, or the cluster named by RAY_ADDRESS; what it has room for, and its loss.

And what goes on beside it: what Ctrl-C and a termination signal do, and importing torch, transformers, PEFT and Ray,
which takes seconds in every process, in less time.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import psutil
import ray

from sousaphone.config import Sweep
from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus, home_directory, memory_bytes, shares
from sousaphone.planning.options import Request
from sousaphone.planning.resources import Resources
from sousaphone.text import Announce

# Measured: 0.7 GB for the driver with torch, 0.3 GB for Ray's processes, 0.6 to 0.9 GB for a worker that trains.
_LEAST_BYTES = 2_000_000_000
_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103  # of a Unix socket's address, its end not counted
_ENDING = "the end of a Ray runtime"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Capacity:
    """What there is to run on, by machine: this one, or those of the cluster named by RAY_ADDRESS."""

    machines: tuple[Mapping[str, float], ...]
    where: str = "this machine"

    @classmethod
    def find(cls, cpus: int, gpus: int, device: str) -> Capacity:
        """
        Args:
            cpus, gpus, device: this machine's.

        Raises:
            UserError: RAY_ADDRESS does not answer.
        """
        if "RAY_ADDRESS" not in os.environ:
            return cls(({"CPU": cpus, "GPU": gpus, "mps": float(device == "mps")},))
        with ray_runtime(False, device, print):
            return cls(tuple(node["Resources"] for node in ray.nodes() if node["Alive"]), "the cluster")

    def most(self, name: str) -> float:
        """The most that one machine has of a resource; a trial never spans two."""
        return max((machine.get(name, 0.0) for machine in self.machines), default=0.0)

    def trials_at_once(self, resources: Resources, trials: int) -> int:
        """How many trials run at once."""
        fits = sum(
            min((shares(machine.get(name, 0.0), amount) for name, amount in resources.request.items()), default=trials)
            for machine in self.machines
        )
        return min(trials, fits, trials if resources.max_concurrent is None else resources.max_concurrent)

    def check(self, resources: Resources) -> None:
        """
        Raises:
            UserError: more than any machine has, or what Ray cannot give, so that no trial could ever start.
        """
        gpus = resources.gpus_per_trial
        if gpus > 1 and gpus != int(gpus):
            raise UserError(f"--gpus-per-trial {gpus:g} is neither a share of one GPU nor a number of them; give 1")
        options = {"CPU": "--cpus-per-trial", "GPU": "--gpus-per-trial"}
        for name, amount in resources.request.items():
            most = self.most(name)
            if amount <= most:
                continue
            if name not in options:
                raise UserError(
                    f"a trial on {name} asks Ray for its resource {name!r}, which {self.where} does not declare; "
                    f"""start its nodes with --resources='{{"{name}": 1}}'"""
                )
            has = f"{self.where} has {most:g}" + (" on any one node" if len(self.machines) > 1 else "")
            raise UserError(f"{options[name]} {amount:g} is too much: {has}; give {options[name]} {most:g} or less")
        if self.trials_at_once(resources, 1) < 1:
            raise UserError(f"no single node of {self.where} has all that a trial asks for, {resources.request}")


def pick_resources(request: Request, sweep: Sweep, capacity: Capacity) -> Resources:
    """The command line's resources, else the sweep's.

    Raises:
        UserError: more than there is, so that no trial could ever start.
    """
    cpus = sweep.cpus_per_trial if request.cpus_per_trial is None else request.cpus_per_trial
    gpus = sweep.gpus_per_trial if request.gpus_per_trial is None else request.gpus_per_trial
    limit = sweep.max_concurrent if request.max_concurrent is None else request.max_concurrent
    resources = Resources(cpus, gpus, limit, request.device)
    capacity.check(resources)
    return resources


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


@contextmanager
def ray_runtime(
    dashboard: bool, device: str, announce: Announce, on_loss: Callable[[], NoReturn] | None = None
) -> Iterator[Runtime]:
    """A Ray runtime of this program's own, or the cluster named by RAY_ADDRESS.

    Its processes end with the thread that starts them: this is for the main thread.

    Args:
        on_loss: see `Runtime`.
    """
    for thread in threading.enumerate():
        if thread.name == _ENDING:
            thread.join()
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        _check_machine()
        # Trials pass no objects through Ray's store, so it needs none of the memory.
        options |= {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", "object_store_memory": 100 * 2**20}
        options |= {"num_cpus": count_cpus(), "resources": {"mps": 1.0} if device == "mps" else None}
    else:
        _check_address(address)
        options |= {"address": address}

    def start() -> None:
        try:
            with _own_signals():
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
            announce(f"dashboard: http://{context.dashboard_url}")

    start()
    runtime = Runtime(start, on_loss)
    try:
        yield runtime
    finally:
        runtime.forget()
        _leave_ray()


@contextmanager
def _own_signals() -> Iterator[None]:
    """SIGTERM keeps its handler. Ray would put one that raises SystemExit wherever the main thread is; amid an import,
    that leaves a lock held for which other threads wait. A Ray that is made otherwise has its way."""
    utils: Any = getattr(ray._private, "utils", None)
    original = getattr(utils, "set_sigterm_handler", None)
    if original is None:
        yield
        return
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = original


def _leave_ray() -> None:
    """`ray.shutdown()`, but for the second that it waits for Ray's processes to end: a thread does that, since a report
    need not wait for it. The next runtime does, and the end of this program."""
    node: Any = getattr(ray._private.worker, "_global_node", None)
    if not hasattr(node, "kill_all_processes"):
        _shutdown()
        return
    kill = node.kill_all_processes

    def kill_beside(*args: Any, **options: Any) -> None:
        threading.Thread(target=kill, args=args, kwargs=options, name=_ENDING).start()

    node.kill_all_processes = kill_beside
    try:
        _shutdown()  # once it is back, nothing in this process speaks to Ray any more
    finally:
        del node.kill_all_processes


def _shutdown() -> None:
    """`ray.shutdown()`, and no garbage is collected meanwhile: where another thread's collection frees a reference of
    Ray's while Ray's core goes down, the core ends the whole process, before its report."""
    with garbage_left():
        ray.shutdown()


class Runtime:
    """A Ray runtime that is up; a thread looks whether its processes live.

    Attributes:
        on_loss: ends this process; called, in whichever thread sees it first, when Ray's own processes are gone. Left
            to itself Ray waits a minute and then ends this process from within, before anything could be said.
    """

    def __init__(self, start: Callable[[], None], on_loss: Callable[[], NoReturn] | None) -> None:
        self._start, self.on_loss = start, on_loss
        self._watch()

    def _watch(self) -> None:
        self._vital = [child for child in psutil.Process().children() if child.name() in ("gcs_server", "raylet")]
        self._address = ray.get_runtime_context().gcs_address
        self._done, self._first = threading.Event(), threading.Lock()
        self._family: list[psutil.Process] = []
        if self.on_loss is not None:
            threading.Thread(target=self._run, daemon=True).start()

    def restart(self) -> None:
        """Without any worker of before."""
        self.shut_down()
        self._start()
        self._watch()

    def shut_down(self) -> None:
        """With all workers; they are gone when this returns."""
        self.forget()
        _shutdown()

    def forget(self) -> None:
        """Look no longer: from now on its processes may go."""
        self._done.set()

    def _run(self) -> None:
        self.look()
        while not self._done.wait(2.0):
            self.look()

    def look(self) -> None:
        """Leave if they do not; of a cluster only its address can be seen from here, and it may be slow once."""
        alive = all(map(_lives, self._vital)) if self._vital else any(_answers(self._address) for _ in range(3))
        if alive and self._vital:
            self._family = psutil.Process().children(recursive=True)
        elif not alive and self.on_loss is not None and not self._done.is_set():
            with self._first:  # never given back: who comes second waits for the process to end
                _kill(self._family)
                self.on_loss()


def kill_all() -> None:
    """All processes that this one has started, and those that they have."""
    _kill(psutil.Process().children(recursive=True))


def _kill(family: Sequence[psutil.Process]) -> None:
    """Workers and agents would linger on without their parent."""
    for process in family:
        with suppress(psutil.Error):
            process.kill()


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


@contextmanager
def garbage_left() -> Iterator[None]:
    """No garbage is collected, in whichever thread."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import without garbage collection: nothing of these libraries becomes garbage, and to look through it all again
    and again takes a sixth of the time."""
    known = len(sys.modules)
    with garbage_left():
        try:
            yield
        finally:
            # Else it is a worker's later trial, and what the one before left is not to be kept.
            if len(sys.modules) > known:
                gc.freeze()


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import these in a thread while the block waits for something else; at its end all of them are there.

    What cannot be imported says so where it is imported by name. Not for modules that the block itself imports: two
    threads in one circle of imports can see half a module.
    """
    stop = threading.Event()

    def load() -> None:
        for module in modules:
            if stop.is_set():
                return
            with suppress(Exception):
                import_module(module)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
        thread.join()
    finally:  # who leaves early waits for the module at hand alone
        stop.set()
        thread.join()


@contextmanager
def signals_call(end: Callable[[str], None]) -> Iterator[None]:
    """Either of them calls `end`, with its name."""

    def handle(number: int, frame: Any) -> None:
        end(signal.Signals(number).name)

    before: list[Callable[..., Any] | int | None] = [signal.signal(name, handle) for name in _SIGNALS]
    try:
        yield
    finally:
        for name, handler in zip(_SIGNALS, before, strict=True):
            if signal.getsignal(name) is handle:  # else they are ignored by now, and stay so
                signal.signal(name, handler)


def interrupt(name: str) -> NoReturn:
    """SIGTERM as Ctrl-C."""
    raise KeyboardInterrupt(name)


def let_pass(name: str) -> None:
    """As if there had been none."""


def ignore_signals() -> None:
    """A second Ctrl-C must not cut off the tidying up after the first."""
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)
