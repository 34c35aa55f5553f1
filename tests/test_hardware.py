"""Device, cores and memory respect the limits of this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sousaphone import hardware
from sousaphone.errors import UserError

NO_LIMIT = 9223372036854771712  # in version 1


def test_torch_is_not_imported_without_a_gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # the import fails
    monkeypatch.setattr(hardware, "has_gpu_driver", lambda: False)
    assert hardware.pick_device() == "cpu"
    assert hardware.count_gpus("cpu") == 0
    for requested, driver in (("cuda", False), ("auto", True)):
        monkeypatch.setattr(hardware, "has_gpu_driver", lambda driver=driver: driver)
        with pytest.raises(ImportError):
            hardware.pick_device(requested)


def test_named_device_is_checked_except_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "is_here", lambda device: False)
    assert hardware.pick_device("cuda", cluster=True) == "cuda"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(UserError, match="cuda"):
        hardware.pick_device("cuda")


def test_empty_address_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("", None), ("127.0.0.1:6379", "127.0.0.1:6379")):
        monkeypatch.setenv("RAY_ADDRESS", value)
        assert hardware.cluster_address() == expected


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree of control groups in which this process belongs to /user/job."""
    (tmp_path / "own").write_text("4:memory:/user/job\n1:cpu,cpuacct:/user/job\n0::/user/job\n")
    monkeypatch.setattr(hardware, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "CONTROL_GROUPS", tmp_path / "tree")
    return tmp_path / "tree"


def write(group: Path, **limits: str) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name, value in limits.items():
        (group / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.mark.parametrize("group", ["", "user", "user/job"])
@pytest.mark.parametrize(
    ("quota", "limit", "cores", "memory"),
    [("max 100000", "max", 64, None), ("150000 100000", "1048576", 1, 2**20), ("10000 100000", str(2**60), 1, None)],
)
def test_limits_of_version_2_apply_at_every_level(
    groups: Path, monkeypatch: pytest.MonkeyPatch, group: str, quota: str, limit: str, cores: int, memory: int | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    whole = hardware.memory_bytes()
    write(groups / group, cpu__max=quota, memory__max=limit)
    assert (hardware.count_cpus(), hardware.memory_bytes()) == (cores, memory or whole)


@pytest.mark.parametrize("group", ["", "user", "user/job"])
@pytest.mark.parametrize(
    ("quota", "limit", "cores", "memory"),
    [("-1", NO_LIMIT, 64, None), ("250000", 2**20, 2, 2**20), ("1000", NO_LIMIT, 1, None)],
)
def test_limits_of_version_1_apply_at_every_level(
    groups: Path, monkeypatch: pytest.MonkeyPatch, group: str, quota: str, limit: int, cores: int, memory: int | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    whole = hardware.memory_bytes()
    write(groups / "cpu" / group, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    write(groups / "memory" / group, memory__limit_in_bytes=str(limit))
    assert (hardware.count_cpus(), hardware.memory_bytes()) == (cores, memory or whole)


def test_lowest_of_nested_limits_applies(groups: Path) -> None:
    for group, limit in (("", 2**30), ("user", 2**20), ("user/job", 2**25)):
        write(groups / group, memory__max=str(limit))
    assert hardware.memory_bytes() == 2**20


def test_unwritable_home_is_an_error_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hardware.home_directory() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="missing"):
        hardware.home_directory()


@pytest.mark.skipif(sys.platform != "linux", reason="uses the device files of Linux")
@pytest.mark.parametrize("file", ["dev/nvidia0", "dev/nvidiactl", "dev/dxg", "dev/nvmap", "proc/driver/nvidia"])
def test_gpu_driver_is_detected_by_its_files(tmp_path: Path, file: str) -> None:
    assert not hardware.has_gpu_driver(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    assert not hardware.has_gpu_driver(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert hardware.has_gpu_driver(tmp_path)


@pytest.mark.parametrize(
    ("own", "nodes"), [(range(128), 2), (range(16), 1), ({15, 16}, 2), ({64, 79}, 1), (range(200, 204), 1)]
)
def test_numa_nodes_are_those_of_the_cores_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: set[int], nodes: int
) -> None:
    for name, cores in {"node0": "0-15,64-79", "node1": "16-31,80", "node2": ""}.items():
        write(tmp_path / name, cpulist=cores)
    monkeypatch.setattr(hardware, "NUMA_NODES", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(own), raising=False)
    assert hardware.count_numa_nodes() == nodes
    monkeypatch.setattr(hardware, "NUMA_NODES", tmp_path / "missing")
    assert hardware.count_numa_nodes() == 1
