"""Comparing a run with another run or with the files of an earlier sweep."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.compare.compare_runs import HEAD, Comparison, comparison
from analysis.report import read_run
from analysis.stats.statistics import tango_interval
from analysis.write.blocks import Items, Table
from analysis.write.exports import trial_json
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord
from sousaphone.scores import mean_interval
from tests.analysis.run_builders import arm, made, record, trial_id, write_predictions, write_run

ZERO = {"trainable_params": 958_464, "total_params": 86_219_560, "test_acc": 0.0, "test_f1_macro": 0.0}


def experiment(
    directory: Path,
    name: str,
    model: str = "ast",
    status: str = "completed",
    metrics: Mapping[str, Any] | None = None,
    **values: Any,
) -> None:
    """Write a file in the format of the earlier sweep."""
    content = {
        "config": {"model": model, "strategy": "lora", "augmentation": True, "data": "tiny", "max_epochs": 5},
        "metrics": metrics or {},
        "efficiency": {"training_time_seconds": 10.4} if status != "running" else {},
        "status": status,
        "error": "Training failed with return code 1" if status == "failed" else None,
        "timestamp": "2026-02-01T10:25:23.173343",
        "git_commit": "32aa28bf2d0014485efc934670bee12f48957f5d",
        "experiment_id": name,
        **values,
    }
    (made(directory) / f"{name}.json").write_text(json.dumps(content))


def two_arms(path: Path, seeds: int = 1, skill: float | None = None, **values: Any) -> RunDirectory:
    """Write a completed run of AST and BEATs with its predictions."""
    plan = [arm(model, seed=seed, **values) for model in ("ast", "beats") for seed in range(seeds)]
    records = [record(config, "completed") for config in plan]
    run = write_run(path, plan, records)
    write_predictions(run, records, skill=skill)
    return run


def against(run: RunDirectory, other: Path) -> Comparison:
    return comparison(read_run(run.path), other)


def cell(found: Comparison, column: str, arm_name: str = "AST, lora, augmented") -> str:
    (row,) = [row for row in found.rows if row[0] == arm_name]
    return row[HEAD.index(column)]


def answers(run: RunDirectory, config: Mapping[str, Any]) -> pd.DataFrame:
    table = pd.read_parquet(run.trial(trial_id(dict(config))) / PREDICTIONS_NAME)
    predicted = table[[f"logit_{slug}" for slug in SLUGS]].to_numpy().argmax(1)
    return table.assign(correct=np.array(SLUGS)[predicted] == table.rudiment)


def test_shortcomings_of_an_earlier_sweep_are_listed(tmp_path: Path) -> None:
    files = tmp_path / "earlier"
    for number in range(3):
        experiment(files, f"ast_{number}", metrics={**ZERO, "trainable_params": 663_984 + number})
    experiment(files, "beats_0", "beats", metrics=ZERO)
    experiment(files, "beats_1", "beats", metrics={**ZERO, "test_acc": 1.0, "test_f1_macro": 1.0})
    experiment(files, "htsat_0", "htsat", "failed", git_commit="7c5730ac764efe8b2003ac5685eea8e88a8208db")
    experiment(files, "htsat_1", "htsat", "running", timestamp="2026-02-01T17:54:54.589034")
    found = against(two_arms(tmp_path / "run"), files)
    for line, parts in zip(
        found.lacks,
        (
            ("1 of 7", "Training failed with return code 1 (1)"),
            ("1 is", "running", "2026-02-01 17:54:54"),
            ("4 of 5", "test accuracy", "0.0", "chance"),
            ("1 of 5", "1.0"),
            ("no ", "validation metric"),
            ("7 experiments", "3 configurations", "3 were run 2 to 3 times"),
            ("trainable parameters", "AST, lora, augmented: 663,984 and 663,985 and 663,986"),
            ("2 commits: 32aa28bf2d (6), 7c5730ac76 (1)",),
            ("seed", "learning rate", "weights", "data fingerprint", "predictions"),
        ),
        strict=True,
    ):
        for part in parts:
            assert part in line
    assert found.there.state == "5 completed, 1 failed, 1 running"
    assert cell(found, "there") == "3 completed"
    assert cell(found, "validation accuracy") == "none: no validation metric there"
    assert cell(found, "test accuracy").startswith("none: 0.0% there")
    assert "epochs: 3 here, 5 there (all arms)" in found.changed
    assert any(line.startswith("AST: 600,000 parameters here, 86,219,560 there") for line in found.changed)
    assert found.alone == ["only there: HTS-AT (CLAP), lora, augmented"]


def test_trials_written_as_files_can_be_compared(tmp_path: Path) -> None:
    run = two_arms(tmp_path / "run", skill=3.0)
    other = read_run(two_arms(tmp_path / "other", skill=2.0, epochs=2).path)
    for trial in other.trials:
        (made(tmp_path / "files") / f"{trial.trial_id}.json").write_bytes(trial_json(trial))
    found = against(run, tmp_path / "files")
    mine = read_run(run.path).trials[0]
    difference = 100 * (mine.best["val_acc"] - other.trials[0].best["val_acc"])
    assert cell(found, "validation accuracy").startswith(f"{difference:+.1f} points".replace("-", "−"))
    assert cell(found, "test accuracy").endswith("no interval: no predictions there")
    assert not any("validation metric" in line for line in found.lacks)


def test_damaged_files_are_reported_and_left_out(tmp_path: Path) -> None:
    files = tmp_path / "earlier"
    experiment(files, "good", metrics=ZERO)
    (files / "torn.json").write_text('{"config": {"model": "as')
    (files / "summary.json").write_text("[1, 2]")
    (files / "bytes.json").write_bytes(b"\xff\xfe\x00")
    experiment(files, "odd", config=["ast"])
    found = against(two_arms(tmp_path / "run"), files)
    assert found.there.state == "1 completed"
    (remark,) = found.there.remarks
    assert remark.startswith("4 files ")
    assert all(name in remark for name in ("bytes.json (", "odd.json (", "summary.json (", "torn.json ("))
    assert remark in found.lacks


def test_test_difference_is_the_mean_over_players_with_its_interval(tmp_path: Path) -> None:
    run, other = two_arms(tmp_path / "run", seeds=2, skill=3.2), two_arms(tmp_path / "other", seeds=2, skill=1.8)
    found = against(run, other.path)
    by_player, by_clip = [], []
    for config in (arm("ast"), arm("ast", seed=1)):
        first, second = (answers(side, config) for side in (run, other))
        by_player.append(first.groupby("player").correct.mean() - second.groupby("player").correct.mean())
        by_clip.append(first.correct.astype(float) - second.correct)
    mean, low, high = (100 * value for value in mean_interval(list((by_player[0] + by_player[1]) / 2)))
    each = (by_clip[0] + by_clip[1]) / 2
    over_clips = tango_interval(each.clip(lower=0).sum(), -each.clip(upper=0).sum(), len(each))
    low, high = min(low, 100 * over_clips[0]), max(high, 100 * over_clips[1])
    assert cell(found, "test accuracy") == (
        f"+{mean:.1f} points (95 %: {low:+.1f} to {high:+.1f}; 5 players, 200 clips)".replace("-", "−")
    )
    assert found.changed == []
    # Swapping the sides changes the sign.
    assert cell(against(other, run.path), "test accuracy").startswith(f"−{mean:.1f} points")


def test_equal_runs_have_no_difference(tmp_path: Path) -> None:
    found = against(two_arms(tmp_path / "run"), two_arms(tmp_path / "twin").path)
    assert cell(found, "test accuracy") == "0.0 points (95 %: −1.9 to +1.9; 5 players, 200 clips)"
    assert cell(found, "validation macro F1").startswith("0.000 (")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.assign(sample_id="x" + table.sample_id), "none: .*different test clips"),
        (lambda table: table.assign(duration_sec=table.duration_sec + 1), "none: .*different test clips"),
        (lambda table: table[table.player == "player00"].reset_index(drop=True), "40 clips; no interval: .*one player"),
        (lambda table: table.drop(columns="audio_path"), r"5 players, 200 clips\)"),
        (lambda table: table.iloc[:100], r"5 players, 100 clips\)"),
    ],
    ids=["other names", "other lengths", "one player", "no audio_path", "half"],
)
def test_only_the_same_clips_are_compared(tmp_path: Path, change: Any, expected: str) -> None:
    run, other = two_arms(tmp_path / "run"), two_arms(tmp_path / "other", skill=1.5)
    for path in other.path.rglob(PREDICTIONS_NAME):
        change(pd.read_parquet(path)).to_parquet(path)
    assert re.search(f"{expected}$", cell(against(run, other.path), "test accuracy"))


def test_clips_of_data_without_tempo_are_compared(tmp_path: Path) -> None:
    run, other = two_arms(tmp_path / "run"), two_arms(tmp_path / "other", skill=1.5)
    for path in (*run.path.rglob(PREDICTIONS_NAME), *other.path.rglob(PREDICTIONS_NAME)):
        pd.read_parquet(path).assign(tempo_bpm=np.nan, soundfont=None).to_parquet(path)
    assert cell(against(run, other.path), "test accuracy").endswith("5 players, 200 clips)")


def test_missing_predictions_or_results_are_reported(tmp_path: Path) -> None:
    run, other = two_arms(tmp_path / "run"), two_arms(tmp_path / "other")
    for path in other.path.rglob(PREDICTIONS_NAME):
        path.unlink()
    assert "no predictions there" in cell(against(run, other.path), "test accuracy")
    half = two_arms(tmp_path / "half")
    next(half.path.rglob(f"ast*/{PREDICTIONS_NAME}")).unlink()
    assert "no predictions there" in cell(against(run, half.path), "test accuracy")
    assert "no predictions here" in cell(against(half, run.path), "test accuracy")
    assert "5 players" in cell(against(half, run.path), "test accuracy", "BEATs, lora, augmented")
    plan = [arm("ast")]
    unfinished = write_run(tmp_path / "unfinished", plan, [record(plan[0], "interrupted")])
    for column in HEAD[3:]:
        assert cell(against(run, unfinished.path), column) == "none: no finished experiment there"


def test_changes_between_two_runs_are_listed_with_their_arms(tmp_path: Path) -> None:
    run, other = two_arms(tmp_path / "run"), two_arms(tmp_path / "other", epochs=5, data_dir="/elsewhere")
    plan = other.read_plan()
    plan["trials"][1]["learning_rate"] = 0.5
    plan["data"]["fingerprint"] = "another"
    plan["weights"] = {"ast": "w" * 64}
    plan["provenance"].update(git_commit="c" * 40, git_dirty=True, versions={"ray": "2.61.0"})
    other.write_plan(plan)
    mine = run.read_plan()
    mine["weights"] = {"ast": "v" * 64}
    run.write_plan(mine)
    changed = against(run, other.path).changed
    assert [line for line in changed if line.startswith("epochs")] == ["epochs: 3 here, 5 there (all arms)"]
    assert "learning_rate: 0.001 here, 0.5 there (BEATs, lora, augmented)" in changed
    assert any(line.startswith("data: a1b2c3d4e5f6 here") and "another there" in line for line in changed)
    assert f"weights of AST: {'v' * 12} here, {'w' * 12} there" in changed
    assert any(line.startswith("commit: 0123456789") for line in changed)
    assert any(line.startswith("uncommitted changes there") for line in changed)
    assert "ray: 2.60.0 here, 2.61.0 there" in changed
    assert not any("data_dir" in line for line in changed)


def test_arms_of_only_one_side_are_named_without_a_row(tmp_path: Path) -> None:
    run = two_arms(tmp_path / "run")
    plan = [arm("ast"), arm("htsat", augment=False)]
    other = write_run(tmp_path / "other", plan, [record(config, "completed") for config in plan])
    found = against(run, other.path)
    assert found.alone == ["only here: BEATs, lora, augmented", "only there: HTS-AT (CLAP), lora, unaugmented"]
    assert [row[0] for row in found.rows] == ["AST, lora, augmented"]
    section = comparison(read_run(run.path), other.path).section
    assert any(isinstance(block, Items) and block.items == found.alone for block in section.blocks)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert all(len(row) == len(table.head) for row in table.rows)


@pytest.mark.parametrize("what", ["missing", "a file", "empty", "no experiments", "itself", "newer"])
def test_invalid_other_prints_one_line_and_exits_with_2(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = two_arms(tmp_path / "run"), tmp_path / "other"
    expected = "directory"
    if what == "a file":
        other.write_text("")
    elif what != "missing":
        other.mkdir()
        expected = "no JSON file"
    if what == "no experiments":
        (other / "notes.json").write_text("{}")
        expected = "1 JSON files"
    elif what == "newer":
        (other / "run.json").write_text('{"schema": 99}')
        expected = "schema 99"
    elif what == "itself":
        other, expected = run.path, "the run itself"
    with pytest.raises(UserError):
        against(run, other)
    try:
        code = main([str(run.path), "--compare", str(other)])
    except SystemExit as refused:  # by the parser
        code = refused.code
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(other) in line
    assert expected in line
    assert not (run.report / "comparison.md").exists()


def test_command_prints_a_short_form_and_writes_the_full_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = two_arms(tmp_path / "run", skill=3.0), two_arms(tmp_path / "<b>other", skill=2.0)
    assert main([str(run.path), "--compare", str(other.path)]) == 0
    out = capsys.readouterr().out
    assert "test accuracy +" in out
    assert out.strip().splitlines()[-1] == f"comparison: {run.report / 'comparison.md'}"
    text = (run.report / "comparison.md").read_text()
    assert "| AST, lora, augmented |" in text
    assert "5 players, 200 clips" in text
    assert "<b>" not in text.replace("\\<", "")
    assert main([str(run.path), "--compare", str(other.path), "--output", str(tmp_path / "now")]) == 0
    assert (tmp_path / "now" / "comparison.md").read_text() == text


def test_plan_without_data_and_provenance_can_be_compared(tmp_path: Path) -> None:
    run = two_arms(tmp_path / "run")
    plan = [arm("ast")]
    odd: TrialRecord = record(plan[0], "completed")
    for row in odd.history:
        row["val_acc"] = None
    other = write_run(tmp_path / "other", plan, [odd])
    content = other.read_plan()
    for key in ("data", "provenance", "name"):
        content.pop(key)
    other.write_plan(content)
    found = against(run, other.path)
    assert cell(found, "validation accuracy") == "none: no validation metric there"
    assert found.there.name == "other"


def test_scores_on_different_validation_clips_are_not_compared(tmp_path: Path) -> None:
    config = arm("ast")
    runs = [write_run(tmp_path / name, [config], [record(config, "completed")]) for name in ("here", "there")]
    content = runs[1].read_plan()
    content["data"]["fingerprint"] = "other"
    runs[1].write_plan(content)
    (row,) = comparison(read_run(runs[0].path), runs[1].path).rows
    assert row[HEAD.index("validation accuracy")] == "none: validated on different clips"


def test_scores_on_different_numbers_of_clips_are_not_compared(tmp_path: Path) -> None:
    run = two_arms(tmp_path / "run", limit_eval_batches=2, eval_batch=16)
    config = arm("ast", limit_eval_batches=2, eval_batch=16)
    with_smaller_micro_batch = record(config, "completed")
    with_smaller_micro_batch.oom_retries = 1
    other = write_run(tmp_path / "other", [config], [with_smaller_micro_batch])
    (made(tmp_path / "files") / "ast.json").write_bytes(trial_json(read_run(other.path).trials[0]))
    for path in (other.path, tmp_path / "files"):
        found = against(run, path)
        cells = {cell(found, column) for column in HEAD[3:]}
        assert len(cells) == 1
        assert re.match(r"none: .*limit_eval_batches", cells.pop())
    with_smaller_micro_batch.oom_retries = 0
    with_smaller_micro_batch.write(other.trial(with_smaller_micro_batch.trial_id))
    assert cell(against(run, other.path), "validation accuracy").startswith("0.0 points")


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "3", "null", "{", "[" * 100_000, "\xff", '{"config": {}, "status": "completed"}'),
        '{"config": {"model": 1}, "status": "completed"}',
        '{"config": {"model": "ast"}, "status": ["completed"]}',
        '{"config": {"model": "ast"}, "status": "completed", "metrics": [1]}',
        '{"config": {"model": "ast", "\\ud800": 1}, "status": "completed"}',
    ],
)
def test_file_that_is_no_experiment_is_listed(tmp_path: Path, content: str) -> None:
    experiment(tmp_path / "files", "good", metrics=ZERO)
    (tmp_path / "files" / "bad.json").write_text(content, encoding="latin-1")
    found = against(two_arms(tmp_path / "run"), tmp_path / "files")
    assert len(found.there.experiments) == 1
    assert any("bad.json" in line and "\n" not in line for line in found.lacks)


@pytest.mark.parametrize("value", [10**30, 1e300, -1, float("nan"), None, True, "x", [1], {"a": 1}, "x" * 10_000])
def test_value_of_any_type_in_a_foreign_file_is_compared_as_text_or_left_out(tmp_path: Path, value: Any) -> None:
    metrics = dict.fromkeys(("test_acc", "val_acc", "test_f1_macro", "total_params", "trainable_params"), value)
    values = dict.fromkeys(("experiment_id", "error", "git_commit", "timestamp"), value)
    config = {"model": "ast", "strategy": "lora", "augmentation": True, "seed": value, "max_epochs": value, "x": value}
    config |= {"limit_eval_batches": value, "eval_batch": value}
    experiment(tmp_path / "files", "a", metrics=metrics, config=config, efficiency={"halvings": value}, **values)
    found = against(two_arms(tmp_path / "run"), tmp_path / "files")
    assert cell(found, "there") == "1 completed"
    assert all(len(line) < 3000 for line in found.short)


def test_links_and_pipes_among_foreign_files_are_not_read(tmp_path: Path) -> None:
    files = tmp_path / "files"
    experiment(files, "good", metrics=ZERO)
    experiment(tmp_path / "elsewhere", "secret", metrics=ZERO)
    (files / "link.json").symlink_to(tmp_path / "elsewhere" / "secret.json")
    os.mkfifo(files / "pipe.json")
    (files / "directory.json").mkdir()
    found = against(two_arms(tmp_path / "run"), files)
    assert [each.name for each in found.there.experiments] == ["good"]
    assert any(all(name in line for name in ("link.json", "pipe.json", "directory.json")) for line in found.lacks)
