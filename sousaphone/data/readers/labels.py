"""Validate raw labels of any layout and complete them to the table of a data set."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import durations, find_files
from sousaphone.data.readers.player_groups import NAME_PLAYERS, stand_ins
from sousaphone.data.readers.raw_labels import NUMBERS, REQUIRED, TEXT, RawLabels
from sousaphone.data.splits import SPLIT_NAMES, assign_splits, read_splits
from sousaphone.errors import UserError, printable
from sousaphone.rudiments import SLUGS, canonical_slug, is_rudiment, nearest
from sousaphone.text import first_few

# The table's first columns; the others of NUMBERS and TEXT follow.
_FIRST = ("sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "modified_ns")
_MAX_NAMES = 5  # names listed in a message


def finish(raw: RawLabels, only_test: bool = False) -> Dataset:
    """Build the data set from raw labels; `only_test` as for `read_dataset`."""
    clips, notes = check_labels(raw)
    if "sample_id" not in raw.columns:
        clips["sample_id"] = clips.audio_path
    known = raw.table.columns.intersection(["size_bytes", "modified_ns"])
    clips[known] = raw.table[known]
    clips, split_notes = _split(raw, clips, only_test)
    audio_paths = clips.audio_path.tolist()
    if raw.file_list:
        audio_paths, sizes, times = find_files(raw.root, audio_paths, f"remove their rows from {raw.file_list}")
        clips = clips.assign(audio_path=audio_paths, size_bytes=sizes, modified_ns=times)
    if raw.read_headers:
        clips["duration_sec"] = durations(raw.root, audio_paths)
    columns = list(dict.fromkeys((*_FIRST, *NUMBERS, *TEXT)))
    notes = (*notes, *split_notes, *raw.notes)
    return Dataset(raw.root, clips[columns], notes, players_known="player" in raw.columns)


def check_labels(raw: RawLabels) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Validate labels; return a table with our column names, types, slugs and class indices, and notes for the user."""
    if raw.table.empty:
        raise UserError(f"{raw.origin} has no clips (0 rows); generate or copy the data set again")
    for name in (name for name in REQUIRED if name in raw.columns):
        cells = raw.table[raw.columns[name]]
        empty = cells.isna() | (cells.astype(str).str.strip() == "")
        if empty.any():
            raise UserError(
                f"{raw.origin}: {empty.sum()} of {len(cells)} rows have no {raw.columns[name]}; fill it in or remove "
                "the rows"
            )
    clips = pd.DataFrame(index=raw.table.index)
    for name in TEXT:
        clips[name] = _text(raw.table[raw.columns[name]]) if name in raw.columns else ""
    # Paths are kept as on disk, except for equivalent spellings: `./a`, `a//b`.
    if "audio_path" in raw.columns:
        paths = raw.table[raw.columns["audio_path"]].astype(str)
        clips["audio_path"] = paths.str.replace(r"/(?:\.?/)+", "/", regex=True).str.removeprefix("./")
    notes = []
    for name in NUMBERS:
        if name not in raw.columns:
            clips[name] = float("nan")
            continue
        cells = raw.table[raw.columns[name]].astype(object)
        clips[name] = pd.to_numeric(cells, errors="coerce").astype(float)
        unknown = cells[clips[name].isna()]
        invalid = unknown[_text(unknown) != ""]
        if len(invalid):
            notes.append(
                f"{len(invalid)} of {len(cells)} cells of {raw.columns[name]} are not numbers (the first: "
                f"{invalid.iloc[0]!r}) and treated as missing; use a decimal point"
            )
    for name in ("sample_id", "audio_path"):
        repeated = clips[name][clips[name].duplicated()]
        if name in raw.columns and len(repeated):
            raise UserError(
                f"{raw.origin}: {raw.columns[name]} {repeated.iloc[0]!r} occurs more than once "
                f"({len(repeated)} repeated rows); keep one row per clip and remove the others"
            )
    slugs = canonical_slugs(clips.rudiment.unique(), raw.origin)
    clips["rudiment"] = clips.rudiment.map(slugs)
    clips["label"] = clips.rudiment.map({slug: label for label, slug in enumerate(SLUGS)}).astype("int64")
    return clips, tuple(notes)


def _text(cells: pd.Series) -> pd.Series:
    """Convert cells to stripped text in Unicode normal form C that can be printed, '' for missing values."""
    return cells.astype(object).fillna("").astype(str).map(printable).str.strip().str.normalize("NFC")


def canonical_slugs(names: Collection[str], origin: Path) -> dict[str, str]:
    """Return the class of each name; all unknown names are in one error, with the nearest rudiments."""
    unknown = [name for name in names if not is_rudiment(name)]
    if len(unknown) > 1:
        hints = {name: nearest(name) for name in unknown}
        near = [f"{name!r} (did you mean {hint}?)" for name, hint in hints.items() if hint]
        far = [repr(name) for name, hint in hints.items() if not hint]
        raise UserError(
            f"{origin}: {len(unknown)} of {len(names)} rudiments are unknown: {first_few([*near, *far], _MAX_NAMES)}"
            + (f"; choose from: {', '.join(SLUGS)}" if far else "")
        )
    try:
        return {name: canonical_slug(name) for name in names}
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def _split(raw: RawLabels, clips: pd.DataFrame, only_test: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the clips of the players with a split, with columns player and split, and notes for the user."""
    given = None if only_test else raw.splits
    named, separate = "player" in raw.columns, given is not None and given.separate
    notes: tuple[str, ...] = ()
    if not named:
        labels = raw.table[raw.columns["rudiment"]].tolist()
        splits = not (only_test or separate)
        clips["player"], notes = stand_ins(raw.origin, clips.audio_path.tolist(), labels, splits)
    if only_test:
        return clips.assign(split="test"), notes
    listed, lister = None, "splits.json"
    if given is not None:
        by_clip = given.cells.str.strip().str.lower().map(SPLIT_NAMES)
        unknown = given.cells[by_clip.isna()]
        if len(unknown):
            raise UserError(
                f"{raw.origin}: {len(unknown)} of {len(by_clip)} rows have no known split (the first: "
                f"{unknown.iloc[0]!r}); give each one of: train, validation, test"
            )
        if separate and not named:
            clips["player"] = by_clip + "/" + clips.player
            notes = (f"players unknown: split by folder, so a player may be in two splits; {NAME_PLAYERS}",)
        listed, lister = _splits_of_players(clips.player, by_clip, given.remedy), given.lister
    elif named:
        listed = read_splits(raw.root / lister)
    tiers = clips.drop_duplicates("player").set_index("player")["skill_tier"].to_dict()
    split_of, split_notes = assign_splits(tiers, listed, lister, raw.to_split)
    clips = clips[clips.player.isin(split_of.keys())].reset_index(drop=True)
    clips["split"] = clips.player.map(split_of)
    return clips, notes + split_notes if named or given is not None else notes


def _splits_of_players(players: pd.Series, splits: pd.Series, remedy: str) -> dict[str, str]:
    """Derive the split of every player from the splits of the clips."""
    pairs = pd.DataFrame({"player": players, "split": splits}).drop_duplicates()
    repeated = pairs.player[pairs.player.duplicated()]
    if len(repeated):
        player = repeated.iloc[0]
        both = " and ".join(sorted(pairs.split[pairs.player == player]))
        raise UserError(f"player {player!r} is in both {both}; each player must be in one split: {remedy}")
    return dict(zip(pairs.player, pairs.split, strict=True))
