"""Raw labels of any form made into the one table: checked, split by player, the files looked at, all in order."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import durations, find_files
from sousaphone.data.readers.player_groups import NAME_PLAYERS, stand_ins
from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, GivenSplits, RawLabels
from sousaphone.data.splits import SPLIT_NAMES, assign_splits, read_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS, canonical_slug, nearest
from sousaphone.text import first_few

# The table's first columns; those of NUMBERS and TEXT that are not among them follow.
_FIRST = ("sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "modified_ns")
_MOST = 5  # names spelt out in a message


def finish(raw: RawLabels, only_test: bool = False) -> Dataset:
    """The data set of which a reader has found the labels.

    Args:
        only_test: every clip is a test clip, whatever splits there are, and any number of players will do.

    Raises:
        UserError: no rows, an empty cell, a clip listed twice, an unknown rudiment or split, a player in two splits,
            too few players to fill every split, a file that is missing or is no audio.
    """
    clips, notes = check_labels(raw)
    if "sample_id" not in raw.columns:
        clips["sample_id"] = clips.audio_path
    known = raw.table.columns.intersection(["size_bytes", "modified_ns"])
    clips[known] = raw.table[known]
    clips, said = _split(raw, clips, only_test)
    audio_paths = clips.audio_path.tolist()
    if raw.file_list:
        clips["size_bytes"], clips["modified_ns"] = find_files(raw.root, audio_paths, raw.file_list)
    if raw.read_headers:
        clips["duration_sec"] = durations(raw.root, audio_paths)
    if "size_bytes" not in clips:
        statuses = [(raw.root / path).stat() for path in audio_paths]
        clips["size_bytes"] = [status.st_size for status in statuses]
        clips["modified_ns"] = [status.st_mtime_ns for status in statuses]
    columns = [*_FIRST, *(name for name in (*NUMBERS, *TEXT) if name not in _FIRST)]
    notes = (*notes, *said, *raw.notes)
    return Dataset(raw.root, clips[columns], notes, players_known="player" in raw.columns)


def check_labels(raw: RawLabels) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table of labels under our names, with settled types, canonical rudiments and their class numbers, and what to
    say about it.

    Raises:
        UserError: no rows, an empty cell, a clip listed twice, an unknown rudiment.
    """
    if raw.table.empty:
        raise UserError(f"{raw.origin} has no clips (0 rows); generate or copy the data set again")
    for name in raw.needed:
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
    # A path is left as the disk has it, but for what makes two of one: `./a`, `a//b`.
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
        odd = unknown[_text(unknown) != ""]
        if len(odd):
            notes.append(
                f"{len(odd)} of {len(cells)} cells of {raw.columns[name]} are no numbers (the first: {odd.iloc[0]!r}) "
                "and count as not known; write numbers with a point"
            )
    for name in ("sample_id", "audio_path"):
        repeated = clips[name].duplicated()
        if name in raw.columns and repeated.any():
            raise UserError(
                f"{raw.origin}: {raw.columns[name]} {clips[name][repeated].iloc[0]!r} occurs more than once "
                f"({repeated.sum()} repeated rows); each clip is one row: remove the others"
            )
    slugs = canonical_slugs(clips.rudiment.unique(), raw.origin)
    clips["rudiment"] = clips.rudiment.map(slugs)
    clips["label"] = clips.rudiment.map({slug: label for label, slug in enumerate(SLUGS)}).astype("int64")
    return clips, tuple(notes)


def _text(cells: pd.Series) -> pd.Series:
    """Cells as text without spaces around it and in one form of Unicode; '' where there is none."""
    return cells.astype(object).fillna("").astype(str).str.strip().str.normalize("NFC")


def canonical_slugs(names: Collection[str], origin: Path) -> dict[str, str]:
    """The class of each name.

    Raises:
        UserError: names that are no rudiment's, all of them in one line with the nearest ones.
    """
    slugs, unknown = {}, {}
    for name in names:
        try:
            slugs[name] = canonical_slug(name)
        except UserError as error:
            unknown[name] = str(error)
    if len(unknown) == 1:
        raise UserError(f"{origin}: {next(iter(unknown.values()))}")
    if unknown:
        hints = {name: nearest(name) for name in unknown}
        near = [f"{name!r} (did you mean {hint}?)" for name, hint in hints.items() if hint]
        far = [repr(name) for name, hint in hints.items() if not hint]
        raise UserError(
            f"{origin}: {len(unknown)} of {len(names)} names are not among the 40 rudiments: "
            + first_few([*near, *far], _MOST)
            + (f"; the 40 are: {', '.join(SLUGS)}" if far else "")
        )
    return slugs


def _split(raw: RawLabels, clips: pd.DataFrame, only_test: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The clips of the players who have a split, with players and splits, and what to say about these."""
    given = None if only_test else raw.splits
    named, apart = "player" in raw.columns, given is not None and given.apart
    notes: tuple[str, ...] = ()
    if not named:
        labels = raw.table[raw.columns["rudiment"]].tolist()
        splits = not (only_test or apart)
        clips["player"], notes = stand_ins(raw.origin, clips.audio_path.tolist(), labels, splits)
    if only_test:
        return clips.assign(split="test"), notes
    split_by, lister = None, "splits.json"
    if given is not None:
        by_clip = _known_splits(given, raw.origin)
        if apart and not named:
            clips["player"] = by_clip + "/" + clips.player
            notes = (f"players unknown: the folders give the splits, so a player may be in two; {NAME_PLAYERS}",)
        split_by, lister = _splits_of_players(clips.player, by_clip, given.remedy), given.lister
    elif named:
        split_by = read_splits(raw.root / lister)
    tiers = clips.drop_duplicates("player").set_index("player")["skill_tier"].to_dict()
    split_of, said = assign_splits(tiers, split_by, lister)
    clips = clips[clips.player.isin(split_of.keys())].reset_index(drop=True)
    clips["split"] = clips.player.map(split_of)
    return clips, notes + said if named or given is not None else notes


def _known_splits(given: GivenSplits, origin: Path) -> pd.Series:
    splits = given.cells.str.strip().str.lower().map(SPLIT_NAMES)
    if splits.isna().any():
        raise UserError(
            f"{origin}: {splits.isna().sum()} of {len(splits)} rows have no known split (the first: "
            f"{given.cells[splits.isna()].iloc[0]!r}); give each one of: train, validation, test"
        )
    return splits


def _splits_of_players(players: pd.Series, splits: pd.Series, remedy: str) -> dict[str, str]:
    """The split of every player, from a split given for every clip."""
    pairs = pd.DataFrame({"player": players, "split": splits}).drop_duplicates()
    twice = pairs[pairs.player.duplicated()]
    if len(twice):
        player = twice.player.iloc[0]
        both = " and ".join(sorted(pairs.split[pairs.player == player]))
        raise UserError(f"player {player!r} is in both {both}; a player belongs to one split: {remedy}")
    return dict(zip(pairs.player, pairs.split, strict=True))
