"""On unusual machines and under their limits a sweep runs, or reports in one line what to do."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.conftest import Launcher

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="sets limits of Linux")]
SHORT = ["--augment", "off", "--epochs", "2"]
NAMELESS = ["unshare", "--user", "--map-user=54321"]
NO_NETWORK = ["unshare", "--map-root-user", "--net"]
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")  # of control groups' version 1


def works(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run([*command, "true"], check=False).returncode


def last_line(launcher: Launcher) -> str:
    assert "Traceback" not in launcher.log
    return launcher.log.splitlines()[-1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HOME", "not/writable"), ("RAY_TMPDIR", "not/writable"), ("RAY_TMPDIR", "long" * 25)],
)
def test_unusable_directory_is_one_line_with_the_variable(launcher: Launcher, variable: str, value: str) -> None:
    if not works(NAMELESS):
        pytest.skip("no user namespaces here")
    directory = launcher.storage / value
    directory.mkdir(parents=True)
    if "long" not in value:
        directory.chmod(0o555)
    if variable == "HOME":  # the cache is then in it
        for name in ("SOUSAPHONE_CACHE", "XDG_CACHE_HOME"):
            launcher.environment.pop(name, None)
    launcher.environment |= {"RAY_TMPDIR": "/tmp", variable: str(directory)}
    driver = launcher.start(*launcher.options, *SHORT, under=NAMELESS)
    assert driver.wait() == 2, launcher.log
    assert variable in last_line(launcher)
    assert str(directory) in last_line(launcher)
    assert not (launcher.storage / "run").exists()


def test_missing_loopback_interface_is_one_line(launcher: Launcher) -> None:
    if not works(NO_NETWORK):
        pytest.skip("no network namespaces here")
    driver = launcher.start(*launcher.options, *SHORT, under=NO_NETWORK)
    assert driver.wait() == 2, launcher.log
    assert "127.0.0.1" in last_line(launcher)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    group = MEMORY_GROUPS / f"sousaphone-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control groups of version 1 that this user may make")
    yield group
    for _ in range(100):  # helper processes of multiprocessing end a moment later
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.1)
    pytest.fail(f"{group} is still in use by {(group / 'cgroup.procs').read_text().split()}")


def limited(group: Path, size: int) -> list[str]:
    """Return a command that runs another in a control group, mounted at the root as in a container."""
    (group / "memory.limit_in_bytes").write_text(str(size))
    enter = f'echo $$ > {group}/cgroup.procs; mount --bind {group} {MEMORY_GROUPS}; exec "$@"'
    return ["unshare", "--mount", "bash", "-c", enter, "bash"]


def test_memory_shortage_while_workers_start_ends_at_most_one_trial_at_a_time(
    launcher: Launcher, memory_group: Path
) -> None:
    driver = launcher.start(*launcher.options, "--epochs", "2", under=limited(memory_group, 2_100 << 20))
    code = driver.wait()
    assert "Traceback" not in launcher.log
    assert (launcher.storage / "run/report/comparison_table.csv").is_file()
    ends = [record.status if (record := launcher.record(augment)) else "pending" for augment in ("on", "off")]
    assert set(ends) <= {"completed", "out_of_memory", "failed"}, launcher.log
    assert "completed" in ends, launcher.log
    assert code == int(set(ends) != {"completed"})


def test_too_little_memory_for_ray_is_refused(launcher: Launcher, memory_group: Path) -> None:
    driver = launcher.start(*launcher.options, *SHORT, under=limited(memory_group, 1_700 << 20))
    assert driver.wait() == 2, launcher.log
    assert "memory" in last_line(launcher)
