"""The report of a search: its section, tables and figures."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from analysis.report import make_files, read_run
from analysis.run_summary import Findings
from analysis.search_section import search_blocks
from analysis.sections import sections
from analysis.write.blocks import Code, Table, Text
from sousaphone.cli.sweep import parse
from sousaphone.errors import UserError
from tests.analysis.run_builders import arm, record, trials_in, write_predictions, write_run
from tests.analysis.search_runs import MODELS, diverging, search_run

FIGURES = {"plots/search_budget.png", "plots/search_settings.png"}


def table(found: Findings, column: str) -> pd.DataFrame:
    """The table of the section that has this column."""
    each = next(b for b in search_blocks(found) if isinstance(b, Table) and column in b.head)
    return pd.DataFrame(each.rows, columns=list(each.head))


def texts(found: Findings) -> str:
    return "\n".join(block.text for block in search_blocks(found) if isinstance(block, Text))


def test_planted_effect_is_named_and_settings_without_effect_are_called_so(tmp_path: Path) -> None:
    found = read_run(search_run(tmp_path, configurations=24).path)
    effects = table(found, "importance").set_index(["backbone", "setting"]).effect
    assert set(effects[:, "learning_rate"]) == {"effect visible"}
    others = effects.drop("learning_rate", level="setting")
    assert set(others) == {"no effect visible"}
    assert len(others) == 6
    assert "unreliable" not in texts(found)


def test_few_configurations_have_a_warning(tmp_path: Path) -> None:
    text = texts(read_run(search_run(tmp_path).path))
    assert "Fewer than 20 configurations (AST 8, BEATs 8)" in text


def test_report_of_a_search_has_its_tables_and_figures(tmp_path: Path) -> None:
    run = search_run(tmp_path, configurations=12, objective=diverging)
    files = make_files(read_run(run.path), with_sounds=False)
    assert files.keys() >= FIGURES | {"search.csv", "importance.csv"}
    configurations = pd.read_csv(io.BytesIO(files["search.csv"]))
    assert list(configurations.groupby("model").size()) == [12, 12]
    assert (configurations.default.groupby(configurations.model).sum() == 1).all()
    assert {"learning_rate", "lora_r", "score_at_30", "score_at_90", "outcome"} <= {*configurations}
    assert "diverged" in set(configurations.status)
    full = configurations[configurations.steps == 90]
    assert full.score_at_90.notna().all()
    assert (full.score == full.score_at_90).all()
    importance = pd.read_csv(io.BytesIO(files["importance.csv"]))
    assert importance.groupby("model").importance.sum().tolist() == pytest.approx([1, 1])
    page = files["report.html"].decode()
    assert all(page.count(f'id="{name}"') == 1 for name in ("search_budget", "search_settings"))


def test_results_and_verdict_are_of_the_finalists_alone(tmp_path: Path) -> None:
    run = search_run(tmp_path)
    found = read_run(run.path)
    proposed = run.read_plan()["search"]["proposals"]
    assert len(found.trials) == len(proposed) + 12
    assert {t.trial_id for t in found.compared}.isdisjoint(proposed)
    assert {len(each.trials) for each in found.verdict.planned} == {2}
    assert len(found.verdict.planned) == 6
    assert found.verdict.chosen is not None
    assert set(found.predictions.trial_id) == {t.trial_id for t in found.compared}


def test_best_of_each_backbone_has_its_budget_and_interval(tmp_path: Path) -> None:
    found = read_run(search_run(tmp_path).path)
    rows = table(found, "best configuration")
    assert list(rows.backbone) == ["AST", "BEATs"]
    assert set(rows.configurations) == {"8 of 8"}
    assert rows.steps.nunique() == 1
    assert set(rows.over) == {"4 players"}
    for best, interval in zip(rows.best.astype(float), rows["95 % interval"], strict=True):
        low, high = map(float, interval.split(" to "))
        assert low < best < high


def test_gain_is_stated_for_every_backbone_once_test_clips_are_scored(tmp_path: Path) -> None:
    found = read_run(search_run(tmp_path / "complete").path)
    assert list(table(found, "percentage points").backbone) == ["AST", "BEATs"]
    searching = read_run(search_run(tmp_path / "searching", seeds=()).path)
    assert "percentage points" not in texts(searching)


def test_long_tables_are_shortened(tmp_path: Path) -> None:
    found = read_run(search_run(tmp_path, configurations=30, seeds=()).path)
    assert len(table(found, "outcome")) == 40
    assert "and 20 more, all in search.csv" in texts(found)


@pytest.mark.parametrize("epochs", [0, 1, 31])
def test_search_that_was_killed_has_a_report(tmp_path: Path, epochs: int) -> None:
    run = search_run(tmp_path, epochs_trained=epochs, seeds=())
    files = make_files(read_run(run.path), with_sounds=False)
    assert "search.csv" in files
    assert (files.keys() >= FIGURES) is (epochs == 31)
    assert "--from" not in files["summary_report.md"].decode()


def test_command_that_uses_the_result_is_a_sweep_of_the_same_backbones_on_the_same_data(tmp_path: Path) -> None:
    run = search_run(tmp_path)
    request = {"augment": [True], "dataset": "small", "data_dir": "my clips", "epochs": 7}
    run.write_plan({**run.read_plan(), "request": request})
    (code,) = (block.text for block in search_blocks(read_run(run.path)) if isinstance(block, Code))
    options = parse(shlex.split(code)[2:], "launch.py")
    assert options.from_ == str(run.path)
    assert sorted(options.models or ()) == sorted(MODELS)
    assert (options.augment, options.dataset, options.data_dir, options.epochs) == ("on", "small", "my clips", 7)


def test_diverged_configurations_are_no_failures(tmp_path: Path) -> None:
    run = search_run(tmp_path, configurations=12, objective=diverging)
    found = read_run(run.path)
    assert any(trial.status == "diverged" for trial in found.trials)
    own = {each.heading: each.blocks for each in sections(found)}
    assert not own["Failed and stopped trials"]
    assert not any("--resume" in str(block) for block in own["Next steps"])
    assert any(outcome.startswith("diverged") for outcome in table(found, "outcome").outcome)


def test_other_sweeps_have_nothing_of_a_search(tmp_path: Path) -> None:
    plan = [arm(model) for model in MODELS]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records)
    files = make_files(read_run(run.path), with_sounds=False)
    assert files.keys().isdisjoint(FIGURES | {"search.csv", "importance.csv"})
    assert "## Search\n" not in files["summary_report.md"].decode()


def test_damaged_search_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path, *trials_in(["completed"]))
    content = json.loads((run.path / "run.json").read_text())
    content["search"] = {"space": {}, "configurations": "many"}
    (run.path / "run.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="configurations"):
        read_run(run.path)
