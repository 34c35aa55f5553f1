"""Accuracy on slices of the test clips: by tempo, length, tier, SoundFont and room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from sousaphone.scores import accuracy_interval

MOST_NAMES = 12  # SoundFonts or rooms shown
_MOST_BINS = 6
_TINY = 1e-9  # relative to a step: 0.3 / 0.1 is slightly less than 3
_SAME = 1e-6  # relative difference below which two numbers are equal up to rounding
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
# (column, title, unit; None for columns of names)
DIMENSIONS: tuple[tuple[str, str, str | None], ...] = (
    ("tempo_bpm", "Tempo", "BPM"),
    ("duration_sec", "Annotated duration", "s"),
    ("skill_tier", "Skill tier", None),
    ("preset", "Room", None),
    ("soundfont", "SoundFont", None),
)
_TIERS = ("novice", "beginner", "intermediate", "advanced", "professional")


@dataclass(frozen=True)
class Slice:
    """The accuracy of one arm on one slice of the clips."""

    accuracy: float  # mean over players, seeds averaged first; a fraction
    low: float  # lower end of its 95 % interval, see `accuracy_interval`
    high: float  # upper end
    clips: int  # distinct clips
    players: int


def possible(accuracy: float) -> float:
    """Clip the end of an interval to [0, 1] for display; NaN stays NaN."""
    return float(np.clip(accuracy, 0.0, 1.0))


def by_player(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each player's `accuracy` (a fraction) from one arm's rows, averaged over seeds, then over clips, and its
    number of `clips`."""
    own = rows.groupby("sample_id", observed=True).agg(player=("player", "first"), correct=("correct", "mean"))
    return own.groupby("player", observed=True).correct.agg(accuracy="mean", clips="size")


def accuracy_of(rows: pd.DataFrame) -> Slice:
    """Return one arm's accuracy on the clips in `rows` (sample_id, player, correct; at least one row)."""
    players = by_player(rows)
    interval = accuracy_interval(players.accuracy.to_numpy(), players.clips.to_numpy())
    return Slice(*interval, int(players.clips.sum()), len(players))


def parts(clips: pd.DataFrame, column: str) -> pd.Series | None:
    """Assign each clip to a slice of one dimension, as an ordered category; None if there are fewer than two slices.

    Numbers are binned into a few bins of equal, round width. Of many names, those with the most clips are kept. Clips
    without a label are in no slice.
    """
    if column not in clips:
        return None
    numbers = any(name == column and unit for name, _, unit in DIMENSIONS)
    found = _bins(clips[column].astype(float)) if numbers else _names(clips[column], column)
    return found if found is not None and found.nunique() > 1 else None


def _bins(values: pd.Series) -> pd.Series | None:
    values = values.where(np.isfinite(values))
    known = values.dropna()
    if known.empty:
        return None
    low, high = float(known.min()), float(known.max())
    if high - low <= _SAME * max(abs(low), abs(high)):
        return None
    raw = (high - low) / _MOST_BINS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in _STEPS if s * size >= raw * (1 - 1e-9))
    first = math.floor(low / step + _TINY)
    bins = max(math.ceil(high / step - _TINY) - first, 1)
    # The last bin includes its upper edge.
    codes = np.floor(values / step + _TINY).sub(first).clip(0, bins - 1).fillna(-1).astype(int)
    edges = [f"{step * (first + number):.10g}" for number in range(bins + 1)]
    labels = [f"{start}–{end}" for start, end in pairwise(edges)]
    return pd.Series(pd.Categorical.from_codes(codes, labels, ordered=True), index=values.index)


def _names(values: pd.Series, column: str) -> pd.Series | None:
    names = values.astype(str).mask(values.isna() | (values.astype(str).str.strip() == ""))
    kept = sorted(names.value_counts().index[:MOST_NAMES])
    if column == "skill_tier":  # SOUSA's tiers from the least skilled on, then others
        kept.sort(key=lambda name: _TIERS.index(name) if name in _TIERS else len(_TIERS))
    return names.astype(pd.CategoricalDtype(kept, ordered=True))


def slices_of(rows: pd.DataFrame, parts_of_clip: pd.Series) -> dict[str, Slice]:
    """Return one arm's accuracy on each slice that has clips, in the order of the categories.

    `rows` are the arm's predictions (sample_id, player, correct), `parts_of_clip` is from `parts`, by sample_id.
    """
    part_of_row = rows.sample_id.map(parts_of_clip.astype(object))
    own = {part: rows[part_of_row == part] for part in parts_of_clip.cat.categories}
    return {part: accuracy_of(mine) for part, mine in own.items() if len(mine)}
