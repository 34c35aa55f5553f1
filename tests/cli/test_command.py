"""The preparation of the process by every command line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sousaphone.cli import command
from sousaphone.cli.command import prepare_process, run_command

ROOT = Path(__file__).resolve().parents[2]
# Fails like a torchaudio built for another torch.
BROKEN = "raise OSError('Could not load this library: libtorchaudio.so')"
NEEDS_TORCHAUDIO = [
    ["launch.py", "--plan"],
    pytest.param(["-m", "sousaphone.data", "info", "."], marks=pytest.mark.slow),
    pytest.param(["-m", "sousaphone.weights", "verify"], marks=pytest.mark.slow),
    pytest.param(["-m", "scripts.pretrain_nano"], marks=pytest.mark.slow),
]
NEEDS_NONE = [["launch.py", "--help"], ["-m", "sousaphone.weights", "list"], ["-m", "analysis", "--help"]]


@pytest.fixture
def broken_torchaudio(tmp_path: Path) -> dict[str, str]:
    """The environment of a process in which torchaudio does not load."""
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio/__init__.py").write_text(BROKEN)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", NEEDS_TORCHAUDIO, ids=" ".join)
def test_incompatible_torchaudio_is_one_line_with_the_remedy(
    arguments: list[str], broken_torchaudio: dict[str, str]
) -> None:
    done = run(arguments, broken_torchaudio)
    (line,) = done.stderr.splitlines()
    assert done.returncode == command.EXIT_INPUT
    assert line.endswith(command.TORCHAUDIO_REMEDY)


@pytest.mark.parametrize("arguments", NEEDS_NONE, ids=" ".join)
def test_commands_without_torchaudio_work_without_it(arguments: list[str], broken_torchaudio: dict[str, str]) -> None:
    assert run(arguments, broken_torchaudio).returncode == command.EXIT_OK


def test_refusals_of_the_system_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        return (Path("x") / ("y" * 300)).stat().st_size

    assert run_command("prog", fails) == command.EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "yyy" in line


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&-", "<&-"])
def test_full_or_closed_streams_end_without_a_traceback(redirection: str) -> None:
    program = (
        "import sys; from sousaphone.cli.command import prepare_process, run_command; prepare_process(); "
        "sys.exit(run_command('prog', lambda: print('x') or 0))"
    )
    shell = f'exec "$0" -c "$1" {redirection}'
    done = subprocess.run(["sh", "-c", shell, sys.executable, program], cwd=ROOT, capture_output=True, text=True)
    full = redirection == ">/dev/full"
    assert done.returncode == (command.EXIT_INPUT if full else command.EXIT_OK)
    assert len(done.stderr.splitlines()) == full


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_unsupported_character_is_replaced_on_the_terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    prepare_process()
    print("2 × 3 → 6")
    assert written.getvalue().decode(encoding).strip().endswith("? 6")


def test_user_without_name_and_home_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", fail)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    prepare_process()
    assert Path.home() == Path("/")
    assert os.environ["USER"] == str(os.getuid())
