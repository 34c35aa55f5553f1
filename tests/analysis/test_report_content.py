"""The content of the report's sections."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.report import read_run, write_report
from analysis.run_summary import Findings
from analysis.sections import sections
from analysis.write.html import to_html
from analysis.write.markdown import to_markdown
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from tests.analysis.run_builders import (
    ALARM,
    REAL,
    arm,
    record,
    trial_id,
    trials_in,
    write_predictions,
    write_run,
)


def summary(found: Findings) -> str:
    return to_markdown(found.name, sections(found))


def page(found: Findings) -> str:
    return to_html(found.name, sections(found), "")


def section(text: str, heading: str) -> str:
    """Return the text under a heading of the summary; empty if there is no such heading."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_nano_backbones_or_random_weights_have_a_banner_and_no_verdict(tmp_path: Path) -> None:
    directory = write_report(write_run(tmp_path, *trials_in(["completed", "completed"])).path)
    for name in ("summary_report.md", "report.html"):
        text = (directory / name).read_text()
        assert "the published models" in text
        assert not re.search(r"\b(Use|Undecided|equivalent)\b", text.partition("<body>")[2] or text)
    lines = (directory / "summary_report.md").read_text().splitlines()
    assert lines[2].startswith("> **")
    assert "random weights" in lines[2]


@pytest.mark.parametrize(("players", "few", "one"), [(1, True, True), (4, True, False), (8, False, False)])
def test_too_few_players_for_a_winner_or_for_augmentation_are_reported(
    tmp_path: Path, players: int, few: bool, one: bool
) -> None:
    plan = [arm(augment=True), arm(augment=False)]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, players=players, clips=80)
    text = summary(read_run(run.path))
    assert ("at least 8 are needed" in text.partition("## Results")[0]) is few
    pairs = section(text, "Effect of augmentation")
    assert ("of one player" in pairs) is one
    assert ("95 % interval" in pairs) is not one


@pytest.mark.parametrize("older", [True, False])
def test_groups_of_recordings_are_counted_if_players_are_unknown(tmp_path: Path, older: bool) -> None:
    plan = [arm(model, augment=a, **REAL) for model in ("ast", "beats", "htsat") for a in (True, False)]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, players=8, clips=80)
    content = run.read_plan()
    if older:  # a run from before the field existed
        content["notes"] = ["players unknown: split by name stem (10 of them), so a player may be in two splits"]
    else:
        content["data"]["players_known"] = False
    run.write_plan(content)
    found = read_run(run.path)
    text = summary(found)
    pairs = section(text, "Other pairs of backbones") + section(text, "Effect of augmentation")
    assert "groups" in pairs
    assert "player" not in pairs
    clips = dict(found.facts)["Clips"]
    assert clips.startswith("train 800 of 8 groups, validation 100 of 1 group, test 100 of 1 group")
    assert "players unknown" in clips
    assert "100 test clips of 1 group of recordings (players unknown)" in text


