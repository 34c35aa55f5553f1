"""An ordinary user, without a name and a home, gets one line about a file or directory that permissions protect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sousaphone.cli.data import main as data_command
from tests.sweep.conftest import ROOT, Launcher
from tests.sweep.test_machine import NAMELESS, SHORT, works

pytestmark = pytest.mark.slow
# Commands in one process, since imports take longer than a refusal; a path has a mode during each.
COMMANDS = """
import contextlib, importlib, io, json, os, sys
from pathlib import Path

results = sys.stdout
for module, words, cache, name, mode in json.load(sys.stdin):
    os.environ["SOUSAPHONE_CACHE"] = cache
    path = Path(name)
    before = path.stat().st_mode
    if mode is not None:
        path.chmod(mode)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(output):
        code = importlib.import_module(module).main(words)
    if mode is not None:
        path.chmod(before)
    print(json.dumps([code, output.getvalue()]), file=results)
"""
PROTECTED = [
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
]


@pytest.fixture
def ordinary() -> list[str]:
    """The prefix of a command that makes root an ordinary user without a name, who owns root's files."""
    if sys.platform == "linux" and works(NAMELESS):
        return NAMELESS
    if os.geteuid() == 0:
        pytest.skip("root, to whom permissions do not apply, cannot become an ordinary user here")
    return []


def run_all(under: Sequence[str], commands: Sequence[Sequence[object]]) -> list[tuple[int, str]]:
    """Return exit code and last line of each of COMMANDS: module, arguments, cache directory, path, mode or None."""
    done = subprocess.run(
        [*under, sys.executable, "-c", COMMANDS],
        cwd=ROOT, input=json.dumps(commands), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert not any("Traceback" in output for _, output in found), found
    return [(code, output.splitlines()[-1]) for code, output in found]


def test_protected_file_is_one_line_before_anything_is_written(
    launcher: Launcher, small_sousa: Path, ordinary: list[str]
) -> None:
    commands, paths = [], []
    for number, (name, mode) in enumerate(PROTECTED):
        here = launcher.storage / str(number)
        shutil.copytree(small_sousa, here / "data")
        for directory in ("cache", "weights", "results"):
            (here / directory).mkdir()
        (here / "weights" / "ast.pt").write_bytes(b"weights")
        protected = next(here.glob(name))
        protected.chmod(mode)
        if os.geteuid() == 0 and name == "cache":
            os.chown(protected, 65534, 65534)  # another user's
            protected.chmod(mode | mode >> 6 | 0o700)
        words = [
            *launcher.options,
            *SHORT,
            "--no-baselines",
            "--no-timing",
            "--name",
            "run",
            "--data-dir",
            str(here / "data"),
        ]
        words += ["--storage", str(here / "results")]
        if "weights" in name:
            words += ["--weights", f"ast={here / 'weights' / 'ast.pt'}"]
        commands.append(("launch", words, str(here / "cache"), str(here), None))
        paths.append(protected)
    for path, (name, mode), (code, line) in zip(paths, PROTECTED, run_all(ordinary, commands), strict=True):
        assert code == 2, (name, mode, line)
        assert str(path) in line
        assert ("SOUSAPHONE_CACHE" in line) == (name == "cache")
        path.chmod(0o755)
        assert not list(launcher.storage.glob("*/results/run"))


def test_cache_of_another_user_is_used_without_a_name_and_a_home_and_a_protected_run_keeps_its_records(
    launcher: Launcher, small_sousa: Path, ordinary: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cache, home = launcher.storage / "run", launcher.storage / "cache", launcher.storage / "home"
    home.mkdir(0o555)
    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        launcher.environment.pop(name, None)
    # The last two as in a notebook and in a terminal without Unicode.
    unusual = {"HOME": str(home), "MPLBACKEND": "module://a_package_that_is_not_here", "PYTHONIOENCODING": "ascii"}
    launcher.environment |= unusual
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(cache))
    assert data_command(["cache", str(small_sousa), "--rates", "16000"]) == 0
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert launcher.start(*launcher.options, *SHORT, under=ordinary).wait() == 0, launcher.log
    assert "Traceback" not in launcher.log
    record = launcher.record("off")
    assert record is not None
    assert record.status == "completed"
    assert any((run / "report" / "plots").glob("*.png"))
    resume = ["--resume", "--name", "run", "--storage", str(launcher.storage)]
    cases = [
        ("launch", resume, "", 0o000, 2),
        ("launch", resume, "", 0o555, 2),
        ("launch", resume, "run.json", 0o000, 2),
        ("launch", resume, "trials", 0o555, 2),
        ("launch", resume, "trials/ast-lora-aug-off-s0", 0o555, 2),
        ("launch", resume, "tune", 0o555, 2),
        ("launch", resume, "report", 0o555, 1),
        ("launch", resume, "report", 0o000, 2),  # it is read first
        ("sousaphone.cli.report", [str(run)], "", 0o000, 2),
    ]
    commands = [(module, words, str(cache), str(run / name), mode) for module, words, name, mode, _ in cases]
    for case, (code, line) in zip(cases, run_all(ordinary, commands), strict=True):
        assert code == case[4], (case, line)
        assert str(run / case[2]) in line, (case, line)
    assert launcher.record("off") == record


def test_unreadable_folder_of_recordings_is_one_line(tmp_path: Path, ordinary: list[str]) -> None:
    inside = tmp_path / "takes" / "monday"
    inside.mkdir(parents=True)
    words = ["model", str(tmp_path / "takes")]
    [(code, line)] = run_all(ordinary, [("sousaphone.cli.predict", words, str(tmp_path), str(inside), 0o000)])
    assert code == 2
    assert str(inside) in line
