"""Build runs for figures, and read figures in tests."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.all_figures import Mark, pictures
from analysis.figures.context import Scene
from analysis.figures.mpl import plain_text
from analysis.load.predictions import read_predictions
from analysis.load.trials import Trial, read_trials
from analysis.write.blocks import Picture
from sousaphone.backbones.registry import DEFAULT_SWEEP
from tests.analysis.run_builders import record, write_predictions, write_run

MODELS = list(DEFAULT_SWEEP)
BASELINES = [Mark("majority class", 0.025, 0.025), Mark("stroke times", None, 0.19)]


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


def drawn(trials: list[Trial], predictions: pd.DataFrame, **more: Any) -> dict[str, Picture]:
    given: dict[str, Any] = {"baselines": [], "cpu_ms": {}, "adapter_bytes": {}, "banner": None, **more}
    return {picture.name: picture for picture in pictures(trials, predictions, **given)}


def one(module: ModuleType, trials: list[Trial], predictions: pd.DataFrame, **more: Any) -> Picture:
    """Draw a single figure."""
    given: dict[str, Any] = {"baselines": [], "cpu_ms": {}, "adapter_bytes": {}, "banner": None, **more}
    with plain_text():
        picture = module.picture(Scene(trials, predictions, **given))
    assert isinstance(picture, Picture)
    return picture


def scene(trials: list[Trial], predictions: pd.DataFrame) -> Scene:
    return Scene(trials, predictions, [], {}, {}, None)


def chart(picture: Picture) -> go.Figure:
    assert picture.chart is not None
    return picture.chart


def rows(figure: go.Figure) -> list[str]:
    return list(figure.layout.yaxis.ticktext)


def json_bytes(found: dict[str, Picture]) -> int:
    return sum(len(p.chart.to_json()) for p in found.values() if p.chart is not None)
