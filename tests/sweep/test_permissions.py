"""An ordinary user gets one line about a file or directory that permissions protect."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, Launcher
from tests.sweep.test_machine import NAMELESS, SHORT, last_line, works

pytestmark = pytest.mark.slow


@pytest.fixture
def ordinary() -> list[str]:
    """The prefix of a command that makes root an ordinary user, who owns root's files."""
    if os.geteuid() != 0:
        return []
    if sys.platform != "linux" or not works(NAMELESS):
        pytest.skip("root, to whom permissions do not apply, cannot become an ordinary user here")
    return NAMELESS


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("data", 0o000),
        ("data/labels/samples.parquet", 0o000),
        ("data/splits.json", 0o000),
        ("data/audio", 0o000),
        ("data/audio/*/*.flac", 0o000),
        ("cache", 0o000),
        ("cache", 0o555),
        ("weights", 0o000),
        ("weights/ast.pt", 0o000),
        ("results", 0o000),
        ("results", 0o555),
    ],
)
def test_protected_file_is_one_line_before_anything_is_written(
    name: str, mode: int, launcher: Launcher, small_sousa: Path, ordinary: list[str]
) -> None:
    storage = launcher.storage
    shutil.copytree(small_sousa, storage / "data")
    for directory in ("cache", "weights", "results"):
        (storage / directory).mkdir()
    (storage / "weights" / "ast.pt").write_bytes(b"weights")
    protected = next(storage.glob(name))
    protected.chmod(mode)
    if os.geteuid() == 0 and name == "cache":
        os.chown(protected, 65534, 65534)  # another user's
        protected.chmod(mode | mode >> 6 | 0o700)
    options = [*launcher.options, "--data-dir", str(storage / "data"), "--storage", str(storage / "results"), *SHORT]
    if "weights" in name:
        options += ["--weights", f"ast={storage / 'weights' / 'ast.pt'}"]
    driver = launcher.start(*options, under=ordinary)
    assert driver.wait(timeout=120) == 2, launcher.log
    assert str(protected) in last_line(launcher)
    assert ("SOUSAPHONE_CACHE" in last_line(launcher)) == (name == "cache")
    protected.chmod(0o755)
    assert not (storage / "results" / "run").exists()


def test_protected_run_is_one_line_and_keeps_its_records(launcher: Launcher, ordinary: list[str]) -> None:
    run = launcher.storage / "run"
    assert launcher.start(*launcher.options, *SHORT, under=ordinary).wait(timeout=240) == 0, launcher.log
    record = launcher.record("off")
    for name, mode, code in [
        ("", 0o000, 2),
        ("", 0o555, 2),
        ("run.json", 0o000, 2),
        ("trials", 0o555, 2),
        ("trials/ast-lora-aug-off-s0", 0o555, 2),
        ("tune", 0o555, 2),
        ("report", 0o555, 1),
        ("report", 0o000, 2),  # it is read first
    ]:
        before, protected = (run / name).stat().st_mode, run / name
        protected.chmod(mode)
        assert launcher.start("--resume", under=ordinary).wait(timeout=60) == code, launcher.log
        assert str(protected) in last_line(launcher), (name, launcher.log)
        protected.chmod(before)
        assert launcher.record("off") == record
    run.chmod(0o000)
    command = [*ordinary, sys.executable, "-m", "analysis", str(run)]
    report = subprocess.run(command, cwd=ROOT, env=launcher.environment, capture_output=True, text=True, timeout=60)
    run.chmod(0o755)
    assert report.returncode == 2
    (line,) = report.stderr.splitlines()
    assert str(run) in line


def test_complete_cache_of_another_user_is_used(launcher: Launcher, ordinary: list[str]) -> None:
    assert launcher.start(*launcher.options, *SHORT, under=ordinary).wait(timeout=240) == 0, launcher.log
    cache = launcher.storage / "cache"
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    again = launcher.start(*launcher.options, *SHORT, name="again", under=ordinary)
    assert again.wait(timeout=240) == 0, launcher.log
    assert "Traceback" not in launcher.log
