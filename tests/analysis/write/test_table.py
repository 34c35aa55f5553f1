"""comparison_table.csv, and tables with columns on demand in Markdown and HTML."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from analysis.load.trials import read_trials
from analysis.write.blocks import Section, Table
from analysis.write.html import to_html
from analysis.write.markdown import to_markdown
from analysis.write.table import comparison_table, to_csv
from sousaphone.runs.directory import RunDirectory
from tests.analysis.run_builders import COMMIT, arm, record, trial_id, write_run

COLUMNS = (
    "trial_id,model,strategy,lora_targets,augment,seed,dataset,scale,precision,weights,status,partial,epochs,best_epoch,val_acc,"
    "val_macro_f1,val_loss,train_loss,train_ce,test_acc,test_macro_f1,held_out_acc,held_out_macro_f1,"
    "also_acc,also_macro_f1,val_averaged_acc,val_averaged_macro_f1,test_averaged_acc,test_averaged_macro_f1,"
    "held_out_averaged_acc,held_out_averaged_macro_f1,also_averaged_acc,also_averaged_macro_f1,"
    "test_top5,test_averaged_top5,temperature,averaged_temperature,test_acc_by_player,test_acc_low,test_acc_high,test_players,total_params,trainable_params,adapter_params,"
    "trainable_percent,train_seconds,wall_seconds,train_wall_seconds,seconds_per_epoch,samples_per_second,peak_memory_mb,cpu_ms_per_clip,"
    "adapter_kb,oom_retries,clip_seconds,signature,data_hash,train_clips,val_clips,test_clips,weights_hash,weights_sha256,pretraining,version,"
    "git_commit,reason,error"
)


def rows_of(run: RunDirectory) -> list[dict[str, str]]:
    text = to_csv(comparison_table(read_trials(run, run.read_plan(), {})))
    assert text.splitlines()[0] == COLUMNS
    return list(csv.DictReader(io.StringIO(text)))


def test_metrics_are_of_the_best_epoch_and_times_of_all(tmp_path: Path) -> None:
    config = arm(augment=False)
    written = record(config, "completed")
    best, last = written.history[1], written.history[2]
    (row,) = rows_of(write_run(tmp_path, [config], [written]))
    for name in ("val_acc", "val_macro_f1", "val_loss", "train_loss", "train_ce"):
        assert float(row[name]) == best[name] != last[name]
    for name in ("test_acc", "test_averaged_acc", "val_averaged_macro_f1", "temperature"):
        assert float(row[name]) == last[name]
    assert (row["epochs"], row["best_epoch"], row["augment"]) == ("3", "2", "off")
    assert (
        float(row["train_seconds"])
        == sum(epoch["processor_seconds"] for epoch in written.history)
        == 3 * float(row["seconds_per_epoch"])
    )
    assert float(row["train_wall_seconds"]) == sum(epoch["epoch_seconds"] for epoch in written.history)
    wall = written.history[0]["epoch_seconds"] / written.history[0]["processor_seconds"]
    assert float(row["samples_per_second"]) == pytest.approx(102.0 * wall)
    assert float(row["peak_memory_mb"]) == 903.0
    assert (row["git_commit"], row["weights"], row["error"]) == (COMMIT, "random", "")


def test_integer_columns_with_empty_cells_print_integers(tmp_path: Path) -> None:
    plan = [arm(seed=0), arm(seed=1)]
    done, pending = rows_of(write_run(tmp_path, plan, [record(plan[0], "completed")]))
    assert (done["total_params"], done["trainable_params"], done["adapter_params"]) == ("600000", "60000", "30000")
    assert (pending["seed"], pending["epochs"]) == ("1", "0")
    known = {"trial_id", "model", "strategy", "lora_targets", "augment", "seed", "dataset", "scale", "weights"}
    known |= {"precision", "status", "partial", "epochs", "git_commit", "reason", "clip_seconds"}
    assert all(not value for name, value in pending.items() if name not in known)


def test_partial_marks_trials_with_missing_epochs(tmp_path: Path) -> None:
    states = ["completed", "early_stopped", "time_limit", "diverged", "out_of_memory", "running", "failed", "pending"]
    plan = [arm(seed=seed) for seed in range(len(states))]
    pairs = zip(plan, states, strict=True)
    records = [record(c, s, epochs=0 if s == "failed" else None) for c, s in pairs if s != "pending"]
    marks = [row["partial"] for row in rows_of(write_run(tmp_path, plan, records))]
    assert marks == ["false", "false", "true", "true", "true", "true", "false", "false"]


def test_row_has_reason_duration_and_oom_retries(tmp_path: Path) -> None:
    plan = [arm(seed=0), arm(seed=1)]
    written = record(plan[0], "early_stopped")
    written.oom_retries = 2
    stopped, pending = rows_of(write_run(tmp_path, plan, [written]))
    assert stopped["reason"] == written.reason
    assert (stopped["wall_seconds"], stopped["oom_retries"]) == ("103.0", "2")
    assert pending["reason"]
    assert (pending["wall_seconds"], pending["oom_retries"]) == ("", "")


def test_error_with_commas_quotes_and_lines_is_one_cell(tmp_path: Path) -> None:
    config = arm()
    written = record(config, "failed", error='ValueError: "a", b\nc')
    run = write_run(tmp_path, [config], [written])
    (row,) = rows_of(run)
    assert row["error"] == 'ValueError: "a", b c'


def test_only_lora_has_lora_targets(tmp_path: Path) -> None:
    plan = [arm(strategy=strategy) for strategy in ("lora", "head", "full")]
    assert [row["lora_targets"] for row in rows_of(write_run(tmp_path, plan))] == ["all-linear", "", ""]


def test_every_planned_trial_is_a_row_in_order(tmp_path: Path) -> None:
    plan = [arm(augment=a, seed=s) for a in (True, False) for s in range(40)]
    rows = rows_of(write_run(tmp_path, plan, [record(config, "completed") for config in plan[:50]]))
    assert [row["trial_id"] for row in rows] == [trial_id(config) for config in plan]
    assert sum(row["status"] == "completed" for row in rows) == 50


def test_nan_metric_is_an_empty_cell(tmp_path: Path) -> None:
    config = arm()
    written = record(config, "diverged", epochs=2)
    written.history[-1]["train_loss"] = float("nan")
    written.history[-1]["best_epoch"] = 2
    (row,) = rows_of(write_run(tmp_path, [config], [written]))
    assert (row["train_loss"], row["epochs"]) == ("", "2")


def test_extra_columns_are_hidden_on_the_page_and_left_out_of_markdown() -> None:
    table = Table(("trial", "val_acc", "MB"), [("a-s0", "50.0%", "812")], extra=("MB",))
    plain = Table(table.head, table.rows)
    text = to_markdown("run", [Section("Results", [table])])
    assert "| trial | val_acc |" in text
    assert "812" not in text
    assert "812" in to_markdown("run", [Section("Results", [plain])])
    shown = to_html("run", [Section("Results", [table])], "").partition("<body>")[2]
    assert '<td class="number extra">812</td>' in shown
    assert "<details" in shown
    assert "<details" not in to_html("run", [Section("Results", [plain])], "").partition("<body>")[2]
