"""Build runs for figures, and read figures in tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.all_figures import pictures
from analysis.figures.mpl import plain_text
from analysis.load.predictions import read_predictions
from analysis.load.trials import Trial, read_trials
from analysis.run_summary import Findings
from analysis.stats.classes import classes_of
from analysis.write.blocks import Picture
from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.runs.baseline_results import Baseline, BaselineResults, InferenceTime
from tests.analysis.run_builders import record, write_predictions, write_run

MODELS = list(DEFAULT_SWEEP)


def baseline(title: str, validation: float, test: float) -> Baseline:
    scores = {"val_acc": validation, "val_macro_f1": validation, "test_acc": test, "test_macro_f1": test}
    return Baseline(title, title, scores, 1.0)


BASELINES = [baseline("majority class", 0.025, 0.025), baseline("stroke times", 0.2, 0.19)]


def built(
    path: Path, plan: list[dict[str, Any]], states: list[str] | None = None, clips: int = 240, players: int = 4
) -> tuple[list[Trial], pd.DataFrame]:
    """Write a run to disk and read it as the report does."""
    pairs = zip(plan, states or ["completed"] * len(plan), strict=True)
    records = [record(c, s, epochs=0 if s == "failed" else None) for c, s in pairs if s != "pending"]
    run = write_run(path, plan, records)
    write_predictions(run, records, players=players, clips=clips)
    trials = read_trials(run, run.read_plan(), {})
    predictions, remarks = read_predictions(run, trials)
    assert remarks == []
    return trials, predictions


def findings(
    trials: list[Trial],
    predictions: pd.DataFrame,
    baselines: Sequence[Baseline] = (),
    timed: bool = False,
    adapter_bytes: dict[str, int] | None = None,
) -> Findings:
    """Return the findings of these trials; `timed`: with the CPU time of a clip for each arm."""
    ways = dict.fromkeys((t.config["model"], t.config["strategy"], t.config["lora_targets"]) for t in trials)
    times = tuple(InferenceTime(*way, 10.0 + i) for i, way in enumerate(ways)) if timed else ()
    results = BaselineResults(tuple(baselines), times, "a cpu", 2.5, "aaaa")
    validated = classes_of(predictions)  # as in older runs
    return Findings(
        Path("run"), {}, trials, False, "", [], predictions, results, adapter_bytes or {}, validated=validated
    )


def drawn(trials: list[Trial], predictions: pd.DataFrame, **more: Any) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(findings(trials, predictions, **more))}


def one(module: ModuleType, trials: list[Trial], predictions: pd.DataFrame, **more: Any) -> Picture:
    """Draw a single figure."""
    with plain_text():
        picture = module.picture(findings(trials, predictions, **more))
    assert isinstance(picture, Picture)
    return picture


def chart(picture: Picture) -> go.Figure:
    assert picture.chart is not None
    return picture.chart


def rows(figure: go.Figure) -> list[str]:
    return list(figure.layout.yaxis.ticktext)


def json_bytes(found: dict[str, Picture]) -> int:
    return sum(len(p.chart.to_json()) for p in found.values() if p.chart is not None)
