"""Assignment of players to splits, and subsets of a given size."""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sousaphone.config import DATASET_SIZES
from sousaphone.data.dataset import Dataset
from sousaphone.errors import UserError, printable
from sousaphone.files import read_json
from sousaphone.text import counted, first_few, one_line

SPLITS = ("train", "validation", "test")
# Accepted names, in lower case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# Split of the test players' clips of the timbre that is excluded from training.
HELD_OUT = "held_out"
TIMBRES = ("soundfont", "preset")
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1, HELD_OUT: 0.1}
_KEYS = {"train_profile_ids": "train", "val_profile_ids": "validation", "test_profile_ids": "test"}


def read_splits(path: Path) -> dict[str, str] | None:
    """Read the split of every player in a splits.json; None if there is no such file."""
    remedy = f"{path} must contain the lists {', '.join(_KEYS)}; correct it, or delete it to split players 80/10/10"
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); make it readable") from None
    except ValueError as error:
        raise UserError(f"splits.json cannot be read ({one_line(error)}): {remedy}") from None
    if not isinstance(content, dict) or not _KEYS.keys() & content.keys():
        raise UserError(f"splits.json does not have SOUSA's format: {remedy}")
    split_of: dict[str, str] = {}
    for key, split in _KEYS.items():
        players = content.get(key, [])
        if not isinstance(players, list) or not all(isinstance(player, str | int) for player in players):
            raise UserError(f"splits.json: {key} is not a list of player names: {remedy}")
        names = (printable(str(name)).strip() for name in players)
        for player in (unicodedata.normalize("NFC", name) for name in names):  # as in the labels
            if split_of.setdefault(player, split) != split:
                raise UserError(
                    f"splits.json lists player {player!r} in both {split_of[player]} and {split}; "
                    f"each player must be in one split: keep the name in one of the lists of {path}"
                )
    return split_of


