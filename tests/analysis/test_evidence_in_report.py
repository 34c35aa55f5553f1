"""What the report states of its evidence: chance, intervals, baselines, planned seeds."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import pareto
from analysis.report import read_run
from sousaphone.runs.baseline_results import SCORES, Baseline, BaselineResults
from sousaphone.runs.trial_record import predictions_name
from tests.analysis.run_builders import REAL, arm, made, record, trial_id, trials_in, write_predictions, write_run
from tests.analysis.test_report_content import page, section, summary


def test_planned_and_added_seeds_are_reported_with_a_warning(tmp_path: Path) -> None:
    plan = [arm(model, seed=seed, **REAL) for model in ("ast", "beats") for seed in range(3)]
    run = write_run(tmp_path / "study", plan, [record(config, "completed") for config in plan])
    found = read_run(run.path)
    assert (found.seeds_planned, found.warning_of_added_seeds) == (([3, 3], [0, 0]), None)
    content = run.read_plan()
    for added in ([1], [2]):
        names = [trial_id(config) for config in plan if config["seed"] in added]
        content.setdefault("extensions", []).append({"created": "2026-01-02T00:00:00+00:00", "added": names})
    run.write_plan(content)
    found = read_run(run.path)
    assert found.seeds_planned == ([1, 1], [2, 2])
    assert found.warning_of_added_seeds is not None
    assert found.warning_of_added_seeds in summary(found)
    assert dict(found.facts)["Seeds"] == "1 seed per arm planned, 2 seeds added later"
    # New arms are no added seeds.
    content["extensions"] = [{"created": "2026-01-02T00:00:00+00:00", "added": [trial_id(c) for c in plan[3:]]}]
    run.write_plan(content)
    assert read_run(run.path).warning_of_added_seeds is None


@pytest.mark.parametrize("stored", [True, False])
def test_verdict_needs_the_stored_predictions_of_the_best_baseline(tmp_path: Path, stored: bool) -> None:
    plan = [arm(model, seed=seed, **REAL) for model in ("ast", "beats") for seed in range(3)]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path / "study", plan, records)
    labels = write_predictions(run, records, players=8)
    scores = dict.fromkeys(SCORES, 0.2)
    baselines = (
        Baseline("logmel", "log-mels", scores, 1.0),
        Baseline("majority", "majority", {**scores, "val_macro_f1": 0.1}, 1.0),
    )
    BaselineResults(baselines, (), "a processor", 2.5, "a1b2").write(run.path)
    path = made(run.path / "baselines") / "logmel.parquet"
    rows = labels[["sample_id", "player", "rudiment"]].assign(predicted="flam")
    if stored:
        rows.to_parquet(path)
    lead = read_run(run.path).verdict.lead
    assert (lead is not None) is stored
    if lead is not None:
        assert (lead.baseline, lead.contrast.clips, lead.contrast.seeds) == ("log-mels", 200, (3, 1))
        assert lead.shown
        path.write_bytes(b"PAR1 torn")
        found = read_run(run.path)
        assert found.verdict.lead is None
        assert any("logmel" in remark for remark in found.remarks)


def test_ten_rudiments_have_a_chance_of_ten_percent_everywhere(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, players=8, clips=80)  # of the first ten rudiments
    found = read_run(run.path)
    for text in (summary(found), page(found)):
        assert "10 of 40 rudiments" in text
        assert "chance is 10.0%" in text
        assert "(chance 10.0%)" in text
    assert not re.search(r"(?<!\d)2\.5 ?%", summary(found))
    assert found.chance_percent == 10
    few = section(summary(found), "F1 by rudiment")
    assert len(re.findall(r"^\| \w.* \| 8 \| 8 \|$", few, re.MULTILINE)) == 10


def test_chance_of_validation_is_that_of_its_clips(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, players=8, clips=80)  # of the first ten rudiments
    tested = pd.read_parquet(run.trial(records[0].trial_id) / predictions_name("test"))
    validated = tested[tested.rudiment.isin(sorted(set(tested.rudiment))[:5])]
    validated.to_parquet(run.trial(records[0].trial_id) / predictions_name("val"))
    found = read_run(run.path)
    assert "(chance 20.0%)" in summary(found)
    assert "chance is 10.0%" in summary(found)
    drawn = pareto.picture(found).chart
    assert drawn is not None
    assert "chance, 20 %" in {trace.name for trace in drawn.data}


def test_table_has_interval_macro_f1_clips_and_players_also_with_one_seed(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"], **REAL)
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, players=8)
    found = read_run(run.path)
    results = section(summary(found), "Results")
    head, _, row = (line for line in results.partition("Trials:")[0].splitlines() if line.startswith("|"))
    cells = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=True))
    (tested,) = found.tested.values()
    assert cells["95 % interval"] == f"{tested.low:.1%} to {min(tested.high, 1):.1%}"
    assert (cells["test clips"], cells["players"], cells["seeds"]) == ("200", "8", "1")
    assert float(cells["test_macro_f1"]) > 0


@pytest.mark.parametrize(("train_ce", "flagged"), [(1.0, False), (2.5, True)])
def test_augmented_arm_with_higher_train_ce_is_flagged(tmp_path: Path, train_ce: float, flagged: bool) -> None:
    plan = [arm(augment=augment, **REAL) for augment in (True, False)]
    records = [record(config, "completed") for config in plan]
    for each, value in zip(records, (train_ce, 2.0), strict=True):
        for row in each.history:
            row["train_ce"] = value
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, players=8)
    text = section(summary(read_run(run.path)), "Effect of augmentation")
    assert "| AST |" in text
    assert ("2.50, 2.00" in text) == ("train_ce" in text) == flagged


@pytest.mark.parametrize(("length", "shown"), [(0.03, False), (0.16, False), (0.6, True)])
def test_recordings_that_their_length_classifies_are_reported(tmp_path: Path, length: float, shown: bool) -> None:
    run = write_run(tmp_path, *trials_in(["completed"], **REAL))
    content = run.read_plan()
    content["data"]["clips"]["test"] = 40  # the margin of error is 15 points
    run.write_plan(content)
    accuracies = {"majority": 0.025, "length": length}
    baselines = tuple(
        Baseline(name, name, {"val_acc": 0.1, "val_macro_f1": 0.1, "test_acc": value, "test_macro_f1": 0.1}, 1.0)
        for name, value in accuracies.items()
    )
    BaselineResults(baselines, (), "a cpu", 2.5, "aaaa").write(run.path)
    text = section(summary(read_run(run.path)), "Baselines")
    assert (f"{length:.1%} of the test clips" in text) == shown


def test_diverging_wall_and_processor_times_are_reported(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path, plan, records)
    assert "diverge" not in summary(read_run(run.path))
    for row in records[0].history:
        row["epoch_seconds"] *= 10
    records[0].write(run.trial(records[0].trial_id))
    text = section(summary(read_run(run.path)), "Results")
    (warning,) = [line for line in text.splitlines() if "diverge" in line]
    assert all(each.trial_id in warning for each in records)
