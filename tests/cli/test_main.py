"""`sousaphone COMMAND` runs every command line of the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sousaphone.cli.command import EXIT_INPUT, EXIT_INTERRUPTED
from sousaphone.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
OTHER_NAMES = {"sweep": ["launch.py"], "report": ["-m", "analysis"]}
OTHER_NAMES |= {"data": ["-m", "sousaphone.data"], "weights": ["-m", "sousaphone.weights"]}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*OTHER_NAMES, "runs", "export", "predict", "evaluate"))


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly"], ["data"], ["runs", "fly"]),
        # '' would be the current directory.
        *(
            ["report", ""],
            ["export", "run", "--to", ""],
            ["data", "check", ""],
            ["data", "preview", "x", "--output", ""],
        ),
        *(["predict", "model", ""], ["predict", "model", "file", "--output="], ["evaluate", "model", ""]),
    ],
)
def test_wrong_command_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sousaphone")


@pytest.mark.parametrize("command", OTHER_NAMES)
def test_help_of_a_command_is_that_of_its_other_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    ours = capsys.readouterr().out
    other = [sys.executable, *OTHER_NAMES[command], "--help"]
    theirs = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(ours.splitlines()) == pytest.approx(len(theirs.splitlines()), abs=2)
    assert ours.startswith(f"usage: sousaphone {command}")


def test_stop_during_imports_is_one_line() -> None:
    code = (
        "import importlib, signal, sys; from sousaphone.cli import main\n"
        "importlib.import_module = lambda name: signal.raise_signal(signal.SIGTERM)\n"
        "sys.argv = ['sousaphone', 'sweep']\n"
        "assert 'argparse' not in sys.modules\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_INTERRUPTED
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
