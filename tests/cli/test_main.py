"""`sousaphone COMMAND` is every command line of the project; each answers to both of its names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sousaphone.cli.command import EXIT_INPUT
from sousaphone.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
BESIDE = {"sweep": ["launch.py"], "report": ["-m", "analysis"]}
BESIDE |= {"data": ["-m", "sousaphone.data"], "weights": ["-m", "sousaphone.weights"]}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in (*BESIDE, "runs"))


@pytest.mark.parametrize("arguments", [[], ["fly"], ["data"], ["runs", "fly"]])
def test_a_wrong_command_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sousaphone")


@pytest.mark.parametrize("command", BESIDE)
def test_the_help_of_a_command_is_that_of_its_other_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    ours = capsys.readouterr().out
    other = [sys.executable, *BESIDE[command], "--help"]
    theirs = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(ours.splitlines()) == pytest.approx(len(theirs.splitlines()), abs=2)
    assert ours.startswith(f"usage: sousaphone {command}")
