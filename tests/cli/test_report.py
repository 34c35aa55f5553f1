"""Options of the report command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from sousaphone.cli.command import EXIT_INTERRUPTED
from sousaphone.cli.report import main
from sousaphone.errors import UserError
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from tests.analysis.run_builders import arm, record, write_predictions, write_run


def test_no_sounds_leaves_the_audio_out_of_the_page(
    small_sousa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.report.pictures", lambda found: [])  # four reports; figures take seconds
    plan = [arm("ast")]
    records = [record(plan[0], "completed")]
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, skill=-5.0)
    content = run.read_plan()
    content["data"]["root"] = str(small_sousa)
    run.write_plan(content)
    path = run.trial(records[0].trial_id) / PREDICTIONS_NAME
    clip = pd.read_parquet(small_sousa / "labels" / "samples.parquet").audio_path.iloc[0]
    pd.read_parquet(path).assign(audio_path=clip).to_parquet(path)
    output = tmp_path / "report"
    for options, audio in (([], True), (["--no-sounds"], False)):
        assert main([str(run.path), "--output", str(output), *options]) == 0
        assert ("<audio" in (output / "report.html").read_text()) is audio
    # Whoever wrote another run.json may have named any directory.
    (run.path / "run.json").write_text(json.dumps(content))
    for options, audio in (([], False), (["--data-dir", str(small_sousa)], True)):
        assert main([str(run.path), "--output", str(output), *options]) == 0
        assert ("<audio" in (page := (output / "report.html").read_text())) is audio
        assert ("--data-dir" in page) is not audio


@pytest.mark.parametrize("option", ["--output", "--compare"])
def test_option_for_one_run_rejects_two(tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "a"), str(tmp_path / "b"), option, str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert option in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--compare", ".", "--no-sounds"], "--no-sounds"),
        (["--compare", ".", "--data-dir", "."], "--data-dir"),
        (["--no-sounds", "--data-dir", "."], "--data-dir"),
    ],
)
def test_option_without_effect_is_refused(
    options: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), *options])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{named} has no effect with {options[0]}" in line


@pytest.mark.parametrize(
    ("option", "value"),
    [("--output", ""), ("--data-dir", ""), ("--data-dir", "nosuch"), ("--data-dir", "file"), ("--compare", "nosuch")],
)
def test_unusable_path_is_one_line_and_nothing_is_written(
    option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", [arm("ast")])
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["run", option, value])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert option in line
    assert value in line
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupted_report_is_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def write_report(run: Path, *_: object) -> None:
        begun.append(run.name)
        raise {"a": UserError("no run"), "b": KeyboardInterrupt()}[run.name]

    monkeypatch.setattr("analysis.report.write_report", write_report)
    assert main([str(tmp_path / name) for name in "abc"]) == EXIT_INTERRUPTED
    assert begun == ["a", "b"]
