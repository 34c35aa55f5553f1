"""Predictions that somebody sent: each file is a table or one remark, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.report import read_run
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.predictions import LOGITS
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from tests.analysis.run_builders import arm, record, write_predictions, write_run

CLIPS = 300_000


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    plan = [arm("ast"), arm("beats")]
    records = [record(config, "completed") for config in plan]
    run = write_run(tmp_path / "run", plan, records)
    write_predictions(run, records)
    return run


def columns(**changes: Any) -> pa.Table:
    """A table of many equal clips, which needs little space on disk."""
    equal = pa.DictionaryArray.from_arrays(pa.array(np.zeros(CLIPS, np.int32)), pa.array(["flam"]))
    texts = dict.fromkeys(("player", "rudiment", "audio_path", "skill_tier", "soundfont", "preset"), equal)
    numbers = dict.fromkeys(("tempo_bpm", "duration_sec", *LOGITS), np.zeros(CLIPS, np.float32))
    return pa.table({"sample_id": [str(clip) for clip in range(CLIPS)], **texts, **numbers, **changes})


def repeated(value: Any, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([value] * CLIPS, kind)


LONG = pa.DictionaryArray.from_arrays(pa.array(np.zeros(CLIPS, np.int32)), pa.array(["x" * 1_000_000]))


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"player": LONG},  # 300 GB once unpacked
        lambda: {"sample_id": repeated("a")},
        lambda: {"player": repeated(b"\xff", pa.binary()).view(pa.string())},
        lambda: {"player": repeated(b"\xff")},
        lambda: {"player": repeated(1)},
        lambda: {"player": repeated(["a"])},
        lambda: {"tempo_bpm": repeated("x")},
        lambda: {"tempo_bpm": repeated([1.0])},
        lambda: {"tempo_bpm": repeated(0, pa.timestamp("ns"))},
        lambda: {LOGITS[0]: repeated("x")},
        lambda: {LOGITS[0]: repeated(None)},
        lambda: {LOGITS[0]: repeated(float("nan"))},
        lambda: {"rudiment": repeated("polka")},
    ],
)
def test_wrong_column_is_a_remark(run: RunDirectory, changes: Callable[[], dict[str, Any]]) -> None:
    path = next(run.path.rglob(PREDICTIONS_NAME))
    pq.write_table(columns(**changes()), path)
    assert path.stat().st_size < 4_000_000
    found = read_run(run.path)
    assert found.predictions.trial_id.nunique() == 1
    (remark,) = [remark for remark in found.remarks if PREDICTIONS_NAME in remark]
    assert "\n" not in remark


def test_valid_column_of_another_type_is_read(run: RunDirectory) -> None:
    pq.write_table(columns(soundfont=pa.nulls(CLIPS), tempo_bpm=repeated(60)), next(run.path.rglob(PREDICTIONS_NAME)))
    found = read_run(run.path)
    assert found.predictions.trial_id.nunique() == 2
    assert (found.predictions.tempo_bpm == 60).sum() >= CLIPS


def test_file_with_too_many_rows_is_a_remark(run: RunDirectory) -> None:
    pq.write_table(pa.table({"sample_id": np.zeros(4_000_001, np.int8)}), next(run.path.rglob(PREDICTIONS_NAME)))
    found = read_run(run.path)
    assert found.predictions.trial_id.nunique() == 1
    assert sum("4000001 rows" in remark for remark in found.remarks) == 1


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\xff" * 100 + b"\x60\x00\x00\x00PAR1"])
def test_file_that_is_no_parquet_is_a_remark(run: RunDirectory, content: bytes) -> None:
    next(run.path.rglob(PREDICTIONS_NAME)).write_bytes(content)
    assert sum(PREDICTIONS_NAME in remark for remark in read_run(run.path).remarks) == 1


def test_huge_file_is_a_remark(run: RunDirectory) -> None:
    os.truncate(next(run.path.rglob(PREDICTIONS_NAME)), 2**36)
    assert sum(PREDICTIONS_NAME in remark for remark in read_run(run.path).remarks) == 1


def test_metadata_of_pandas_has_no_effect(run: RunDirectory) -> None:
    path = next(run.path.rglob(PREDICTIONS_NAME))
    table = pd.read_parquet(path)
    metadata = {b"pandas": b'{"index_columns": ["player"]}'}
    pq.write_table(pa.Table.from_pandas(table).replace_schema_metadata(metadata), path)
    assert read_run(run.path).predictions.trial_id.nunique() == 2
