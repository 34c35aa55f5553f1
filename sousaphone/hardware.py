"""What this machine has: its device, its cores and its memory, a container's limits included."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from sousaphone.errors import UserError

_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def pick_device(asked: str = "auto") -> str:
    """cuda, mps or cpu; `auto` is the best that this machine has.

    A cluster's machines (RAY_ADDRESS) may have what this one has not, so there a word is taken at its word.

    Raises:
        UserError: there is no such device here, or an NVIDIA one that torch cannot use and nobody has hidden.
    """
    if asked == "cpu" or (asked == "auto" and _has_no_driver()):
        return "cpu"
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if asked != "auto":
        if not there[asked] and "RAY_ADDRESS" not in os.environ:
            raise UserError(f"--device {asked}: torch finds none on this machine; leave --device out, or give cpu")
        return asked
    if there["cuda"]:
        return "cuda"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if Path("/proc/driver/nvidia/gpus").is_dir() and any(Path("/proc/driver/nvidia/gpus").iterdir()) and not hidden:
        raise UserError(
            f"this machine has an NVIDIA device that torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use; "
            "update its driver to one for that CUDA version, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )
    return "mps" if there["mps"] else "cpu"


def _has_no_driver(root: Path = Path("/")) -> bool:
    """Whether this is a Linux machine without a GPU's driver, so that torch, which takes seconds to import, need not be
    asked."""
    traces = ("dev/nvidia*", "dev/nvhost*", "dev/nvmap", "dev/dxg", "dev/kfd", "proc/driver/nvidia")
    return sys.platform == "linux" and not any(any(root.glob(trace)) for trace in traces)


def device_name(device: str) -> str:
    """What the device calls itself, such as 'NVIDIA H100'."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({device})" if device != "cpu" else model


def count_cpus() -> int:
    """The cores this process may use: by its affinity, and by its control groups' quotas, rounded down."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota = _numbers(group / "cpu.max") or (
            *_numbers(group / "cpu.cfs_quota_us"),
            *_numbers(group / "cpu.cfs_period_us"),
        )
        if len(quota) == 2 and quota[0] > 0:  # version 1 writes -1 where there is no quota
            cores = min(cores, max(1, quota[0] // quota[1]))
    return cores


def memory_bytes() -> int:
    """This machine's memory, or what control groups let this process use of it."""
    limits = [
        limit
        for group in _control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for limit in _numbers(group / name)
    ]
    return min([psutil.virtual_memory().total, *limits])


def home_directory() -> Path:
    """The user's home directory; a UserError where it cannot be written to."""
    home = Path.home()
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        raise UserError(f"HOME is {home}, which is not a directory that can be written to; set HOME to one that is")
    return home


def _control_groups(controller: str) -> Iterator[Path]:
    """The directories of the control groups that this process is in, of version 2 and of one controller of version 1:
    its own, and each above it up to the root of the mount. In a container the root is often the only one there is."""
    try:
        memberships = _OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return
    for membership in memberships:  # 0::/user.slice of version 2, 4:cpu,cpuacct:/docker/1f of version 1
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CONTROL_GROUPS / controller if controllers else _CONTROL_GROUPS
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def _numbers(path: Path) -> tuple[int, ...]:
    """The numbers in a control group's file; none where there is no such file, or no limit ("max")."""
    try:
        return tuple(map(int, path.read_text(encoding="utf-8").split()))
    except (OSError, ValueError):
        return ()


def count_gpus(device: str) -> int:
    if device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def shares(have: float, amount: float) -> int:
    """How many trials find their amount of a resource in what a machine has of it.

    Ray takes a share of a GPU from one card: two cards have two shares of 0.6, not three.
    """
    # A hair more, for 1 / 0.1 and its like are not exact.
    return int(have) * int(1 / amount + 1e-9) if amount < 1 else int(have / amount + 1e-9)


def is_here(device: str) -> bool:
    """Whether this machine has a device of this kind; another of a cluster may."""
    import torch

    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[device]
