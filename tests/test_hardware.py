"""Device, cores and memory are what this process may really use, whatever limits it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sousaphone import hardware
from sousaphone.errors import UserError

NO_LIMIT = 9223372036854771712  # as version 1 writes it


def test_where_no_gpu_has_a_driver_torch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    monkeypatch.setattr(hardware, "_has_no_driver", lambda: True)
    assert hardware.pick_device() == "cpu"
    assert hardware.count_gpus("cpu") == 0
    for asked, without in (("cuda", True), ("auto", False)):
        monkeypatch.setattr(hardware, "_has_no_driver", lambda without=without: without)
        with pytest.raises(ImportError):
            hardware.pick_device(asked)


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups of a machine: the tree is empty, and this process is in /user/job of it."""
    (tmp_path / "own").write_text("4:memory:/user/job\n1:cpu,cpuacct:/user/job\n0::/user/job\n")
    monkeypatch.setattr(hardware, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(hardware, "_CONTROL_GROUPS", tmp_path / "tree")
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
def test_limits_of_version_2_count_wherever_above_the_process_they_stand(
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
def test_limits_of_version_1_count_as_those_of_version_2(
    groups: Path, monkeypatch: pytest.MonkeyPatch, group: str, quota: str, limit: int, cores: int, memory: int | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(64)), raising=False)
    whole = hardware.memory_bytes()
    write(groups / "cpu" / group, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    write(groups / "memory" / group, memory__limit_in_bytes=str(limit))
    assert (hardware.count_cpus(), hardware.memory_bytes()) == (cores, memory or whole)


def test_the_tightest_of_nested_limits_counts(groups: Path) -> None:
    for group, limit in (("", 2**30), ("user", 2**20), ("user/job", 2**25)):
        write(groups / group, memory__max=str(limit))
    assert hardware.memory_bytes() == 2**20


def test_a_home_that_cannot_be_written_to_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hardware.home_directory() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="missing"):
        hardware.home_directory()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux's device files")
@pytest.mark.parametrize("trace", ["dev/nvidia0", "dev/nvidiactl", "dev/dxg", "dev/nvmap", "proc/driver/nvidia"])
def test_a_trace_of_a_driver_is_seen(tmp_path: Path, trace: str) -> None:
    assert hardware._has_no_driver(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/null").touch()
    assert hardware._has_no_driver(tmp_path)
    (tmp_path / trace).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / trace).touch()
    assert not hardware._has_no_driver(tmp_path)
