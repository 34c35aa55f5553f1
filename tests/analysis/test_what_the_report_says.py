"""What the report says, and where."""

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
from tests.analysis.run_builders import ALARM, REAL, arm, record, told, trial_id, write_predictions, write_run


def summary(found: Findings) -> str:
    return to_markdown(found.name, sections(found))


def page(found: Findings) -> str:
    return to_html(found.name, sections(found), "")


def section(text: str, heading: str) -> str:
    """What stands under a heading of the summary; empty if there is none such."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_nano_or_random_weights_carry_the_banner_and_no_verdict(tmp_path: Path) -> None:
    directory = write_report(write_run(tmp_path, *told(["completed", "completed"])).path)
    for name in ("summary_report.md", "report.html"):
        text = (directory / name).read_text()
        assert "it says nothing about the published models" in text
        assert not re.search(r"\b(Use|Undecided|equivalent)\b", text.partition("<body>")[2] or text)
    lines = (directory / "summary_report.md").read_text().splitlines()
    assert lines[2].startswith("> **Nano-sized backbones and random weights")


@pytest.mark.parametrize(("players", "few", "one"), [(1, True, True), (4, True, False), (8, False, False)])
def test_under_the_banner_too_few_players_for_a_winner_or_for_augmentation_are_said(
    tmp_path: Path, players: int, few: bool, one: bool
) -> None:
    plan = [arm(augment=True), arm(augment=False)]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, players=players, clips=80)
    text = summary(read_run(run.path))
    assert ("On these data no run could name a winner" in text.partition("## Results")[0]) is few
    about = section(text, "Other pairs, and what augmentation does")
    assert ("What augmentation does is not told" in about) is one
    assert ("With augmentation minus without" in about) is not one


@pytest.mark.parametrize("older", [True, False])
def test_where_players_are_unknown_groups_of_recordings_are_counted(tmp_path: Path, older: bool) -> None:
    plan = [arm(model, augment=a, **REAL) for model in ("ast", "beats", "htsat") for a in (True, False)]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, players=8, clips=80)
    content = run.read_plan()
    if older:  # than the field
        content["notes"] = ["players unknown: split by name stem (10 of them), so a player may be in two splits"]
    else:
        content["data"]["players_known"] = False
    run.write_plan(content)
    found = read_run(run.path)
    text = summary(found)
    told = section(text, "Other pairs, and what augmentation does")
    assert "groups" in told
    assert "player" not in told
    clips = "train 800 of 8 groups, validation 100 of 1 group, test 100 of 1 group"
    assert dict(found.facts)["Clips"] == f"{clips}; groups of recordings (players unknown)"
    assert "100 test clips of 1 group of recordings (players unknown)" in text


def test_clips_whose_labels_name_a_soundfont_are_called_synthesised(tmp_path: Path) -> None:
    plan, records = told(["completed"])
    run = write_run(tmp_path, plan, records)
    content = run.read_plan()
    content["data"]["synthetic"] = False
    run.write_plan(content)
    write_predictions(run, records)
    assert any("name a SoundFont are synthesised" in line for line in read_run(run.path).limits)
    path = run.trial(records[0].trial_id) / PREDICTIONS_NAME
    pd.read_parquet(path).drop(columns="soundfont").to_parquet(path)
    assert not any("synthe" in line for line in read_run(run.path).limits)


def test_a_limit_of_what_is_scored_is_said_and_keeps_runs_apart(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, *told(["completed"], **changed))
        for name, changed in (("whole", {}), ("part", {"limit_eval_batches": 2, "eval_batch": 16}))
    ]
    whole, part = ((write_report(run.path) / "summary_report.md").read_text() for run in runs)
    assert "At most 32 clips of each split were scored" in part
    assert "were scored" not in whole
    assert "by counting alone" not in part
    signatures = [read_run(run.path).trials[0].signature for run in runs]
    assert signatures[0] != signatures[1]


def test_trials_that_were_scored_on_other_numbers_of_clips_are_told_apart(tmp_path: Path) -> None:
    plan, records = told(["completed"] * 3, limit_eval_batches=2, eval_batch=16)
    for each in records:
        each.data = {"fingerprint": "aaaa"}
    records[2].oom_retries = 1
    plan[1].update(limit_eval_batches=4, eval_batch=8)
    found = read_run(write_run(tmp_path, plan, records).path)
    assert any("At most 16 to 32 clips of each split were scored" in line for line in found.limits)
    first, same, fewer = (trial.signature for trial in found.trials)
    assert first == same != fewer
    assert "(clips scored at most: 32 and 16)" in summary(found)


def test_pretrained_models_are_ranked_by_validation_and_cautiously(tmp_path: Path) -> None:
    plan, records = told(["completed", "completed", "failed"], **REAL)
    for each, score in zip(records, (0.2, 0.7, 0.9), strict=True):
        for row in each.history:
            row["val_macro_f1"] = score
    text = (write_report(write_run(tmp_path, plan, records).path) / "summary_report.md").read_text()
    assert "says nothing" not in text
    assert "No verdict: no trial that ran to its end has left its test predictions." in text
    order = [text.index(f"| {trial_id(config)} |") for config in plan]
    assert order[1] < order[0] < text.index("## Partial results") < order[2]


def test_partial_results_stand_apart_in_order_with_their_reasons_and_win_nothing(tmp_path: Path) -> None:
    states = ["time_limit", "completed", "diverged", "early_stopped", "interrupted", "failed", "pending"]
    plan, records = told(states, **REAL)
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
    assert named("Without results") == [5, 6]
    partial = section(text, "Partial results")
    assert "fewer epochs than planned, so not comparable with the table above." in partial
    assert "| 1 of 3 |" in partial
    assert "its time limit of 2 h was reached in epoch 3 |" in partial
    assert re.search(r"failed \| RuntimeError: .*\|", section(text, "Without results"))
    assert "| pending | it has not begun |" in section(text, "Without results")
    shown = (run.report / "report.html").read_text()
    assert (
        shown.index("<h2>Partial results") < shown.index("its time limit of 2 h") < shown.index("<h2>Without results")
    )


def test_a_run_with_nothing_but_partial_results_has_no_verdict(tmp_path: Path) -> None:
    plan, records = told(["time_limit", "interrupted"], **REAL)
    text = (write_report(write_run(tmp_path, plan, records).path) / "summary_report.md").read_text()
    assert "No trial has run to its end" in text
    assert "No verdict yet: no trial has run to its end." in text
    assert "table above" not in text


@pytest.mark.parametrize(
    ("status", "line", "words"),
    [
        ("completed", None, ""),
        ("early_stopped", None, ""),
        ("pending", "", "To continue after a stop"),
        ("running", "", "To continue after a stop"),  # and its driver is gone
        ("interrupted", "", "To continue after a stop"),
        ("failed", " --retry-failed", "To try failed trials again"),
        ("out_of_memory", " --retry-failed", "To try failed trials again"),
        ("time_limit", " --trial-time-limit none", "under a longer time limit"),
        ("time_limit by the sweep", "", "the time limit of a sweep"),
        ("diverged", None, "begin a new run with a lower --set learning_rate (1 trial)."),
    ],
)
def test_each_end_names_the_line_that_goes_on_from_it(
    tmp_path: Path, status: str, line: str | None, words: str
) -> None:
    status, by_sweep, _ = status.partition(" by the sweep")
    plan, records = told(["completed", status])
    if by_sweep:
        records[1].cause = Cause.SWEEP_TIME_LIMIT
    run = write_run(tmp_path / "my results" / "study", plan, records)
    resume = f"python launch.py --resume --name study --storage '{run.path.parent}'"
    found = read_run(run.path)
    text, shown = summary(found), html.unescape(page(found))
    said = section(text, "Go on with")
    assert re.findall(r"^python .*$", said, re.MULTILINE) == ([] if line is None else [resume + line])
    assert shown.partition("<h2>Go on with</h2>")[2].count("<pre>python") == (line is not None)
    assert words in said
    assert ("(1 trial)" in said) is bool(words)
    assert (f"<pre>{resume}{line}</pre>" in shown) is (line is not None)
    with run.held():  # nobody should go on with what is running
        text = summary(read_run(run.path))
    assert "## Go on with" not in text
    assert "launch.py --resume" not in text
    assert "still going on" in text


def test_where_a_run_comes_from_and_what_was_added_to_it_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed", "completed"]))
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
    sentence = (
        "Promoted from trial beats-lora-aug-on-s0 of run /results/screening, whose validation macro F1 was 0.412 and "
        "accuracy 50.0%, over 1 epoch there."
    )
    for whole in (summary(read_run(run.path)), page(read_run(run.path))):
        assert whole.index(sentence) < whole.index("planned trial")
        assert f"{created[0]}, by 1 trial: ast-lora-aug-on-s0" in whole
        assert f"{created[1]}, by 2 trials: ast-lora-aug-on-s1, ast-lora-aug-on-s2" in whole


def test_device_and_limits_are_among_the_facts(tmp_path: Path) -> None:
    run = write_run(tmp_path, *told(["completed"]))
    facts = dict(read_run(run.path).facts)
    assert not {"Device", "Limits"} & facts.keys()
    content = run.read_plan()
    content["request"]["device"], content["provenance"]["device"] = "cuda", "NVIDIA H100"
    content["limits"] = {"trial": 7200.0, "stall": 600.0}
    run.write_plan(content)
    facts = dict(read_run(run.path).facts)
    assert (facts["Device"], facts["Limits"]) == ("cuda, NVIDIA H100", "2 h a trial, 10 min without a batch")
    content["limits"] = {"trial": None, "stall": 600.0}
    run.write_plan(content)
    assert dict(read_run(run.path).facts)["Limits"] == "10 min without a batch"


def test_one_of_anything_is_singular(tmp_path: Path) -> None:
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


def test_the_summary_says_what_it_does_not_show(tmp_path: Path) -> None:
    text = (write_report(write_run(tmp_path, *told(["completed"])).path) / "summary_report.md").read_text()
    for said in ("One seed", "100 test clips of 1 player", "synthetic", "carved from the training players"):
        assert said in text


def test_the_seeds_that_were_measured_are_counted_and_not_the_planned_ones(tmp_path: Path) -> None:
    plan = [arm(model, seed=seed, **REAL) for model in ("ast", "beats") for seed in range(3)]
    records = [record(c, s) for c, s in zip(plan, ["completed"] * 4 + ["failed"], strict=False)]
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records)
    (run.trial(records[0].trial_id) / PREDICTIONS_NAME).unlink()
    found = read_run(run.path)
    assert found.limits[0].startswith("1 to 3 seeds an arm: ")
    text = section(summary(found), "Results")
    assert "| AST | 3 (test: 2) |" in text
    assert "| BEATs | 1 |" in text


def test_no_accuracy_is_said_to_lie_above_100_percent(tmp_path: Path) -> None:
    plan, records = told(["completed"] * 2, **REAL)
    run = write_run(tmp_path, plan, records)
    write_predictions(run, records, skill=5.0)
    assert re.search(r"\| 9\S+% to 100\.0% \|", section(summary(read_run(run.path)), "Results"))


def test_a_failure_shows_its_end_its_epoch_its_last_lines_and_the_line_that_retries_it(tmp_path: Path) -> None:
    plan, (done, failed) = told(["completed", "failed"])
    failed.traceback = "\n".join(f"line {n}" for n in range(40)) + f"\nRuntimeError: {ALARM}"
    run = write_run(tmp_path / "study", plan, [done, failed])
    text = section(summary(read_run(run.path)), "Failed and cut trials")
    assert f"{trial_id(plan[1])} (AST): failed after epoch 1 of 3" in text
    assert f"line 39\nRuntimeError: {ALARM}\n" in text
    assert "line 20" not in text
    assert "--retry-failed" in text
    assert done.trial_id not in text


def test_trials_that_were_measured_differently_are_told_apart(tmp_path: Path) -> None:
    plan, records = told(["completed", "completed"])
    for each in records:
        each.data = {"fingerprint": "aaaa", "clips": {"train": 8, "test": 1}}
    run = write_run(tmp_path / "study", plan, records)
    assert "not all rows may be compared" not in summary(read_run(run.path))
    records[1].data = {"fingerprint": "bbbb", "clips": {"train": 8, "test": 1}}
    records[1].write(run.trial(records[1].trial_id))
    found = read_run(run.path)
    assert "not all rows may be compared (data: aaaa and bbbb)" in summary(found)
    assert found.trials[0].signature != found.trials[1].signature


def test_what_each_backbone_began_from_is_said_and_other_features_than_it_was_trained_on_are_not_hidden(
    tmp_path: Path,
) -> None:
    plan, records = told(["completed", "completed"], **REAL)
    records[0].weights |= {"origin": "hub MIT/ast at 1234", "pretraining": "AudioSet", "objective": "supervised"}
    run = write_run(tmp_path / "study", plan, records)
    text = summary(read_run(run.path))
    assert "| AST | hub MIT/ast at 1234: AudioSet (supervised) |" in text
    assert "other features" not in text
    records[0].weights["frontend_mismatch"] = ["mels 64 for 128"]
    records[0].write(run.trial(records[0].trial_id))
    said = "AST heard other features than its weights were trained on (mels 64 for 128)."
    assert f"> **{said}**" in summary(read_run(run.path))


@pytest.mark.parametrize("older", [True, False])
def test_a_verdict_at_untuned_rates_says_so(tmp_path: Path, older: bool) -> None:
    run = write_run(tmp_path / "study", *told(["completed", "completed"], **REAL))
    content = run.read_plan()
    said = "learning rates are untuned for all backbones"
    content |= {"notes": [said]} if older else {"notes": [], "tuning": said}
    run.write_plan(content)
    text = summary(read_run(run.path))
    assert text.index("- Learning rates are untuned for all backbones.") < text.index("## Results")
    assert section(text, "Notes").count(said) == 1


def test_few_steps_an_epoch_and_learning_rates_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed"], limit_train_batches=5))
    found = read_run(run.path)
    assert any("Only 5 optimiser steps an epoch" in line for line in found.limits)
    assert dict(found.facts)["Learning rates"] == "0.001"
