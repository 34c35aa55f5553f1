"""Baseline results are read as they were written, and a damaged file is a ValueError."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sousaphone.runs.baseline_results import (
    BASELINE_RESULTS_NAME,
    SCORES,
    Baseline,
    BaselineResults,
    InferenceTime,
    predictions_path,
)


def scores(val: float, test: float = 0.5) -> dict[str, float]:
    return {"val_acc": val, "val_macro_f1": val, "test_acc": test, "test_macro_f1": test}


WHOLE = BaselineResults(
    baselines=(
        Baseline("majority", "majority class", scores(0.1, 0.9), 0.1, chosen="paradiddle"),
        Baseline("logmel", "a regression", scores(0.3, 0.2), 2.0, chosen="C=1"),
        Baseline("knn-ast", "neighbours", {}, 1.0, why="out of memory"),
    ),
    inference=(
        InferenceTime("ast", "lora", "all-linear", 12.5, repeats=10),
        InferenceTime("beats", "lora", "all-linear", None, why="out of memory"),
        InferenceTime("efficientat", "lora", "qv", 3.0, settings={"clip_seconds": 2.5, "efficientat_hop": None}),
    ),
    cpu="a processor",
    clip_seconds=2.5,
    data_fingerprint="a1b2c3",
)


def test_written_results_are_read(tmp_path: Path) -> None:
    assert BaselineResults.read(tmp_path) is None
    WHOLE.write(tmp_path)
    assert BaselineResults.read(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == [BASELINE_RESULTS_NAME]
    assert predictions_path(tmp_path, "knn-ast") == tmp_path / "baselines" / "knn-ast.parquet"


def test_best_baseline_is_chosen_on_validation() -> None:
    assert WHOLE.best is WHOLE.baselines[1]
    assert BaselineResults((WHOLE.baselines[2],), (), "", 1.0, "").best is None


def test_inference_time_is_found_by_arm() -> None:
    ast = {"model": "ast", "strategy": "lora", "lora_targets": "all-linear", "device": "cpu", "lora_r": 8}
    wide, head, beats = {**ast, "lora_r": 64}, {**ast, "strategy": "head"}, {**ast, "model": "beats"}
    configs = {"ast": ast, "wide": wide, "head": head, "beats": beats}
    assert WHOLE.milliseconds(configs) == {"ast": 12.5, "wide": 12.5}  # as in an older file, without settings
    own = dataclasses.replace(WHOLE, inference=(*WHOLE.inference, InferenceTime.of(wide, 30.0)))
    assert own.milliseconds(configs) == {"ast": 12.5, "wide": 30.0}


def _without(*path: str | int) -> Callable[[Any], None]:
    def damage(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return damage


def _with(value: object, *path: str | int) -> Callable[[Any], None]:
    def damage(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _without("cpu"),
        _without("baselines", 0, "scores", "val_acc"),
        _without("inference", 0, "ms"),
        _with(2, "schema"),
        _with("ten", "clip_seconds"),
        _with(None, "baselines"),
        _with([], "baselines", 1, "scores"),
        _with(float("nan"), "baselines", 0, "scores", "test_acc"),
        _with("", "baselines", 2, "why"),
    ],
)
def test_damaged_file_is_a_value_error_that_names_it(damage: Callable[[Any], None], tmp_path: Path) -> None:
    WHOLE.write(tmp_path)
    path = tmp_path / BASELINE_RESULTS_NAME
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{BASELINE_RESULTS_NAME} is damaged \("):
        BaselineResults.read(tmp_path)


@pytest.mark.parametrize("content", ["", "{ torn", "[]", "null", "\x00\xff"])
def test_truncated_file_is_a_value_error(content: str, tmp_path: Path) -> None:
    (tmp_path / BASELINE_RESULTS_NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="is damaged"):
        BaselineResults.read(tmp_path)


def test_baseline_has_all_scores_or_a_reason() -> None:
    assert set(WHOLE.baselines[0].scores) == set(SCORES)
    with pytest.raises(ValueError, match="majority"):
        Baseline("majority", "", {}, 0.0)
    with pytest.raises(ValueError, match="out of memory"):
        Baseline("majority", "", scores(0.1), 0.0, why="out of memory")
    with pytest.raises(ValueError, match="nan"):
        Baseline("majority", "", scores(float("nan")), 0.0)


def test_reading_imports_no_large_package() -> None:
    code = (
        "import sys, sousaphone.runs.baseline_results; print({'torch', 'ray', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