def assign_splits(
    tiers: Mapping[str, str],
    listed: Mapping[str, str] | None,
    lister: str = "splits.json",
    how: str = "list them in splits.json",
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Assign every player to one split.

    Players keep their split in `listed`; players that it does not list are excluded. A validation or test split without
    players takes whole players from train: a tenth of all players, at least one, spread over the skill tiers. Without
    `listed` all players start in train, so this gives 80/10/10.

    Args:
        tiers: the skill tier ('' if unknown) of each player with clips.
        lister: the source of `listed`, for messages.
        how: how to choose the players of each split in this layout, for messages.

    Returns:
        The split of each player kept, and notes for the user.
    """
    notes = []
    known = dict.fromkeys(tiers, "train") if listed is None else listed
    split_of = {player: known[player] for player in tiers if player in known}
    unlisted = [player for player in tiers if player not in split_of]
    if not split_of:
        raise UserError(
            f"{lister} lists none of the {len(tiers)} players with clips (the first: {unlisted[0]!r}); "
            f"list them, or delete {lister} to split players 80/10/10"
        )
    if unlisted:
        excluded = f"excluded {counted(len(unlisted), 'player')} not listed in {lister}: {first_few(unlisted)}"
        notes.append(f"{excluded}; list them in {lister}, or remove their clips")

    empty = [split for split in ("test", "validation") if split not in split_of.values()]
    training = list(split_of.values()).count("train")
    if training <= len(empty):
        source, move = ("", "") if listed is None else (f" of {lister}, {training} in train", "move some to train, ")
        raise UserError(
            f"cannot split {counted(len(split_of), 'player')}{source}: train, validation and test need different "
            f"players, so at least 3; add players, {move}or use the recordings as a test set with launch.py "
            "--test-also, which accepts any number of players"
        )
    for index, split in enumerate(empty):
        pool = sorted(
            (player for player in split_of if split_of[player] == "train"),
            key=lambda player: (tiers[player], hashlib.sha256(player.encode()).digest()),
        )
        reserved = len(empty) - index  # players for train and for the next empty split
        count = min(max(1, round(SHARES[split] * len(split_of))), len(pool) - reserved)
        moved = [pool[int((i + 0.5) * len(pool) / count)] for i in range(count)]
        split_of.update(dict.fromkeys(moved, split))
        if listed is not None:
            taken = f"{lister}: no {split} player with clips: moved from train, {first_few(moved)}"
            notes.append(f"{taken}; to choose the players, {how}")
    if listed is None:
        sizes = Counter(split_of.values())
        counts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS)
        tier = " and skill tier" * any(tiers.values())
        notes.append(f"no splits given: players split 80/10/10 by name{tier} ({counts}); to choose the players, {how}")
    return split_of, tuple(notes)


def parse_hold_out(rule: str) -> tuple[str, str]:
    """Parse `soundfont=NAME` or `preset=NAME` into (column, name)."""
    column, sign, name = rule.partition("=")
    if not sign or column not in TIMBRES or not name:
        raise UserError(f"--hold-out {rule!r} is invalid; give soundfont=NAME or preset=NAME")
    return column, name


def hold_out(dataset: Dataset, rule: str) -> Dataset:
    """Exclude a timbre from training and validation; the test players' clips of it become the split HELD_OUT."""
    column, name = parse_hold_out(rule)
    has = dataset.clips[column] == name
    held = has & (dataset.clips.split == "test")
    if not held.any():
        known = sorted(set(dataset.clips[column][dataset.clips.split == "test"]) - {""})
        remedy = f"choose from: {', '.join(known)}" if known else f"the data names no {column}; leave it out"
        raise UserError(f"--hold-out {rule}: no test clip has that {column}; {remedy}")
    kept = dataset.clips[~has | held].copy()
    kept.loc[held[kept.index], "split"] = HELD_OUT
    if emptied := [split for split in SPLITS if split not in set(kept.split)]:
        raise UserError(f"--hold-out {rule}: every {emptied[0]} clip has that {column}; hold out another one")
    note = f"held out: {column} {name}; {len(dataset.clips) - len(kept):,} clips excluded from train and validation"
    return dataclasses.replace(dataset, clips=kept.reset_index(drop=True), notes=(*dataset.notes, note))


def draw(dataset: Dataset, size: str) -> Dataset:
    """Draw at most `DATASET_SIZES[size]` clips, divided 80/10/10 between the player splits.

    Held-out clips are additional, as many as test clips. The clips of a split have a fixed order (see `_order`), cut at
    its number, so each size contains the smaller ones. A number below that of the players is raised to one clip each.
    """
    if size not in DATASET_SIZES:
        raise UserError(f"dataset size {size!r} is unknown; choose one of: {', '.join(DATASET_SIZES)}")
    limit = DATASET_SIZES[size]
    if limit is None:
        return dataset
    kept, short, raised = [], [], []
    for split in SHARES:
        clips = dataset.clips[dataset.clips.split == split]
        if split == HELD_OUT and clips.empty:
            continue
        wanted, players = round(SHARES[split] * limit), clips.player.nunique()
        most = max(wanted, players)
        kept.append(_order(clips)[:most])
        if most > wanted:
            raised.append(f"{split} {most} instead of {wanted}")
        if len(clips) < most:
            short.append(f"{split} has {len(clips)} of {wanted}")
    changes = {"smaller splits are used whole": short, "enlarged to one clip of each player": raised}
    notes = [
        f"size {size} ({limit:,} clips, 80/10/10): {what}: {', '.join(splits)}"
        for what, splits in changes.items()
        if splits
    ]
    clips = dataset.clips.loc[np.sort(np.concatenate(kept))].reset_index(drop=True)
    return dataclasses.replace(dataset, clips=clips, notes=(*dataset.notes, *notes))


def _order(clips: pd.DataFrame) -> np.ndarray:
    """Return the index of `clips` in drawing order: round-robin over players and, within a player, over rudiments.

    Within a player × rudiment, other performances (`group_id`) come before further renderings of one. Players start
    at different rudiments, so every prefix is balanced over both. Randomness is a keyed hash of the names, so it
    depends neither on the order of the rows nor on other clips.
    """
    table = pd.DataFrame({"group": clips.group_id.where(clips.group_id != "", clips.sample_id)})
    table["random"] = _random(clips.sample_id)
    for column in ("player", "rudiment"):
        table[column] = np.unique(_random(clips[column]), return_inverse=True)[1]
    players, rudiments = table.player.max() + 1, table.rudiment.max() + 1
    table["distance"] = (table.rudiment - table.player * rudiments // players) % rudiments

    table = table.sort_values("random")
    table["rendering"] = table.groupby(["player", "rudiment", "group"]).cumcount()
    table = table.sort_values(["rendering", "random"])
    table["round"] = table.groupby(["player", "rudiment"]).cumcount()
    table = table.sort_values(["round", "distance"])
    table["turn"] = table.groupby("player").cumcount()
    return table.sort_values(["turn", "player"]).index.to_numpy()


def _random(names: pd.Series) -> np.ndarray:
    return pd.util.hash_array(names.to_numpy(dtype=object), hash_key="0" * 16)
