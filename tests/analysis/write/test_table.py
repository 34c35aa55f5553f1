"""comparison_table.csv: its columns, which epoch they are of, and how they print."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from analysis.load.trials import read_trials
from analysis.write.table import comparison_table, to_csv
from sousaphone.runs.directory import RunDirectory
from tests.analysis.run_builders import COMMIT, arm, record, trial_id, write_run

COLUMNS = (
    "trial_id,model,strategy,lora_targets,augment,seed,dataset,scale,weights,status,partial,epochs,best_epoch,val_acc,"
    "val_macro_f1,val_loss,train_loss,train_ce,test_acc,test_macro_f1,held_out_acc,held_out_macro_f1,"
    "also_acc,also_macro_f1,total_params,trainable_params,adapter_params,"
    "trainable_percent,train_seconds,wall_seconds,seconds_per_epoch,samples_per_second,peak_memory_mb,cpu_ms_per_clip,"
    "adapter_kb,oom_retries,clip_seconds,signature,data_hash,train_clips,val_clips,test_clips,weights_hash,weights_sha256,pretraining,version,"
    "git_commit,reason,error"
)


def rows_of(run: RunDirectory) -> list[dict[str, str]]:
    text = to_csv(comparison_table(read_trials(run, run.read_plan(), {})))
    assert text.splitlines()[0] == COLUMNS
    return list(csv.DictReader(io.StringIO(text)))


def test_train_and_validation_columns_are_of_the_best_epoch_and_times_are_of_all(tmp_path: Path) -> None:
    config = arm(augment=False)
    told = record(config, "completed")
    best, last = told.history[1], told.history[2]
    (row,) = rows_of(write_run(tmp_path, [config], [told]))
    for name in ("val_acc", "val_macro_f1", "val_loss", "train_loss", "train_ce"):
        assert float(row[name]) == best[name] != last[name]
    for name in ("test_acc", "test_macro_f1"):
        assert float(row[name]) == last[name]
    assert (row["epochs"], row["best_epoch"], row["augment"]) == ("3", "2", "off")
    assert float(row["train_seconds"]) == told.train_seconds == 3 * float(row["seconds_per_epoch"])
    assert (float(row["samples_per_second"]), float(row["peak_memory_mb"])) == (102.0, 903.0)
    assert (row["git_commit"], row["weights"], row["error"]) == (COMMIT, "random", "")


def test_integers_print_as_integers_beside_empty_cells(tmp_path: Path) -> None:
    plan = [arm(seed=0), arm(seed=1)]
    done, pending = rows_of(write_run(tmp_path, plan, [record(plan[0], "completed")]))
    assert (done["total_params"], done["trainable_params"], done["adapter_params"]) == ("600000", "60000", "30000")
    assert (pending["seed"], pending["epochs"]) == ("1", "0")
    known = {"trial_id", "model", "strategy", "lora_targets", "augment", "seed", "dataset", "scale", "weights"}
    known |= {"status", "partial", "epochs", "git_commit", "reason", "clip_seconds"}
    assert all(not value for name, value in pending.items() if name not in known)


def test_partial_marks_numbers_of_fewer_epochs_than_planned(tmp_path: Path) -> None:
    states = ["completed", "early_stopped", "time_limit", "diverged", "out_of_memory", "running", "failed", "pending"]
    plan = [arm(seed=seed) for seed in range(len(states))]
    pairs = zip(plan, states, strict=True)
    records = [record(c, s, epochs=0 if s == "failed" else None) for c, s in pairs if s != "pending"]
    marks = [row["partial"] for row in rows_of(write_run(tmp_path, plan, records))]
    assert marks == ["false", "false", "true", "true", "true", "true", "false", "false"]


def test_a_row_tells_why_it_ended_how_long_it_took_and_with_what_micro_batch(tmp_path: Path) -> None:
    plan = [arm(seed=0), arm(seed=1)]
    told = record(plan[0], "early_stopped")
    told.oom_retries = 2
    stopped, pending = rows_of(write_run(tmp_path, plan, [told]))
    assert stopped["reason"] == "val_macro_f1 has not risen since epoch 2 (patience)"
    assert (stopped["wall_seconds"], stopped["oom_retries"]) == ("103.0", "2")
    assert (pending["reason"], pending["wall_seconds"], pending["oom_retries"]) == ("it has not begun", "", "")


def test_an_error_with_commas_quotes_and_lines_is_one_cell_on_one_line(tmp_path: Path) -> None:
    config = arm()
    told = record(config, "failed", error='ValueError: "a", b\nc')
    run = write_run(tmp_path, [config], [told])
    (row,) = rows_of(run)
    assert row["error"] == 'ValueError: "a", b c'


def test_only_lora_has_targets(tmp_path: Path) -> None:
    plan = [arm(strategy=strategy) for strategy in ("lora", "head", "full")]
    assert [row["lora_targets"] for row in rows_of(write_run(tmp_path, plan))] == ["all-linear", "", ""]


def test_eighty_trials_are_eighty_rows(tmp_path: Path) -> None:
    plan = [arm(augment=a, seed=s) for a in (True, False) for s in range(40)]
    rows = rows_of(write_run(tmp_path, plan, [record(config, "completed") for config in plan[:50]]))
    assert [row["trial_id"] for row in rows] == [trial_id(config) for config in plan]
    assert sum(row["status"] == "completed" for row in rows) == 50


def test_a_metric_that_is_no_number_is_an_empty_cell(tmp_path: Path) -> None:
    config = arm()
    told = record(config, "diverged", epochs=2)
    told.history[-1]["train_loss"] = float("nan")
    told.history[-1]["best_epoch"] = 2
    (row,) = rows_of(write_run(tmp_path, [config], [told]))
    assert (row["train_loss"], row["epochs"]) == ("", "2")
