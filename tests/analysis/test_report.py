"""The report as a whole: what is written where, in which states of a run, and what it says."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from analysis import report
from analysis.__main__ import main
from analysis.content import sections
from analysis.findings import Findings
from analysis.markdown import to_markdown
from analysis.page import to_html
from analysis.report import make_files, read_run, write_report
from sousaphone.errors import UserError
from sousaphone.record import TrialRecord
from tests.analysis.run_builders import arm, made, record, trial_id, write_predictions, write_run

TABLES = {"comparison_table.csv", "epochs.csv", "predictions.parquet", "summary_report.md", "report.html"}
PLOTS = {"plots/accuracy_comparison.png", "plots/efficiency_scatter.png", "plots/training_time.png"}
ALARM = "<script>alert(1)</script>"
REAL = {"scale": "base", "weights": "/weights/ast.pt"}


def written(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def summary(found: Findings) -> str:
    return to_markdown(found.name, sections(found))


def page(found: Findings) -> str:
    return to_html(found.name, sections(found), "")


def told(states: list[str], **values: Any) -> tuple[list[dict[str, Any]], list[TrialRecord]]:
    """A plan with a trial for each state, and the records of those that began."""
    plan = [arm(seed=seed, **values) for seed in range(len(states))]
    pairs = zip(plan, states, strict=True)
    return plan, [
        record(c, s, error=f"RuntimeError: {ALARM}" if s == "failed" else None) for c, s in pairs if s != "pending"
    ]


@pytest.mark.parametrize(
    "states",
    [
        ["completed"],
        ["pending", "pending"],
        ["failed", "failed", "failed"],
        ["completed", "early_stopped", "time_limit", "failed", "out_of_memory", "diverged", "running", "pending"],
        ["completed"] * 80,
    ],
    ids=["one", "none begun", "all failed", "every state", "eighty"],
)
def test_a_run_in_any_state_gives_a_whole_report(tmp_path: Path, states: list[str]) -> None:
    directory = write_report(write_run(tmp_path / "study", *told(states)).path)
    assert directory == tmp_path / "study" / "report"
    names = written(directory)
    assert names >= TABLES | {f"trials/{trial_id(arm(seed=seed))}.json" for seed in range(len(states))}
    if "completed" in states:
        assert names >= PLOTS
    assert len((directory / "comparison_table.csv").read_text().splitlines()) == 1 + len(states)
    for name in sorted(names):
        if name.endswith(".png"):
            height, width, _ = imread(directory / name).shape
            assert width >= 1000
            assert 300 <= height <= 6000
    assert (directory / "report.html").stat().st_size < 6_000_000
    texts = [(directory / name).read_text() for name in ("summary_report.md", "report.html")]
    for seed in range(len(states)):
        assert all(trial_id(arm(seed=seed)) in text for text in texts)


def test_text_from_outside_is_shown_and_never_run(tmp_path: Path) -> None:
    plan, records = told(["failed", "completed"])
    name = f'<img src=x onerror="alert(1)">{ALARM[:8]}'.replace("/", "")
    for config in plan:
        config["model"] = config["lora_targets"] = ALARM
    for each, config in zip(records, plan, strict=True):
        each.trial_id, each.config = f"trial{config['seed']}", config
    run = write_run(tmp_path / "study", plan, records)
    content = run.read_plan()
    content.update(name=name, trial_ids=["trial0", "trial1"], notes=[ALARM], command=ALARM)
    run.write_plan(content)
    directory = write_report(run.path)
    shown = (directory / "report.html").read_text()
    for harm in ("<script>alert", "<img"):
        own = shown[shown.index("<body>") :]
        assert harm not in own
    assert "RuntimeError: &lt;script&gt;alert(1)&lt;/script&gt;" in shown
    text = (directory / "summary_report.md").read_text()
    assert not re.search(r"(?<!\\)<", text)


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    shown = (write_report(write_run(tmp_path, *told(["completed"])).path) / "report.html").read_text()
    assert "default-src 'none'" in shown
    own = shown[shown.index("<body>") :]
    assert not re.search(r"""(?:src|href|action)\s*=|url\(|@import|https?:""", own)
    assert shown.count("plotly.js v") == 1
    assert own.count("Plotly.newPlot") >= 4


def test_nano_or_random_weights_carry_the_banner_and_no_verdict(tmp_path: Path) -> None:
    directory = write_report(write_run(tmp_path, *told(["completed", "completed"])).path)
    for name in ("summary_report.md", "report.html"):
        text = (directory / name).read_text()
        assert "it says nothing about the published models" in text
        assert not re.search(r"\b(Use|Undecided|equivalent)\b", text.partition("<body>")[2] or text)
    lines = (directory / "summary_report.md").read_text().splitlines()
    assert lines[2].startswith("> **Nano-sized backbones and random weights")


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


def section(text: str, heading: str) -> str:
    """What stands under a heading of the summary; empty if there is none such."""
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


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
        ("pending", "", "Go on with"),
        ("running", "", "Go on with"),  # and its driver is gone
        ("interrupted", "", "Go on with"),
        ("failed", " --retry-failed", "try again"),
        ("out_of_memory", " --retry-failed", "try again"),
        ("time_limit", " --trial-time-limit none", "longer one"),
        ("diverged", None, "would diverge again. Begin a new run with a lower --set learning_rate"),
    ],
)
def test_each_end_names_the_line_that_goes_on_from_it(
    tmp_path: Path, status: str, line: str | None, words: str
) -> None:
    run = write_run(tmp_path / "my results" / "study", *told(["completed", status]))
    resume = f"python launch.py --resume --name study --storage '{run.path.parent}'"
    found = read_run(run.path)
    text, shown = summary(found), html.unescape(page(found))
    said = section(text, "Go on with")
    assert re.findall(r"^python .*$", said, re.MULTILINE) == ([] if line is None else [resume + line])
    assert shown.partition("<h2>Go on with</h2>")[2].count("<pre>python") == (line is not None)
    assert (f"1 trial: {words}" if status == "diverged" else words) in said
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


def test_output_is_written_straight_into_the_directory_given(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed"]))
    assert main([str(run.path), "--output", str(tmp_path / "a" / "b")]) == 0
    assert written(tmp_path / "a" / "b") >= TABLES | PLOTS
    assert not run.report.exists()


def test_a_report_that_cannot_be_made_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "study", *told(["completed", "pending"]))
    write_report(run.path)
    before = {name: (run.report / name).read_bytes() for name in written(run.report)}
    record(arm(seed=1), "completed").write(made(run.trial(trial_id(arm(seed=1)))))

    def broken(*_: object) -> bytes:
        raise RuntimeError("no picture")

    monkeypatch.setattr(report, "pictures", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        write_report(run.path)
    assert {name: (run.report / name).read_bytes() for name in written(run.report)} == before


def test_wrong_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "holds no run.json" in refused(str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text("[]")
    assert "damaged" in refused(str(tmp_path))
    run = write_run(tmp_path / "study", *told(["completed"]))
    (tmp_path / "file").write_text("")
    assert "--output" in refused(str(run.path), "--output", str(tmp_path / "file"))
    with pytest.raises(UserError):
        write_report(tmp_path / "nowhere")


def test_help_teaches_and_answers_at_once() -> None:
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'ray', 'pandas', 'matplotlib', 'plotly', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "comparison_table.csv" in done.stdout
    assert "exit codes" in done.stdout


def test_the_report_needs_no_torch() -> None:
    code = "import sys, analysis.report; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_every_planned_trial_is_in_every_table_and_a_damaged_one_is_reported(tmp_path: Path) -> None:
    plan = [arm("ast"), arm("beats"), arm("htsat")]
    records = [record(config, "completed") for config in plan[:2]]
    run = write_run(tmp_path / "study", plan, records)
    write_predictions(run, records, players=8, clips=80)
    (run.trial(trial_id(plan[0])) / "predictions.parquet").write_bytes(b"PAR1 torn")
    (run.trial(trial_id(plan[1])) / "trial.json").write_text("{")
    files = make_files(read_run(run.path))
    for name in ("comparison_table.csv", "summary_report.md", "report.html"):
        assert all(trial_id(config) in files[name].decode() for config in plan)
    text = files["summary_report.md"].decode()
    assert f"{trial_id(plan[0])}: predictions.parquet is damaged" in text
    assert "trial.json is damaged" in text
    assert {f"trials/{trial_id(config)}.json" for config in plan} <= files.keys()


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
    assert "not all rows may be compared" in summary(found)
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


def test_a_verdict_at_untuned_rates_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed", "completed"], **REAL))
    content = run.read_plan()
    content["notes"] = ["learning rates are untuned for all backbones"]
    run.write_plan(content)
    text = summary(read_run(run.path))
    assert text.index("- Learning rates are untuned for all backbones.") < text.index("## Results")


def test_a_run_is_read_alike_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "study", *told(["completed"]))
    (run.tune / "001").mkdir(parents=True)
    (run.tune / "001" / "experiment_state-2026-01-01_00-00-00.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert read_run(Path("study")).remarks == read_run(run.path).remarks


def test_few_steps_an_epoch_and_learning_rates_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", *told(["completed"], limit_train_batches=5))
    found = read_run(run.path)
    assert any("Only 5 optimiser steps an epoch" in line for line in found.limits)
    assert dict(found.facts)["Learning rates"] == "0.001"
