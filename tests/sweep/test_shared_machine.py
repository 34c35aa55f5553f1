"""On a machine with other users, nobody else reaches the Ray of a launch, and nothing of it remains."""

from __future__ import annotations

import ipaddress
import re
import shutil
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.sweep.conftest import Launcher, environment_of, name_of

pytestmark = pytest.mark.slow
SHORT = ["--augment", "off"]
ENDLESS = ["--epochs", "100000", "--set", "patience=100000", "--trial-time-limit", "none", "--yes"]
OTHER_TOKEN = "0" * 64


@pytest.fixture
def temporary(launcher: Launcher) -> Iterator[Path]:
    """Ray's temporary directory, which is empty, with a short path; HOME is empty, and the user's own token is set."""
    home = launcher.storage / "home"
    home.mkdir()
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    launcher.environment |= {"RAY_TMPDIR": str(directory), "HOME": str(home)}
    launcher.environment |= {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": OTHER_TOKEN}
    yield directory
    shutil.rmtree(directory)


def processes_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def worker_of(driver: subprocess.Popen[str]) -> psutil.Process:
    return next(each for each in processes_of(driver) if "ImplicitFunc" in name_of(each))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contains(root: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in root.rglob("*") if path.is_file())


def listening(process: psutil.Process) -> list[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    connections = process.net_connections("inet")
    return [(ipaddress.ip_address(c.laddr.ip), c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def http_status(url: str, token: str | None) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def grpc_status(port: int, method: str, token: str | None) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = [("authorization", f"Bearer {token}")] if token else []
        try:
            channel.unary_unary(method)(b"", metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def test_ray_of_a_launch_needs_its_own_token_on_the_loopback_and_only_a_failed_launch_keeps_logs(
    launcher: Launcher, temporary: Path
) -> None:
    failing = launcher.start(*launcher.options, *SHORT, *ENDLESS, "--dashboard")
    launcher.wait_until(lambda: launcher.epochs("off") >= 1, failing)
    worker = worker_of(failing)
    worker.suspend()  # it would take the time of the other launch
    (kept,) = temporary.iterdir()
    token = check_access(failing, kept, launcher.log)

    other = launcher.start(*launcher.options, *SHORT, "--epochs", "1", name="other")
    launcher.wait_until(lambda: len(list(temporary.iterdir())) == 2, other)
    assert other.wait() == 0, launcher.log
    assert list(temporary.iterdir()) == [kept]
    assert failing.poll() is None, launcher.log

    worker.kill()
    assert failing.wait() == 1, launcher.log
    assert str(kept) in launcher.log
    assert any(kept.rglob("raylet.out"))
    assert not any(path.is_file() for path in kept.iterdir())  # no token
    assert not contains(launcher.storage, token)
    assert not (launcher.storage / "home" / ".ray").exists()


def check_access(driver: subprocess.Popen[str], directory: Path, log: str) -> str:
    """Check who reaches the Ray of a launch, and return its token."""
    (file,) = (path for path in directory.iterdir() if path.is_file())
    token = file.read_text()
    assert (mode(directory), mode(file)) == (0o700, 0o600)
    assert len(token) >= 32

    listeners = {process.name(): listening(process) for process in processes_of(driver)}
    assert {"gcs_server", "raylet"} <= {name for name, found in listeners.items() if found}
    assert all(is_loopback(address) for found in listeners.values() for address, _ in found), listeners
    assert not any(token in " ".join(process.cmdline()) for process in processes_of(driver))
    assert not any(token in environment_of(process).values() for process in processes_of(driver))

    ((_, port),) = listeners["gcs_server"]
    dashboard = re.findall(r"dashboard: (http://127\.0\.0\.1:\d+)", log)[0]
    with urllib.request.urlopen(dashboard, timeout=60) as page:  # which asks for the token
        assert b"Ray" in page.read()
    jobs = f"{dashboard}/api/jobs/"
    for wrong in (None, OTHER_TOKEN):
        assert http_status(jobs, wrong) in (401, 403)
        assert grpc_status(port, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", wrong) == "UNAUTHENTICATED"
    assert http_status(jobs, token) == 200
    assert grpc_status(port, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo", token) == "OK"
    return token
