"""Grouping of recordings of unknown players by their file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from sousaphone.errors import UserError
from sousaphone.rudiments import canonical_slug
from sousaphone.text import counted

NAME_PLAYERS = "sort the recordings into PLAYER/RUDIMENT/, or give a CSV file with a column player"
_NUMBER = re.compile(r"[\s_.(-]*\d+\)?$")
_GAP = r"[\s_.-]"
_TEMPO = re.compile(rf"{_GAP}*(?:\d+{_GAP}*bpm|bpm{_GAP}*\d+)(?![a-z\d])", re.IGNORECASE)


def stand_ins(
    origin: Path, audio_paths: Sequence[str], labels: Sequence[str], splits: bool
) -> tuple[list[str], tuple[str, ...]]:
    """Return a substitute for the player of each recording, and notes for the user.

    The substitute is the file name without the rudiment's name, a tempo in bpm and the final number, such as `anna` for
    `anna_flam_90bpm_2.wav`. Takes of one player whose names differ otherwise may be in two splits.

    Args:
        labels: the rudiment of each recording, as given.
        splits: whether the substitutes are used for splits, which needs three of them.
    """
    stems = [_stem(PurePosixPath(path).stem, label) for path, label in zip(audio_paths, labels, strict=True)]
    distinct = sorted(set(stems))
    if len(distinct) >= 3:
        split = f"split by {len(distinct)} file name stems, so a player may be in two splits"
        return stems, (f"players unknown: {split}; {NAME_PLAYERS}",) if splits else ()
    if not splits:
        return ["unnamed"] * len(stems), (f"players unknown: all clips count as one player's; {NAME_PLAYERS}",)
    raise UserError(
        f"{origin} does not name the players, and the file names have only {counted(len(distinct), 'different stem')} "
        f"({', '.join(distinct)}); train, validation and test need different players, so at least 3: {NAME_PLAYERS}"
    )


def _stem(name: str, label: str) -> str:
    left = _NUMBER.sub("", _TEMPO.sub("", _rudiment(label).sub("_", name))).strip(" _-.()")
    return "unnamed" if not left or left.isdigit() else left  # a number alone counts takes


@cache
def _rudiment(label: str) -> re.Pattern[str]:
    """Match the rudiment's name in any spelling, as a separate word."""
    words = {tuple(re.findall(r"[a-z0-9]+", text.lower())) for text in (label, canonical_slug(label))}
    pattern = "|".join(f"{_GAP}*".join(name) for name in sorted(words, key=lambda name: -len("".join(name))))
    return re.compile(rf"{_GAP}*(?<![a-z])(?:{pattern})(?![a-z]){_GAP}*", re.IGNORECASE)