def test_clips_with_a_soundfont_label_are_reported_as_synthesised(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"])
    run = write_run(tmp_path, plan, records)
    content = run.read_plan()
    content["data"]["synthetic"] = False
    run.write_plan(content)
    write_predictions(run, records)
    assert any("SoundFont" in line for line in read_run(run.path).limits)
    path = run.trial(records[0].trial_id) / PREDICTIONS_NAME
    pd.read_parquet(path).drop(columns="soundfont").to_parquet(path)
    assert not any("SoundFont" in line or "synthe" in line for line in read_run(run.path).limits)


def test_evaluation_limit_is_reported_and_changes_the_signature(tmp_path: Path) -> None:
    runs = []
    for name, changed in (
        ("whole", {}),
        ("part", {"limit_eval_batches": 2, "eval_batch": 16}),
        ("high", {"limit_eval_batches": 10, "eval_batch": 10}),  # as many as there are
    ):
        plan, records = trials_in(["completed"], **changed)
        records[0].data = {"fingerprint": "aaaa", "clips": {"train": 800, "validation": 100, "test": 100}}
        runs.append(write_run(tmp_path / name, plan, records))
    whole, part, high = ((write_report(run.path) / "summary_report.md").read_text() for run in runs)
    assert "At most 32 clips" in part
    assert "At most" not in whole + high
    assert ("±" in whole, "±" in part, "±" in high) == (True, False, True)
    signatures = [read_run(run.path).trials[0].signature for run in runs]
    assert signatures[0] == signatures[2] != signatures[1]


def test_trials_scored_on_different_numbers_of_clips_have_different_signatures(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 3, limit_eval_batches=2, eval_batch=16)
    for each in records:
        each.data = {"fingerprint": "aaaa"}
    records[2].oom_retries = 1
    plan[1].update(limit_eval_batches=4, eval_batch=8)
    found = read_run(write_run(tmp_path, plan, records).path)
    assert any("At most 16 to 32 clips" in line for line in found.limits)
    first, same, fewer = (trial.signature for trial in found.trials)
    assert first == same != fewer
    assert "(clips scored at most: 32 and 16)" in summary(found)


def test_pretrained_models_are_ranked_by_validation(tmp_path: Path) -> None:
    plan, records = trials_in(["completed", "completed", "failed"], **REAL)
    for each, score in zip(records, (0.2, 0.7, 0.9), strict=True):
        for row in each.history:
            row["val_macro_f1"] = score
    text = (write_report(write_run(tmp_path, plan, records).path) / "summary_report.md").read_text()
    assert "> **" not in text
    assert "No verdict" in text
    order = [text.index(f"| {trial_id(config)} |") for config in plan]
    assert order[1] < order[0] < text.index("## Partial results") < order[2]


def test_partial_results_are_listed_separately_with_their_reasons(tmp_path: Path) -> None:
    states = ["time_limit", "completed", "diverged", "early_stopped", "interrupted", "failed", "pending"]
    plan, records = trials_in(states, **REAL)
    for each, score in zip(records, (0.8, 0.2, 0.7, 0.3, 0.9, 0.6), strict=True):
        for row in each.history:
            row["val_macro_f1"] = score
    records[5].history = []
    run = write_run(tmp_path / "study", plan, records)
    text = (write_report(run.path) / "summary_report.md").read_text()
    names = [trial_id(config) for config in plan]

    def named(heading: str) -> list[int]:
        return [names.index(cell) for cell in re.findall(r"^\| (ast\S*) \|", section(text, heading), re.MULTILINE)]

    assert named("Results") == [3, 1]
    assert named("Partial results") == [4, 0, 2]
    without = section(text, "Trials without results")
    assert named("Trials without results") == [5, 6]
    partial = section(text, "Partial results")
    assert "the table above" in partial
    assert "| 1 of 3 |" in partial
    assert "its time limit of 2 h was reached in epoch 3 |" in partial
    assert re.search(r"failed \| RuntimeError: .*\|", without)
    assert re.search(r"\| pending \| \w.* \|", without)
    shown = (run.report / "report.html").read_text()
    headings = [shown.index(f"<h2>{heading}") for heading in ("Partial results", "Trials without results")]
    assert headings[0] < shown.index("its time limit of 2 h") < headings[1]


def test_run_with_only_partial_results_has_no_verdict(tmp_path: Path) -> None:
    plan, records = trials_in(["time_limit", "interrupted"], **REAL)
    text = (write_report(write_run(tmp_path, plan, records).path) / "summary_report.md").read_text()
    assert "No trial has finished" in section(text, "Results")
    assert "No verdict" in text
    assert "table above" not in text


@pytest.mark.parametrize(
    ("status", "options"),
    [
        ("completed", None),
        ("early_stopped", None),
        ("pending", ""),
        ("running", ""),  # without a driver
        ("interrupted", ""),
        ("failed", " --retry-failed"),
        ("out_of_memory", " --retry-failed"),
        ("time_limit", " --trial-time-limit none"),
        ("time_limit by the sweep", ""),
        ("diverged", None),
    ],
)
def test_next_steps_have_the_command_for_each_status(tmp_path: Path, status: str, options: str | None) -> None:
    status, by_sweep, _ = status.partition(" by the sweep")
    plan, records = trials_in(["completed", status])
    if by_sweep:
        records[1].cause = Cause.SWEEP_TIME_LIMIT
    run = write_run(tmp_path / "my results" / "study", plan, records)
    resume = f"python launch.py --resume --name study --storage '{run.path.parent}'"
    found = read_run(run.path)
    text, shown = summary(found), html.unescape(page(found))
    steps = section(text, "Next steps")
    assert re.findall(r"^python .*$", steps, re.MULTILINE) == ([] if options is None else [resume + options])
    assert shown.partition("<h2>Next steps</h2>")[2].count("<pre>python") == (options is not None)
    assert ("(1 trial)" in steps) is (status not in ("completed", "early_stopped"))
    assert ("--set learning_rate" in steps) is (status == "diverged")
    assert (f"<pre>{resume}{options}</pre>" in shown) is (options is not None)
    with run.held():
        text = summary(read_run(run.path))
    assert "## Next steps" not in text
    assert "launch.py --resume" not in text
    assert "still running" in text


def test_promotion_and_extensions_are_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed", "completed"]))
    before = summary(read_run(run.path))
    assert "Promoted" not in before
    assert "Extended" not in before
    content = run.read_plan()
    content["promoted_from"] = {
        "run": "/results/screening",
        "trial_id": "beats-lora-aug-on-s0",
        "val_macro_f1": 0.4123,
        "val_acc": 0.5,
        "epochs": 1,
    }
    created = ["2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00"]
    added = [["ast-lora-aug-on-s0"], ["ast-lora-aug-on-s1", "ast-lora-aug-on-s2"]]
    content["extensions"] = [{"created": c, "added": a} for c, a in zip(created, added, strict=True)]
    run.write_plan(content)
    for text in (summary(read_run(run.path)), page(read_run(run.path))):
        (sentence,) = re.findall(r"Promoted from .*(?=\n\n|</p>\n)", text.partition("planned trial")[0])
        for part in ("beats-lora-aug-on-s0", "/results/screening", "0.412", "50.0%", "1 epoch"):
            assert part in sentence
        assert f"{created[0]}, by 1 trial: ast-lora-aug-on-s0" in text
        assert f"{created[1]}, by 2 trials: ast-lora-aug-on-s1, ast-lora-aug-on-s2" in text


def test_setup_has_device_and_limits(tmp_path: Path) -> None:
    run = write_run(tmp_path, *trials_in(["completed"]))
    facts = dict(read_run(run.path).facts)
    assert not {"Device", "Limits"} & facts.keys()
    content = run.read_plan()
    content["request"]["device"], content["provenance"]["device"] = "cuda", "NVIDIA H100"
    content["limits"] = {"trial": 7200.0, "stall": 600.0}
    run.write_plan(content)
    facts = dict(read_run(run.path).facts)
    assert facts["Device"] == "cuda, NVIDIA H100"
    assert facts["Limits"].startswith("2 h ")
    assert ", 10 min " in facts["Limits"]
    content["limits"] = {"trial": None, "stall": 600.0}
    run.write_plan(content)
    assert dict(read_run(run.path).facts)["Limits"].startswith("10 min ")


def test_counts_of_one_are_singular(tmp_path: Path) -> None:
    config = arm(epochs=1)
    run = write_run(tmp_path, [config], [record(config, "interrupted", epochs=1)])
    content = run.read_plan()
    content["data"]["clips"]["test"] = 1
    run.write_plan(content)
    found = read_run(run.path)
    for text in (summary(found), page(found).partition("<body>")[2]):
        assert not re.search(r"(?<![\d,.])1 (?:\w+ )?(?:trials|epochs|players|clips|seeds)\b", text)
        assert "1 planned trial:" in text
        assert "1 test clip of 1 player" in text


def test_limitations_and_notes_are_in_the_summary(tmp_path: Path) -> None:
    text = (write_report(write_run(tmp_path, *trials_in(["completed"])).path) / "summary_report.md").read_text()
    for part in ("One seed", "100 test clips of 1 player", "synthetic"):
        assert part in section(text, "Limitations")
    assert "carved from the training players" in section(text, "Notes")


def test_only_measured_seeds_are_counted(tmp_path: Path) -> None:
    plan = [arm(model, seed=seed, **REAL) for model in ("ast", "beats") for seed in range(3)]
    records = [record(c, s) for c, s in zip(plan, ["completed"] * 4 + ["failed"], strict=False)]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records)
    (run.trial(records[0].trial_id) / PREDICTIONS_NAME).unlink()
    found = read_run(run.path)
    assert found.limits[0].startswith("1 to 3 seeds ")
    text = section(summary(found), "Results")
    assert "| AST | 3 (test: 2) |" in text
    assert "| BEATs | 1 |" in text


