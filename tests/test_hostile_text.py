"""Text of any origin reaches neither a terminal nor a document as anything but text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.figures.all_figures import pictures
from analysis.report import make_files, read_run
from analysis.run_summary import Findings
from sousaphone.cli.command import EXIT_INPUT, EXIT_OK
from sousaphone.cli.report import main as report
from sousaphone.cli.runs import main as runs
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError, printable
from sousaphone.runs import schema
from sousaphone.runs.baseline_results import SCORES, Baseline, BaselineResults, InferenceTime
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord
from sousaphone.sweep.status_page import write_status
from tests.analysis.compare.test_compare_runs import experiment
from tests.analysis.run_builders import arm, record, write_predictions, write_run
from tests.conftest import write_sousa
from tests.fuzz_runs.mutations import HOSTILE_TEXT, leaves, replaced
from tests.fuzz_runs.output import check_chart, check_page, check_text

STATES = ("completed", "completed", "failed", "time_limit", "interrupted", "completed")


def texts(value: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield place and value of every text in JSON content."""
    for place in leaves(value):
        within = value
        for key in place:
            within = within[key]
        if isinstance(within, str):
            yield place, within


def replace_texts(path: Path, kind: Any) -> int:
    """Put the hostile text before every text that the schema allows to be any; return their number."""
    content, changed = json.loads(path.read_text()), 0
    for place, text in texts(content):
        candidate = replaced(content, place, f"{HOSTILE_TEXT}{text}")
        try:
            schema.parse(json.dumps(candidate), kind, "it")
        except ValueError:
            continue
        content, changed = candidate, changed + 1
    path.write_text(json.dumps(content))
    return changed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with the hostile text in every place that holds text."""
    configs = [arm(model, seed=seed) for model in ("ast", "beats") for seed in range(3)]
    records = [record(config, state, error="an error") for config, state in zip(configs, STATES, strict=True)]
    for each in records:
        each.traceback = "Traceback\n  line\nRuntimeError"
    run = write_run(tmp_path_factory.mktemp("runs") / "run", configs, records)
    write_predictions(run, records)
    for path in run.path.rglob(PREDICTIONS_NAME):
        table = pd.read_parquet(path)
        names = ["sample_id", "player", "skill_tier", "soundfont", "preset", "audio_path"]
        table.assign(**{name: HOSTILE_TEXT + table[name] for name in names}).to_parquet(path)
    baseline = Baseline("onsets", "Onsets", dict.fromkeys(SCORES, 0.3), 1.0, "k=3")
    failed = Baseline("logmel", "Log-mel", {}, 1.0, why="too few clips")
    time = InferenceTime("ast", "lora", "all-linear", 3.0)
    BaselineResults((baseline, failed), (time,), "a CPU", 2.5, "0").write(run.path)
    assert replace_texts(run.path / "run.json", schema.PLAN) > 50
    assert replace_texts(run.path / "baselines.json", BaselineResults) > 5
    for path in run.path.rglob("trial.json"):
        content = json.loads(path.read_text())
        content["history"][0][HOSTILE_TEXT] = 1.0
        content["config"][HOSTILE_TEXT] = HOSTILE_TEXT
        path.write_text(json.dumps(content))
        assert replace_texts(path, TrialRecord) > 10
    return run


@pytest.fixture(scope="module")
def found(run: RunDirectory) -> Findings:
    return read_run(run.path)


def test_text_was_read(found: Findings) -> None:
    """The other tests can fail: the text is there, without its control characters."""
    shown = printable(HOSTILE_TEXT)
    assert all(shown in str(trial.config["model"]) and trial.status in STATES for trial in found.trials)
    assert found.predictions.player.astype(str).str.startswith(shown).all()
    assert found.baseline_results is not None


def test_report_contains_it_as_text(found: Findings) -> None:
    for name, content in make_files(found, with_sounds=False).items():
        if name == "report.html":
            check_page(content.decode())
        elif not name.endswith((".png", ".parquet")):
            check_text(content.decode())
        if name == "comparison_table.csv":
            assert content.count(b"\n") == 1 + len(STATES)
        if name.endswith(".md"):
            assert "<script" not in content.decode().replace("\\<script", "")


def test_charts_contain_it_as_text(found: Findings) -> None:
    charts = [picture.chart for picture in pictures(found) if picture.chart is not None]
    assert len(charts) >= 5
    for chart in charts:
        check_chart(chart)


def test_status_page_contains_it_as_text(run: RunDirectory) -> None:
    write_status(run)
    page = run.status_page.read_text()
    check_text(page)
    assert "<script" not in page.replace("\\<script", "")
    assert page.count("\n| ") == 1 + len(STATES)


def test_terminal_shows_it_as_text(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = [arm("ast")]
    mine = write_run(tmp_path / "mine", plan, [record(plan[0], "completed")])
    files = tmp_path / "files"
    experiment(files, HOSTILE_TEXT.replace("/", ""), HOSTILE_TEXT, HOSTILE_TEXT, error=HOSTILE_TEXT, git_commit=[1])
    (files / "\x1b[2J.json").write_text("\x1b[2J")
    for other in (run.path, files):
        output = tmp_path / "output"
        assert report([str(mine.path), "--compare", str(other), "--output", str(output)]) == EXIT_OK
        check_text((output / "comparison.md").read_text())
    assert runs(["list", "--storage", str(run.path.parent)]) == EXIT_OK
    assert runs(["list", "--storage", str(tmp_path)]) == EXIT_OK
    for text in capsys.readouterr():
        check_text(text)


@pytest.mark.parametrize("place", ["trials/\x1b[2J", "report/a\nb", "\udcff.txt", "\u202etxt.exe"])
def test_file_name_with_control_characters_is_refused(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", [arm("ast")])
    path = run.path / place
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert report([str(run.path)]) == EXIT_INPUT
    error = capsys.readouterr().err
    check_text(error)
    assert error.count("\n") == 1
    path.unlink()
    assert read_run(run.path)


def test_name_of_a_run_with_control_characters_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a\x1b[2J\nb", [arm("ast")])
    assert report([str(run.path)]) == EXIT_INPUT
    assert runs(["list", "--storage", str(tmp_path)]) == EXIT_OK
    for text in capsys.readouterr():
        check_text(text)
        assert "\nb" not in text


def test_labels_of_a_data_set_are_printable(tmp_path: Path) -> None:
    players = [f"{HOSTILE_TEXT} {number}" for number in range(3)]
    root = write_sousa(tmp_path / "data", players=["a", "b", "c"], long_clips=0)
    path = root / "labels" / "samples.parquet"
    table = pd.read_parquet(path)
    names = dict(zip(("a", "b", "c"), players, strict=True))
    table["profile_id"] = table.profile_id.map(names)
    table["soundfont"] = HOSTILE_TEXT
    table["sample_id"] = HOSTILE_TEXT + table.sample_id
    table.to_parquet(path)
    keys = ("train_profile_ids", "val_profile_ids", "test_profile_ids")
    (root / "splits.json").write_text(json.dumps({key: [name] for key, name in zip(keys, players, strict=True)}))
    clips = read_dataset(root).clips
    assert clips.split.nunique() == 3
    for column in ("player", "sample_id", "soundfont"):
        assert all(printable(text) == text for text in clips[column])
    table["rudiment_slug"] = HOSTILE_TEXT
    table.to_parquet(path)
    with pytest.raises(UserError) as error:
        read_dataset(root)
    check_text(str(error.value))
    assert "\n" not in str(error.value)


def test_error_keeps_its_lines_and_no_others() -> None:
    assert str(UserError("a\nb", "c\x1b")) == "a b\nc\ufffd"
    assert printable("naïve café\u200f שלום 🥁") == "naïve café\u200f שלום 🥁"
