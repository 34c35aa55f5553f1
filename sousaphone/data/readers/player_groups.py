"""Recordings whose players nobody has named: which belong together, going by their file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from sousaphone.errors import UserError
from sousaphone.rudiments import canonical_slug

NAME_PLAYERS = "sort the recordings into PLAYER/RUDIMENT/, or give a CSV file with a column player"
_NUMBER = re.compile(r"[\s_.(-]*\d+\)?$")
_GAP = r"[\s_.-]"
_TEMPO = re.compile(rf"{_GAP}*(?:\d+{_GAP}*bpm|bpm{_GAP}*\d+)(?![a-z\d])", re.IGNORECASE)


def stand_ins(
    origin: Path, audio_paths: Sequence[str], labels: Sequence[str], splits: bool
) -> tuple[list[str], tuple[str, ...]]:
    """What stands for the player of each recording, and what to say about it: its file name without the rudiment's
    name, a tempo in bpm and the number at its end, such as `anna` for `anna_flam_90bpm_2.wav`. Takes whose names differ
    in more than that may come into two splits.

    Args:
        origin: where the recordings come from, for messages.
        labels: the rudiment of each, as it is written there.
        splits: whether there are to be splits by them; without, any number of different ones will do.

    Raises:
        UserError: fewer than three different ones, so that no split can be made.
    """
    stems = [_stem(PurePosixPath(path).stem, label) for path, label in zip(audio_paths, labels, strict=True)]
    distinct = sorted(set(stems))
    if len(distinct) >= 3:
        split = f"split by name stem ({len(distinct)} of them), so a player may be in two splits"
        return stems, (f"players unknown: {split}; {NAME_PLAYERS}",) if splits else ()
    if not splits:
        return ["unnamed"] * len(stems), (f"players unknown: all clips count as one player's; {NAME_PLAYERS}",)
    raise UserError(
        f"{origin} does not say who plays, and by their file names the recordings fall into only {len(distinct)} "
        f"({', '.join(distinct)}); train, validation and test each need a player or session of their own: put the "
        "recordings into PLAYER/RUDIMENT/, or give a CSV file with the columns path, label and player"
    )


def _stem(name: str, label: str) -> str:
    left = _NUMBER.sub("", _TEMPO.sub("", _rudiment(label).sub("_", name))).strip(" _-.()")
    # A number alone counts takes; it names nobody.
    return "unnamed" if not left or left.isdigit() else left


@cache
def _rudiment(label: str) -> re.Pattern[str]:
    """The rudiment's name in any spelling, as a word of its own."""
    words = {tuple(re.findall(r"[a-z0-9]+", text.lower())) for text in (label, canonical_slug(label))}
    spelt = "|".join(f"{_GAP}*".join(name) for name in sorted(words, key=lambda name: -len("".join(name))))
    return re.compile(rf"{_GAP}*(?<![a-z])(?:{spelt})(?![a-z]){_GAP}*", re.IGNORECASE)
