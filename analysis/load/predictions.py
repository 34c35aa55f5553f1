"""The predictions of all trials on the test clips, as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.load.trials import Trial
from sousaphone.errors import printable
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import predictions_path
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.predictions import AVERAGED_LOGITS, CLIP, DAMAGED, LOGITS, MOST_ROWS, NEEDED, NUMBERS, read_table
from sousaphone.runs.trial_record import predictions_name
from sousaphone.text import one_line

_REPEATED = ["trial_id", "player", "rudiment", "predicted", "skill_tier", "soundfont", "preset"]


def read_predictions(
    run: RunDirectory, trials: Sequence[Trial], tested: str = "test"
) -> tuple[pd.DataFrame, list[str]]:
    """Read the predictions of all trials that have some, on the test set `tested`: `test`, `held_out` or `also`.

    Return one row per trial and clip (trial_id, sample_id, player, true rudiment, predicted, correct, `CLIP`, the
    float32 `LOGITS` and, if any trial has them, windows and `AVERAGED_LOGITS`), and one remark for each file that
    cannot be read.
    """
    tables, remarks, left = [], [], MOST_ROWS
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
    columns = ["trial_id", *NEEDED, "predicted", "correct", *CLIP, *LOGITS]
    if not tables:
        return pd.DataFrame(columns=columns), remarks
    whole = pd.concat(tables, ignore_index=True)
    whole = whole[[*columns, *(name for name in ("windows", *AVERAGED_LOGITS) if name in whole)]]
    return whole.astype(dict.fromkeys(_REPEATED, "category")), remarks


def _read(path: Path, most: int) -> pd.DataFrame:
    """Read one trial's table; raise one of `DAMAGED` if it is not intact."""
    table = read_table(path, [*NEEDED, *CLIP, *LOGITS, "windows", *AVERAGED_LOGITS], most)
    whole = "windows" in table
    logits, averaged = (table[own].to_numpy(np.float32) for own in (LOGITS, AVERAGED_LOGITS if whole else []))
    if not (np.isfinite(logits).all() and np.isfinite(averaged).all()):
        raise ValueError("some logits are not finite")
    own = pd.DataFrame({name: _printable(table[name]) for name in NEEDED})
    for name in CLIP:
        if name in NUMBERS:
            own[name] = table[name].astype(float) if name in table else np.nan
        else:
            own[name] = _printable(table[name]) if name in table else ""
    own["predicted"] = np.array(SLUGS)[logits.argmax(1)]
    own["correct"] = own.predicted == own.rudiment
    if whole:
        own["windows"] = table["windows"].astype(int)
    parts = [own, pd.DataFrame(logits, columns=LOGITS)]
    return pd.concat([*parts, pd.DataFrame(averaged, columns=AVERAGED_LOGITS)] if whole else parts, axis=1)


def _printable(cells: pd.Series) -> pd.Series:
    """Convert a column to text that can be printed, '' for missing values."""
    cells = cells.astype("category")
    words = {word: printable(str(word)) for word in cells.cat.categories}
    return cells.astype(object).map(words).fillna("").astype(str)


def read_baseline(run: RunDirectory, name: str) -> pd.DataFrame | None:
    """Read a baseline's test predictions (sample_id, player, rudiment, predicted, correct); None if there are none.

    Raise one of `DAMAGED` if they are not intact.
    """
    path = predictions_path(run.path, name)
    if not path.is_file():
        return None
    table = read_table(path, [*NEEDED, "predicted"])
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
