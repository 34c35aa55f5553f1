"""The device, cores and memory of this machine, within the limits of its container."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from sousaphone.errors import UserError

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
NUMA_NODES = Path("/sys/devices/system/node")


def pick_device(requested: str = "auto", *, cluster: bool = False) -> str:
    """Return cuda, mps or cpu; `auto` selects the best available device.

    Raises a UserError if the device is not available, or if torch cannot use an NVIDIA GPU that is not hidden. On a
    `cluster`, a named device is not checked, since another machine may have it.
    """
    if requested == "cpu" or (requested == "auto" and not has_gpu_driver()):
        return "cpu"
    if requested != "auto":
        if not is_here(requested) and not cluster:
            raise UserError(f"--device {requested}: torch finds none on this machine; leave --device out, or give cpu")
        return requested
    if is_here("cuda"):
        return "cuda"
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and any(Path("/proc/driver/nvidia/gpus").glob("*")):
        raise UserError(
            f"this machine has an NVIDIA GPU that torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use; "
            "update its driver to one for that CUDA version, or set CUDA_VISIBLE_DEVICES= to use the CPU"
        )
    return "mps" if is_here("mps") else "cpu"


def cluster_address() -> str | None:
    """Return the address of the Ray cluster to use, from RAY_ADDRESS; None for this machine."""
    return os.environ.get("RAY_ADDRESS") or None


def pick_precision(device: str, scale: str) -> str:
    """Return the faster precision of frozen layers on a device: bfloat16 on CUDA, and for full-size models on a CPU
    that multiplies it in hardware, else float32."""
    return "bfloat16" if device == "cuda" or (device == "cpu" and scale == "base" and has_bfloat16()) else "float32"


def has_bfloat16() -> bool:
    """Whether this machine's CPU has instructions that multiply bfloat16 matrices (AMX, AVX512-BF16)."""
    import torch

    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def has_gpu_driver(root: Path = Path("/")) -> bool:
    """Whether a GPU driver may be installed. On Linux its files show it without the import of torch, which takes
    seconds; elsewhere the answer is always True."""
    files = ("dev/nvidia*", "dev/nvhost*", "dev/nvmap", "dev/dxg", "dev/kfd", "proc/driver/nvidia")
    return sys.platform != "linux" or any(any(root.glob(file)) for file in files)


def device_name(device: str) -> str:
    """The product name of the device, such as 'NVIDIA H100'."""
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
    """The number of cores that this process may use, by its affinity and its control groups' quotas, rounded down."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota = _numbers(group / "cpu.max")
        quota = quota or _numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0] > 0:  # -1 in version 1 is no quota
            cores = min(cores, max(1, quota[0] // quota[1]))
    return cores


def count_numa_nodes() -> int:
    """The number of NUMA nodes with cores that this process may use, at least 1: memory of another node is slower."""
    if not hasattr(os, "sched_getaffinity"):
        return 1
    own, nodes = os.sched_getaffinity(0), 0
    for path in NUMA_NODES.glob("node*/cpulist"):  # such as 0-15,64-79
        spans = [span.partition("-") for span in path.read_text(encoding="utf-8").strip().split(",") if span]
        nodes += any(core in own for first, _, last in spans for core in range(int(first), int(last or first) + 1))
    return max(1, nodes)


def memory_bytes() -> int:
    """The memory of this machine, or the part that the control groups allow this process to use."""
    limits = [
        limit
        for group in _control_groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        for limit in _numbers(group / name)
    ]
    return min([psutil.virtual_memory().total, *limits])


def home_directory() -> Path:
    """The user's home directory; raises a UserError if it is not writable."""
    home = Path.home()
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        raise UserError(f"HOME is {home}, not a writable directory; set HOME or SOUSAPHONE_CACHE to one that is")
    return home


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control groups, of version 2 and of one controller of version 1: its own
    group and its parents up to the root of the mount. In a container often only the root exists."""
    try:
        memberships = OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for membership in memberships:  # such as 0::/user.slice (version 2) or 4:cpu,cpuacct:/docker/1f (version 1)
        _, controllers, path = membership.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def _numbers(path: Path) -> tuple[int, ...]:
    """The numbers in a control group's file; empty if the file does not exist or sets no limit ("max")."""
    try:
        return tuple(map(int, path.read_text(encoding="utf-8").split()))
    except (OSError, ValueError):
        return ()


def count_gpus(device: str) -> int:
    """The number of GPUs that torch can use; 0 for devices other than cuda."""
    if device != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def shares(have: float, amount: float) -> int:
    """How many trials that need `amount` of a resource fit into the `have` of one machine. Ray takes a GPU fraction
    from a single card: two cards fit two trials of 0.6, not three."""
    # The small addend compensates the rounding of quotients such as 1 / 0.1.
    return int(have) * int(1 / amount + 1e-9) if amount < 1 else int(have / amount + 1e-9)


def is_here(device: str) -> bool:
    """Whether this machine has a device of this kind; other machines of a cluster may differ."""
    import torch

    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[device]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute in so many threads within the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