def test_interval_of_accuracy_ends_at_100_percent(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, skill=5.0)
    assert re.search(r"\| 9\S+% to 100\.0% \|", section(summary(read_run(run.path)), "Results"))


def test_failed_trial_has_its_epoch_error_and_retry_command(tmp_path: Path) -> None:
    plan, (done, failed) = trials_in(["completed", "failed"])
    failed.traceback = "\n".join(f"line {n}" for n in range(40)) + f"\nRuntimeError: {ALARM}"
    run = write_run(tmp_path / "study", plan, [done, failed])
    text = section(summary(read_run(run.path)), "Failed and stopped trials")
    assert f"{trial_id(plan[1])} (AST): failed after epoch 1 of 3" in text
    assert f"line 39\nRuntimeError: {ALARM}\n" in text
    assert "line 20" not in text
    assert "--retry-failed" in text
    assert done.trial_id not in text


def test_trials_measured_on_different_data_are_not_comparable(tmp_path: Path) -> None:
    plan, records = trials_in(["completed", "completed"])
    for each in records:
        each.data = {"fingerprint": "aaaa", "clips": {"train": 8, "test": 1}}
    run = write_run(tmp_path / "study", plan, records)
    assert "by signature" not in summary(read_run(run.path))
    records[1].data = {"fingerprint": "bbbb", "clips": {"train": 8, "test": 1}}
    records[1].write(run.trial(records[1].trial_id))
    found = read_run(run.path)
    assert "(data: aaaa and bbbb)" in summary(found)
    assert "by signature" in summary(found)
    assert found.trials[0].signature != found.trials[1].signature


