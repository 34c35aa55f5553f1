"""The predictions of all trials on the test clips, as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analysis.load.trials import Trial
from sousaphone.errors import printable
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import predictions_path
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import predictions_name
from sousaphone.text import one_line

LOGITS = [f"logit_{slug}" for slug in SLUGS]
AVERAGED_LOGITS = [f"averaged_{name}" for name in LOGITS]  # means over windows; absent in older runs
# A small file may unpack to any number of equal rows.
_MOST_ROWS = 4_000_000  # of all trials
_MOST_LETTERS = 2**29  # of one column
DAMAGED = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)  # raised on reading a damaged table
_NEEDED = ["sample_id", "player", "rudiment"]
# Optional labels of a clip; '' or NaN where the data set lacks them.
_CLIP = ["audio_path", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec"]
_NUMBERS = ["tempo_bpm", "duration_sec"]
_TEXTS = ["predicted", *(name for name in (*_NEEDED, *_CLIP) if name not in _NUMBERS)]
_FLOATS = {*LOGITS, *AVERAGED_LOGITS}
_REPEATED = ["trial_id", "player", "rudiment", "predicted", "skill_tier", "soundfont", "preset"]


def read_predictions(
    run: RunDirectory, trials: Sequence[Trial], tested: str = "test"
) -> tuple[pd.DataFrame, list[str]]:
    """Read the predictions of all trials that have some, on the test set `tested`: `test`, `held_out` or `also`.

    Return one row per trial and clip (trial_id, sample_id, player, true rudiment, predicted, correct, `_CLIP`, the
    float32 `LOGITS` and, if any trial has them, windows and `AVERAGED_LOGITS`), and one remark for each file that
    cannot be read.
    """
    tables, remarks, left = [], [], _MOST_ROWS
    for trial in trials:
        path = run.trial(trial.trial_id) / predictions_name(tested)
        if not path.is_file():
            continue
        try:
            tables.append(_read(path, left).assign(trial_id=trial.trial_id))
            left -= len(tables[-1])
        except DAMAGED as error:
            why = one_line(error, 200)
            remarks.append(f"{trial.trial_id}: {path.name} is damaged ({why}); resuming does not write it again")
    columns = ["trial_id", *_NEEDED, "predicted", "correct", *_CLIP, *LOGITS]
    if not tables:
        return pd.DataFrame(columns=columns), remarks
    whole = pd.concat(tables, ignore_index=True)
    whole = whole[[*columns, *(name for name in ("windows", *AVERAGED_LOGITS) if name in whole)]]
    return whole.astype(dict.fromkeys(_REPEATED, "category")), remarks


def _read(path: Path, most: int) -> pd.DataFrame:
    """Read one trial's table; raise one of `DAMAGED` if it is not intact."""
    table = _table(path, [*_NEEDED, *_CLIP, *LOGITS, "windows", *AVERAGED_LOGITS], most)
    whole = "windows" in table
    logits, averaged = (table[own].to_numpy(np.float32) for own in (LOGITS, AVERAGED_LOGITS if whole else []))
    if not (np.isfinite(logits).all() and np.isfinite(averaged).all()):
        raise ValueError("some logits are not finite")
    own = pd.DataFrame({name: _printable(table[name]) for name in _NEEDED})
    for name in _CLIP:
        if name in _NUMBERS:
            own[name] = table[name].astype(float) if name in table else np.nan
        else:
            own[name] = _printable(table[name]) if name in table else ""
    own["predicted"] = np.array(SLUGS)[logits.argmax(1)]
    own["correct"] = own.predicted == own.rudiment
    if whole:
        own["windows"] = table["windows"].astype(int)
    parts = [own, pd.DataFrame(logits, columns=LOGITS)]
    return pd.concat([*parts, pd.DataFrame(averaged, columns=AVERAGED_LOGITS)] if whole else parts, axis=1)


def _is_text(words: pa.Array) -> bool:
    return bool(pa.types.is_string(words.type) or pa.types.is_large_string(words.type))


def _printable(cells: pd.Series) -> pd.Series:
    """Convert a column to text that can be printed, '' for missing values."""
    cells = cells.astype("category")
    words = {word: printable(str(word)) for word in cells.cat.categories}
    return cells.astype(object).map(words).fillna("").astype(str)


def _table(path: Path, names: Sequence[str], most: int) -> pd.DataFrame:
    """Read those of the columns that a table of clips has; the needed ones must be intact.

    Texts are read as dictionaries, whose size is bounded by the file's, and unpacked only if they then fit.
    """
    present = pq.read_schema(path).names
    texts = [name for name in names if name in _TEXTS and name in present]
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        if (rows := file.metadata.num_rows) > most:
            raise ValueError(f"{rows} rows; the trials of a run have at most {_MOST_ROWS}")
        for name in names:
            if name in _FLOATS and name in present and not pa.types.is_floating(file.schema_arrow.field(name).type):
                raise ValueError(f"{name} is not a column of numbers")
        columns = file.read(list(names))
    for name in texts:
        if pa.types.is_null(columns[name].type):
            continue
        words = [part.dictionary for part in columns[name].chunks if pa.types.is_dictionary(part.type)]
        if len(words) < columns[name].num_chunks or not all(map(_is_text, words)):
            raise ValueError(f"{name} is not a column of text")
        if rows * max((pc.max(pc.binary_length(each)).as_py() or 0 for each in words), default=0) > _MOST_LETTERS:
            raise ValueError(f"{name} has texts that are too long")
    table = columns.to_pandas(ignore_metadata=True)  # the pandas metadata of the file are not needed
    if not table["rudiment"].isin(SLUGS).all():
        raise ValueError("some rudiments are unknown")
    if table["sample_id"].duplicated().any():
        raise ValueError("some clips occur twice")
    return table


def read_baseline(run: RunDirectory, name: str) -> pd.DataFrame | None:
    """Read a baseline's test predictions (sample_id, player, rudiment, predicted, correct); None if there are none.

    Raise one of `DAMAGED` if they are not intact.
    """
    path = predictions_path(run.path, name)
    if not path.is_file():
        return None
    table = _table(path, [*_NEEDED, "predicted"], _MOST_ROWS)
    own = pd.DataFrame({name: _printable(table[name]) for name in table})
    return own.assign(correct=own.predicted == own.rudiment)


def correct_by_clip(predictions: pd.DataFrame, trial_ids: Sequence[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Return whether each clip is classified correctly, one column per trial, and the player of each clip.

    Clips not scored by all of the trials are left out.
    """
    mine = predictions[predictions.trial_id.isin(trial_ids)]
    right = mine.pivot(index="sample_id", columns="trial_id", values="correct").dropna()
    right = right[[trial_id for trial_id in trial_ids if trial_id in right]].astype(bool)
    players = mine.drop_duplicates("sample_id").set_index("sample_id").player.astype(str)
    return right, players.loc[right.index]
