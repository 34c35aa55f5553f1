"""`sousaphone export` writes the best trial, or the one that is named, with the verdict of the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.report import read_run
from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from sousaphone.cli.export import main
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.directory import RunDirectory


def config(folder: Path) -> dict:
    found: dict = json.loads((folder / "config.json").read_text())
    return found


def test_best_trial_is_exported_with_the_verdict(run: RunDirectory, tmp_path: Path) -> None:
    assert main([str(run.path), "--to", str(tmp_path / "model")]) == EXIT_OK
    assert config(tmp_path / "model")["trained"]["trial"] == best_arm(run)[0].record.trial_id
    banner = read_run(run.path).banner
    assert banner is not None
    assert banner in (tmp_path / "model" / "README.md").read_text()
    assert json.loads((tmp_path / "model" / "results.json").read_text())["verdict"]["banner"] == banner


def test_options_choose_trial_and_form(run: RunDirectory, tmp_path: Path) -> None:
    other = "ast-lora-aug-off-s1"
    assert main([str(run.path), "--trial", other, "--to", str(tmp_path / "a"), "--merged"]) == EXIT_OK
    assert (config(tmp_path / "a")["trained"]["trial"], config(tmp_path / "a")["kind"]) == (other, "merged")
    assert main([str(run.path), "--ensemble", "--to", str(tmp_path / "a"), "--overwrite"]) == EXIT_OK
    assert config(tmp_path / "a")["members"] == [f"seed-{trial.config.seed}" for trial in best_arm(run)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["{run}", "--to", "{full}"], "full"),
        (["{run}", "--to", "{full}", "--overwrite"], "full"),
        (["{full}", "--to", "{new}"], "run.json"),
        (["/nowhere", "--to", "{new}"], "/nowhere"),
        (["{run}", "--trial", "x", "--to", "{new}"], "'x'"),
        (["{run}", "--to", "/proc/new"], "/proc/new"),
        (["{run}", "--weights", "/nowhere.pt", "--to", "{new}"], "/nowhere.pt"),
    ],
)
def test_wrong_input_is_one_line(
    run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    places = {"run": run.path, "full": tmp_path / "full", "new": tmp_path / "new"}
    assert main([word.format(**places) for word in arguments]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
