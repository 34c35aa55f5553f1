"""The predictions of all trials on the test clips, as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from analysis.load.trials import Trial
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import predictions_path
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import predictions_name
from sousaphone.text import one_line

LOGITS = [f"logit_{slug}" for slug in SLUGS]
_MOST_ROWS = 2_000_000  # test clips
_NEEDED = ["sample_id", "player", "rudiment"]
# Optional labels of a clip; '' or NaN where the data set lacks them.
_CLIP = ["audio_path", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec"]
_REPEATED = ["trial_id", "player", "rudiment", "predicted", "skill_tier", "soundfont", "preset"]


def read_predictions(
    run: RunDirectory, trials: Sequence[Trial], tested: str = "test"
) -> tuple[pd.DataFrame, list[str]]:
    """Read the predictions of all trials that have some, on the test set `tested`: `test`, `held_out` or `also`.

    Return one row per trial and clip (trial_id, sample_id, player, true rudiment, predicted, correct, `_CLIP`, and the
    float32 `LOGITS`), and one remark for each file that cannot be read.
    """
    tables, remarks = [], []
    for trial in trials:
        path = run.trial(trial.trial_id) / predictions_name(tested)
        if not path.is_file():
            continue
        try:
            tables.append(_read(path).assign(trial_id=trial.trial_id))
        except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are among these
            why = one_line(error, 200)
            remarks.append(f"{trial.trial_id}: {path.name} is damaged ({why}); resuming does not write it again")
    columns = ["trial_id", *_NEEDED, "predicted", "correct", *_CLIP, *LOGITS]
    if not tables:
        return pd.DataFrame(columns=columns), remarks
    whole = pd.concat(tables, ignore_index=True)[columns]
    return whole.astype(dict.fromkeys(_REPEATED, "category")), remarks


def _read(path: Path) -> pd.DataFrame:
    """Read one trial's table; raise a ValueError, KeyError, TypeError or OSError if it is damaged."""
    table = _table(path, [*_NEEDED, *_CLIP, *LOGITS])
    logits = table[LOGITS].to_numpy(np.float32)
    if not np.isfinite(logits).all():
        raise ValueError("some logits are not finite")
    own = table[_NEEDED].astype(str)
    for name in _CLIP:
        if name in ("tempo_bpm", "duration_sec"):
            own[name] = table[name].astype(float) if name in table else np.nan
        else:
            own[name] = table[name].fillna("").astype(str) if name in table else ""
    own["predicted"] = np.array(SLUGS)[logits.argmax(1)]
    own["correct"] = own.predicted == own.rudiment
    return pd.concat([own, pd.DataFrame(logits, columns=LOGITS)], axis=1)


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read those of the columns that a table of clips has; the needed ones must be intact."""
    with pq.ParquetFile(path) as file:
        if (rows := file.metadata.num_rows) > _MOST_ROWS:
            raise ValueError(f"{rows} rows, more than {_MOST_ROWS}")
        # The pandas metadata of the file are not needed.
        table = file.read(list(columns)).to_pandas(ignore_metadata=True)
    if not table["rudiment"].isin(SLUGS).all():
        raise ValueError("some rudiments are unknown")
    if table["sample_id"].duplicated().any():
        raise ValueError("some clips occur twice")
    return table


def read_baseline(run: RunDirectory, name: str) -> pd.DataFrame | None:
    """Read a baseline's test predictions (sample_id, player, rudiment, predicted, correct); None if there are none.

    Raise a ValueError, KeyError, TypeError or OSError if they are damaged.
    """
    path = predictions_path(run.path, name)
    if not path.is_file():
        return None
    own = _table(path, [*_NEEDED, "predicted"]).astype(str)
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
