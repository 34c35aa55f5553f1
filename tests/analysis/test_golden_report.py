"""The whole summary_report.md of a small made-up run, compared with golden/summary_report.md.

After an intended change of the report, rewrite the file and review the difference:

    UPDATE_GOLDEN=1 python -m pytest tests/analysis/test_golden_report.py
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from analysis.report import make_files, read_run
from analysis.run_summary import Findings
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import Baseline, BaselineResults, InferenceTime, predictions_path
from tests.analysis.run_builders import REAL, arm, logits_for, made, record, trial_id, write_predictions, write_run

GOLDEN = Path(__file__).parent / "golden" / "summary_report.md"
SHORT = {"val_acc": 0.04, "val_macro_f1": 0.01, "test_acc": 0.05, "test_macro_f1": 0.01}
SCORES = {"val_acc": 0.25, "val_macro_f1": 0.21, "test_acc": 0.24, "test_macro_f1": 0.2}
WHOLE = {
    "val_averaged_acc": 0.27,
    "val_averaged_macro_f1": 0.22,
    "test_averaged_acc": 0.26,
    "test_averaged_macro_f1": 0.21,
}


def made_up_run(path: Path) -> Findings:
    """Two backbones with and without augmentation, two seeds and a later one each; one trial is cut and one fails."""
    arms = [(model, augment, seed) for model in ("ast", "beats") for augment in (True, False) for seed in range(3)]
    plan = [arm(model, augment=augment, seed=seed, epochs=5, **REAL) for model, augment, seed in arms]
    plan += [arm("htsat", **REAL), arm("efficientat", **REAL)]
    states = ["completed"] * 5 + ["time_limit"] + ["completed"] * 6 + ["failed", "pending"]
    records = [
        record(
            config,
            state,
            epochs=0 if state == "failed" else None,
            error="RuntimeError: out of disk" * (state == "failed"),
        )
        for config, state in zip(plan, states, strict=True)
        if state != "pending"
    ]
    for each in records:
        for row in each.history if each.config["model"] == "beats" else ():
            row.update(val_acc=row["val_acc"] + 0.1, val_macro_f1=row["val_macro_f1"] + 0.1)
    run = write_run(path, plan, records)
    added = [trial_id(config) for config in plan if config["seed"] == 2]
    run.write_plan({**run.read_plan(), "extensions": [{"created": "2026-01-02T00:00:00+00:00", "added": added}]})
    labels = write_predictions(run, records, players=8)
    guesses = logits_for({**plan[0], "model": "logmel"}, labels, skill=1.0).argmax(axis=1)
    rows = labels[["sample_id", "player", "rudiment"]].assign(predicted=[SLUGS[guess] for guess in guesses])
    rows.to_parquet(made(predictions_path(path, "logmel").parent) / "logmel.parquet")
    baselines = (
        Baseline("majority", "majority class", dict.fromkeys(SCORES, 0.025), 0.1, "single_stroke_roll"),
        Baseline("length", "nearest neighbour by seconds of audio in the window", SHORT, 0.2, "1 neighbour"),
        Baseline("logmel", "logistic regression on pooled log-mels", SCORES | WHOLE, 1.2, "C=10"),
    )
    times = tuple(InferenceTime(model, "lora", "all-linear", ms, 5) for model, ms in (("ast", 8.1), ("beats", 3.4)))
    BaselineResults(baselines, times, "a processor", 2.5, "a1b2c3d4e5f6").write(path)
    found = read_run(path)
    return dataclasses.replace(found, path=Path("/results/study"), written="2026-01-02T00:00:00+00:00")


def test_summary_report_equals_the_golden_file(tmp_path: Path) -> None:
    text = make_files(made_up_run(tmp_path / "study"), with_sounds=False)["summary_report.md"].decode()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
        pytest.skip(f"{GOLDEN} is rewritten")
    assert text == GOLDEN.read_text()
