"""Arms of a sweep that varies further settings than backbone, strategy, targets and augmentation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray import tune

from analysis.compare.compare_runs import comparison
from analysis.load.trials import Trial
from analysis.report import read_run, write_report
from analysis.stats.arms import arms
from analysis.stats.pairs import augmentation_pairs
from analysis.stats.verdict import Outcome, judge
from sousaphone.config import Sweep
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.statuses import Status
from tests.analysis.run_builders import record, write_predictions, write_run
from tests.analysis.stats.test_verdict import answers

RANKS = {
    "model": tune.grid_search(["ast", "beats"]),
    "augment": tune.grid_search([True, False]),
    "seed": tune.grid_search([0, 1]),
    "epochs": 3,
    "lora_r": tune.grid_search([4, 16]),
    "lora_targets": tune.grid_search(["qkv", "all-linear"]),
}


def planned(space: dict[str, Any], score: float = 0.5) -> list[Trial]:
    row = {"epoch": 1, "best_epoch": 1, "val_macro_f1": score, "val_acc": score, "test_acc": 0.5}
    return [
        Trial(trial.trial_id, dataclasses.asdict(trial), Status.COMPLETED, history=[row])
        for trial in Sweep(space).trials()
    ]


def test_arms_differ_in_rank_and_targets_and_group_seeds() -> None:
    found = arms(planned(RANKS))
    assert len(found) == len({arm.label for arm in found}) == 16
    assert all([trial.config["seed"] for trial in arm.trials] == [0, 1] for arm in found)
    assert all(len({trial.config["lora_r"] for trial in arm.trials}) == 1 for arm in found)
    assert {"AST · targets qkv · r=16 · augmented", "BEATs · targets all-linear · r=4 · unaugmented"} <= {
        arm.label for arm in found
    }


def test_labels_show_all_settings_that_differ_and_no_hash() -> None:
    space = {**RANKS, "lora_targets": "all-linear", "learning_rate": tune.grid_search([1e-3, 5e-3])}
    found = arms(planned(space))
    assert len({arm.label for arm in found}) == 16
    for arm in found:
        (trial, _) = arm.trials
        assert f"r={trial.config['lora_r']}" in arm.label
        assert f"lr={trial.config['learning_rate']:g}" in arm.label
        assert arm.tag
        assert arm.tag not in arm.label


def test_arms_with_and_without_augmentation_are_paired_at_equal_settings() -> None:
    trials = planned(RANKS)
    pairs = augmentation_pairs(arms(trials), answers({trial.trial_id: 0.5 for trial in trials}))
    assert len(pairs) == 8
    for pair in pairs:
        assert (pair.first.lora_targets, pair.first.tag) == (pair.second.lora_targets, pair.second.tag)
        assert pair.first.augment
        assert not pair.second.augment


def test_verdict_compares_arms_of_other_targets() -> None:
    space = {**RANKS, "model": "ast", "augment": False, "lora_targets": "qkv"}
    trials = planned(space, 0.4) + planned({**space, "model": "beats", "lora_targets": "all-linear"}, 0.6)
    data = {"fingerprint": "a", "clips": {"test": 600}}
    trials = [dataclasses.replace(trial, data=data) for trial in trials]
    rates = {trial.trial_id: 0.8 if trial.config["model"] == "beats" else 0.4 for trial in trials}
    assert judge(trials, answers(rates), None, {}).outcome is Outcome.BETTER
    lengths = [
        dataclasses.replace(t, config={**t.config, "clip_seconds": 1.0 + (t.config["lora_r"] > 4)}) for t in trials
    ]
    found = judge(lengths, answers(rates), None, {})
    assert found.outcome is Outcome.NOT_ALIKE
    assert "clip_seconds" in found.why


@pytest.fixture
def run(tmp_path: Path) -> Path:
    plan = [trial.config for trial in planned({**RANKS, "model": "ast", "seed": 0})]
    records = [record(dict(config), "completed") for config in plan]
    records[0].status = Status.PRUNED
    written = write_run(tmp_path / "run", [dict(config) for config in plan], records)
    write_predictions(written, records[1:])
    return written.path


def test_report_and_table_show_the_settings_of_each_trial(run: Path) -> None:
    report = write_report(run)
    text = (report / "summary_report.md").read_text()
    assert "AST · targets qkv · r=16 · augmented" in text
    assert "1 pruned" in text
    table = pd.read_csv(report / "comparison_table.csv").set_index("trial_id")
    plan = RunDirectory(run).read_plan()
    assert table["lora_r"].to_dict() == {
        name: config["lora_r"] for name, config in zip(plan["trial_ids"], plan["trials"], strict=True)
    }


def test_comparison_of_runs_pairs_arms_by_their_settings(run: Path, tmp_path: Path) -> None:
    configs = [{**t.config, "lora_r": 8 * t.config["lora_r"]} for t in planned({**RANKS, "model": "ast", "seed": 0})]
    other = write_run(tmp_path / "other", configs, [record(config, "completed") for config in configs])
    assert len(comparison(read_run(run), run.parent / "other").rows) == 0
    assert any("r=128" in line for line in comparison(read_run(run), other.path).alone)