def test_pretrained_weights_and_mismatched_features_are_reported(tmp_path: Path) -> None:
    plan, records = trials_in(["completed", "completed"], **REAL)
    records[0].weights |= {"origin": "hub MIT/ast at 1234", "pretraining": "AudioSet", "objective": "supervised"}
    run = write_run(tmp_path / "study", plan, records)
    text = summary(read_run(run.path))
    assert "| AST | hub MIT/ast at 1234; pretraining: AudioSet (supervised) |" in text
    assert "> **" not in text
    records[0].weights["frontend_mismatch"] = ["mels 64 for 128"]
    records[0].write(run.trial(records[0].trial_id))
    assert re.search(r"> \*\*.*AST.*\(mels 64 for 128\)\.\*\*", summary(read_run(run.path)))


@pytest.mark.parametrize("older", [True, False])
def test_verdict_with_untuned_learning_rates_has_a_caveat(tmp_path: Path, older: bool) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed", "completed"], **REAL))
    content = run.read_plan()
    note = "learning rates are untuned for all backbones"
    content |= {"notes": [note]} if older else {"notes": [], "tuning": note}
    run.write_plan(content)
    text = summary(read_run(run.path))
    assert text.index("- Learning rates are untuned for all backbones.") < text.index("## Results")
    assert section(text, "Notes").count(note) == 1


def test_limited_training_steps_and_learning_rates_are_reported(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *trials_in(["completed"], limit_train_batches=5))
    found = read_run(run.path)
    assert any("only 5 optimiser steps" in line for line in found.limits)
    assert dict(found.facts)["Learning rates"] == "0.001"


def test_run_without_scores_over_whole_clips_is_still_reported(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path, plan, records)
    for each in records:
        each.history = [{k: v for k, v in row.items() if k != "processor_seconds"} for row in each.history]
    write_predictions(run, records, averaged=False)
    found = read_run(run.path)
    assert not found.remarks[1:]  # but for Ray's missing log
    text = summary(found)
    rows = [line.split(" | ") for line in section(text, "Results").splitlines() if line.startswith("| ast-lora")]
    assert [row[5] for row in rows] == ["–", "–"]
    assert found.time_unit == "wall"
    assert "## Calibration" not in text
    directory = write_report(run.path)
    assert not (directory / "plots" / "reliability.png").exists()


def test_older_and_newer_trials_of_a_run_are_reported_together(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records[:1], averaged=False)
    write_predictions(run, records[1:])
    found = read_run(run.path)
    assert found.predictions.windows.isna().sum() == found.predictions.windows.notna().sum() > 0
    calibrated = section(summary(found), "Calibration")
    assert records[1].trial_id in calibrated
    assert records[0].trial_id not in calibrated


def test_calibration_is_that_of_the_best_trial_of_an_arm(tmp_path: Path) -> None:
    plan, records = trials_in(["completed"] * 2, **REAL)
    for each, f1 in zip(records, (0.5, 0.6), strict=True):
        each.best["val_macro_f1"] = f1
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records)
    calibrated = section(summary(read_run(run.path)), "Calibration")
    assert records[1].trial_id in calibrated
    assert records[0].trial_id not in calibrated
