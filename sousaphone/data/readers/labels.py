"""Labels of any form under one set of names, and the checks that all forms share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from sousaphone.data.readers.player_groups import by_stem, stem_note
from sousaphone.data.splits import assign_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS, canonical_slug, nearest

# Our columns, and SOUSA's names for them.
TEXT = {
    "sample_id": "sample_id",
    "player": "profile_id",
    "rudiment": "rudiment_slug",
    "audio_path": "audio_path",
    "skill_tier": "skill_tier",
    "soundfont": "soundfont",
    "preset": "augmentation_preset",
    "group_id": "augmentation_group_id",
}
NUMBERS = {"duration_sec": "duration_sec", "tempo_bpm": "tempo_bpm"}
# The table's first columns; those of TEXT and NUMBERS that are not among them follow.
_FIRST = ("sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "modified_ns")
_MOST = 5  # names spelt out in a message


def lacking(origin: Path, missing: Sequence[str], present: Collection[str]) -> UserError:
    """The error for columns that must be there and are not."""
    return UserError(
        f"{origin} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has: "
        f"{', '.join(sorted(present))}; add what is missing, or rename the column that holds it"
    )


def check_labels(
    raw: pd.DataFrame, columns: Mapping[str, str], needed: Collection[str], origin: Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table of labels under our names, with settled types, canonical rudiments and their class numbers, and what to
    say about it.

    Args:
        columns: our name: the name in `raw`, for those that are there.
        needed: our names of the columns in which every cell must be filled.
        origin: where the labels come from, for messages.

    Raises:
        UserError: no rows, an empty cell, a clip listed twice, an unknown rudiment.
    """
    if raw.empty:
        raise UserError(f"{origin} has no clips (0 rows); generate or copy the data set again")
    for name in needed:
        cells = raw[columns[name]]
        empty = cells.isna() | (cells.astype(str).str.strip() == "")
        if empty.any():
            raise UserError(
                f"{origin}: {empty.sum()} of {len(raw)} rows have no {columns[name]}; fill it in or remove the rows"
            )
    clips = pd.DataFrame(index=raw.index)
    for name in TEXT:
        clips[name] = _text(raw[columns[name]]) if name in columns else ""
    # A path is left as the disk has it, but for what makes two of one: `./a`, `a//b`.
    if "audio_path" in columns:
        paths = raw[columns["audio_path"]].astype(str)
        clips["audio_path"] = paths.str.replace(r"/(?:\.?/)+", "/", regex=True).str.removeprefix("./")
    notes = []
    for name in NUMBERS:
        if name not in columns:
            clips[name] = float("nan")
            continue
        cells = raw[columns[name]].astype(object)
        clips[name] = pd.to_numeric(cells, errors="coerce").astype(float)
        unknown = cells[clips[name].isna()]
        odd = unknown[_text(unknown) != ""]
        if len(odd):
            notes.append(
                f"{len(odd)} of {len(raw)} cells of {columns[name]} are no numbers (the first: {odd.iloc[0]!r}) and "
                "count as not known; write numbers with a point"
            )
    for name in ("sample_id", "audio_path"):
        repeated = clips[name].duplicated()
        if name in columns and repeated.any():
            raise UserError(
                f"{origin}: {columns[name]} {clips[name][repeated].iloc[0]!r} occurs more than once "
                f"({repeated.sum()} repeated rows); each clip is one row: remove the others"
            )
    slugs = canonical_slugs(clips.rudiment.unique(), origin)
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
        shown = ", ".join([*near, *far][:_MOST]) + (f" and {len(unknown) - _MOST} more" if len(unknown) > _MOST else "")
        raise UserError(
            f"{origin}: {len(unknown)} of {len(names)} names are not among the 40 rudiments: {shown}"
            + (f"; the 40 are: {', '.join(SLUGS)}" if far else "")
        )
    return slugs


def split_players(
    clips: pd.DataFrame, listed: Mapping[str, str] | None, lister: str = "splits.json", only_test: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The clips of the players who have a split, with that split, and what to say about it.

    Args:
        listed: the split of each player as the data set gives it; None to split the players 80/10/10.
        lister: what gives it, for messages.
        only_test: every clip is a test clip, whoever plays.

    Raises:
        UserError: too few players to fill every split.
    """
    if only_test:
        return clips.assign(split="test"), ()
    tiers = clips.drop_duplicates("player").set_index("player")["skill_tier"].to_dict()
    split_of, notes = assign_splits(tiers, listed, lister)
    clips = clips[clips.player.isin(split_of.keys())].reset_index(drop=True)
    clips["split"] = clips.player.map(split_of)
    return clips, notes


def splits_of_players(clips: pd.DataFrame, remedy: str) -> dict[str, str]:
    """The split of every player, from a split given for every clip.

    Raises:
        UserError: a player in two splits.
    """
    pairs = clips[["player", "split"]].drop_duplicates()
    twice = pairs[pairs.player.duplicated()]
    if len(twice):
        player = twice.player.iloc[0]
        splits = " and ".join(sorted(pairs.split[pairs.player == player]))
        raise UserError(f"player {player!r} is in both {splits}; a player belongs to one split: {remedy}")
    return dict(zip(pairs.player, pairs.split, strict=True))


def stand_ins(
    origin: Path, audio_paths: Sequence[str], labels: Sequence[str], only_test: bool
) -> tuple[list[str], tuple[str, ...]]:
    """What stands for the player of each recording, see `by_stem`, and what to say about it.

    Raises:
        UserError: too few different ones to make splits, where there are to be any.
    """
    try:
        stems = by_stem(origin, audio_paths, labels)
    except UserError:
        if not only_test:
            raise
        return ["unnamed"] * len(audio_paths), ("players unknown: all clips count as one player's",)
    return stems, () if only_test else (stem_note(stems),)


def in_order(clips: pd.DataFrame) -> pd.DataFrame:
    """The same with the columns of every other data set, in their order."""
    return clips[[*_FIRST, *(name for name in (*NUMBERS, *TEXT) if name not in _FIRST)]]
