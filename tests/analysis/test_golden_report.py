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
from sousaphone.runs.baseline_results import Baseline, BaselineResults, InferenceTime
from tests.analysis.run_builders import REAL, arm, record, write_predictions, write_run

GOLDEN = Path(__file__).parent / "golden" / "summary_report.md"
SCORES = {"val_acc": 0.25, "val_macro_f1": 0.21, "test_acc": 0.24, "test_macro_f1": 0.2}
WHOLE = {
    "val_averaged_acc": 0.27,
    "val_averaged_macro_f1": 0.22,
    "test_averaged_acc": 0.26,
    "test_averaged_macro_f1": 0.21,
}


def made_up_run(path: Path) -> Findings:
    """Two backbones with and without augmentation, three seeds each; one trial is cut and one fails."""
    plan = [
        arm(model, augment=a, seed=s, **REAL) for model in ("ast", "beats") for a in (True, False) for s in range(3)
    ]
    plan += [arm("htsat", **REAL), arm("efficientat", **REAL)]
    states = ["completed"] * 11 + ["time_limit", "failed", "pending"]
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
    run = write_run(path, plan, records)
    write_predictions(run, records, players=8)
    baselines = (
        Baseline("majority", "majority class", dict.fromkeys(SCORES, 0.025), 0.1, "single_stroke_roll"),
        Baseline("length", "nearest neighbour by seconds of audio in the window", SCORES, 0.2, "1 neighbour"),
        Baseline("logmel", "logistic regression on pooled log-mels", SCORES | WHOLE, 1.2, "C=10"),
    )
    times = tuple(InferenceTime(model, "lora", "all-linear", ms, 5) for model, ms in (("ast", 8.1), ("beats", 3.4)))
    found = read_run(path)
    results = BaselineResults(baselines, times, "a processor", 2.5, "a1b2c3d4e5f6")
    return dataclasses.replace(
        found, path=Path("/results/study"), written="2026-01-02T00:00:00+00:00", baseline_results=results
    )


def test_summary_report_equals_the_golden_file(tmp_path: Path) -> None:
    text = make_files(made_up_run(tmp_path / "study"), with_sounds=False)["summary_report.md"].decode()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
        pytest.skip(f"{GOLDEN} is rewritten")
    assert text == GOLDEN.read_text()
