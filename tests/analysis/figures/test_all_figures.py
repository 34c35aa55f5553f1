"""All figures together: which are drawn, their size, and that outside text is escaped."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib.image import imread

from analysis.figures import curves
from analysis.load.trials import Trial
from analysis.write.blocks import Picture
from sousaphone.config import LORA_TARGETS
from tests.analysis.figure_builders import MODELS, baseline, built, chart, drawn, findings, json_bytes, one, rows
from tests.analysis.run_builders import ALARM, arm

NAMES = [
    "accuracy_comparison",
    "augmentation_effect",
    "efficiency_scatter",
    "training_time",
    "learning_curves",
    "f1_by_rudiment",
    "confusion",
    "accuracy_by_slice",
    "reliability",
]
WITHOUT_PREDICTIONS = ["accuracy_comparison", "efficiency_scatter", "training_time", "learning_curves"]


def many(path: Path) -> tuple[list[Trial], pd.DataFrame]:
    """80 trials with 1,000 test clips each: 40 arms of two seeds, some of a fifth backbone."""
    ways = [("lora", targets) for targets in LORA_TARGETS[:2]] + [(way, LORA_TARGETS[0]) for way in ("head", "full")]
    plan = [
        arm(m, strategy=way, lora_targets=targets, augment=a, seed=s, epochs=30)
        for m in MODELS
        for way, targets in ways
        for a in (True, False)
        for s in (0, 1)
    ]
    trials, predictions = built(path, plan, clips=1000, players=12)
    more = [
        Trial(
            f"fifth-{t.trial_id}", {**t.config, "model": "fifth"}, t.status, history=t.history, parameters=t.parameters
        )
        for t in trials[:16]
    ]
    copies = predictions[predictions.trial_id.isin([t.trial_id for t in trials[:16]])]
    copies = copies.assign(trial_id="fifth-" + copies.trial_id.astype(str))
    return [*trials, *more], pd.concat([predictions, copies], ignore_index=True).astype({"trial_id": "category"})


def test_finished_run_has_all_figures_in_reading_order(found: dict[str, Picture]) -> None:
    assert list(found) == NAMES
    for picture in found.values():
        assert picture.png is not None
        height, width, _ = imread(io.BytesIO(picture.png)).shape
        assert 1000 <= width <= 2000
        assert 300 <= height <= 3500
        assert chart(picture).data
        assert picture.caption.endswith(".")
        assert "  " not in picture.caption


def test_without_predictions_only_figures_of_records_are_drawn(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    trials, predictions = eight
    found = drawn(trials, predictions.iloc[:0])
    assert list(found) == WITHOUT_PREDICTIONS
    assert "players" not in found["accuracy_comparison"].caption


def test_predictions_without_columns_are_ignored(eight: tuple[list[Trial], pd.DataFrame]) -> None:
    assert findings(eight[0], pd.DataFrame()).best == []


def test_run_without_results_shows_planned_arms_and_their_status(tmp_path: Path) -> None:
    trials, predictions = built(tmp_path, [arm("ast"), arm("beats")], ["pending", "failed"])
    found = drawn(trials, predictions)
    assert list(found) == ["accuracy_comparison", "efficiency_scatter", "training_time"]
    assert rows(chart(found["accuracy_comparison"])) == ["AST (pending)", "BEATs (failed)"]
    assert found["efficiency_scatter"].chart is None
    assert "2 trials" in found["efficiency_scatter"].caption


@pytest.mark.parametrize("harm", [f"{ALARM} $\\frac{{ %{{x}} <b>bold</b>", "喜 \x00\n" + "x" * 500])
def test_outside_text_is_escaped(tmp_path: Path, harm: str) -> None:
    trials, predictions = built(tmp_path, [arm("ast", augment=True), arm("ast", augment=False)], clips=80)
    trials = [
        Trial(f"{harm}{i}", {**t.config, "model": harm}, t.status, history=t.history, parameters=t.parameters)
        for i, t in enumerate(trials)
    ]
    names = dict(zip(predictions.trial_id.unique(), [trial.trial_id for trial in trials], strict=True))
    predictions["trial_id"] = predictions.trial_id.astype(str).map(names)
    predictions["soundfont"] = [harm if i % 2 else f"{harm} II" for i in range(len(predictions))]
    predictions["player"] = [f"{harm}{i % 3}" for i in range(len(predictions))]
    found = drawn(trials, predictions, baselines=[baseline(harm, 0.1, 0.1)])
    assert list(found) == NAMES
    for picture in found.values():
        assert picture.png is not None
        pages = [f.to_html(full_html=False, include_plotlyjs=False, div_id="c") for f in (chart(picture), go.Figure())]
        assert pages[0].count("<script") == pages[1].count("<script")
        assert "<b>bold" not in chart(picture).to_json()
        for trace in chart(picture).data:  # where plotly would parse it
            assert harm not in (trace.hovertemplate or "")


@pytest.mark.slow
def test_pictures_of_eighty_trials_are_small(tmp_path: Path) -> None:
    trials, predictions = many(tmp_path)
    assert len(trials) == 80
    found = drawn(trials, predictions, timed=True, adapter_bytes={trial.trial_id: 10_000 for trial in trials})
    assert list(found) == NAMES
    assert json_bytes(found) < 600_000
    for picture in found.values():
        assert picture.png is not None
        assert imread(io.BytesIO(picture.png)).shape[0] <= 3500
        assert sum(trace.showlegend is True for trace in chart(picture).data) <= 12


@pytest.mark.slow
def test_long_curves_are_thinned(tmp_path: Path) -> None:
    plan = [arm(m, augment=a, seed=s, epochs=200) for m in MODELS for a in (True, False) for s in range(10)]
    trials, predictions = built(tmp_path, plan, clips=40)
    picture = one(curves, trials, predictions)
    assert len(chart(picture).to_json()) < 300_000
    assert "epoch in 6" in picture.caption
