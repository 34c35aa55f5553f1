"""Who is trained on and who is tested on: whole players, and how many of their clips."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sousaphone.config import DATASET_SIZES
from sousaphone.data.dataset import Dataset
from sousaphone.errors import UserError
from sousaphone.text import counted, first_few

SPLITS = ("train", "validation", "test")
# What people call them, in small letters.
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
# Test players' clips of the timbre that is kept from training, scored apart from the others.
HELD_OUT = "held_out"
TIMBRES = ("soundfont", "preset")
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1, HELD_OUT: 0.1}
_KEYS = {"train_profile_ids": "train", "val_profile_ids": "validation", "test_profile_ids": "test"}


def read_splits(path: Path) -> dict[str, str] | None:
    """The split of every player that a splits.json lists; None where there is no such file.

    Raises:
        UserError: not readable, not of the expected form, or a player in two splits.
    """
    remedy = f"{path} must hold the lists {', '.join(_KEYS)}; correct it, or delete it to have players split 80/10/10"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"splits.json cannot be read ({' '.join(str(error).split())}): {remedy}") from None
    if not isinstance(content, dict) or not _KEYS.keys() & content.keys():
        raise UserError(f"splits.json is not of the SOUSA form: {remedy}")
    split_of: dict[str, str] = {}
    for key, split in _KEYS.items():
        players = content.get(key, [])
        if not isinstance(players, list) or not all(isinstance(player, str | int) for player in players):
            raise UserError(f"splits.json: {key} is not a list of player names: {remedy}")
        for player in (unicodedata.normalize("NFC", str(name).strip()) for name in players):  # as in the labels
            if split_of.setdefault(player, split) != split:
                raise UserError(
                    f"splits.json puts player {player!r} in both {split_of[player]} and {split}; "
                    f"a player belongs to one split: keep the name in one of the lists of {path}"
                )
    return split_of


def assign_splits(
    tiers: Mapping[str, str], listed: Mapping[str, str] | None, lister: str = "splits.json"
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Give every player one split.

    `listed` (splits.json) wins. A validation or test split without players is carved from whole training players:
    a tenth of all players, at least one, spread over the skill tiers. Without a splits.json every player begins as
    a training player, which so gives 80/10/10. Players that splits.json does not list are left out.

    Args:
        tiers: the skill tier ('' where unknown) of each player that has clips.
        listed: the split of each listed player, or None.
        lister: what lists them, for messages.

    Returns:
        The split of each player kept, and what to say aloud about it.

    Raises:
        UserError: too few players to fill every split.
    """
    notes = []
    if listed is None:
        split_of = dict.fromkeys(tiers, "train")
    else:
        split_of = {player: listed[player] for player in tiers if player in listed}
        unlisted = [player for player in tiers if player not in listed]
        if not split_of:
            raise UserError(
                f"{lister} lists none of the {len(tiers)} players that have clips (the first: {unlisted[0]!r}); "
                f"list them, or delete {lister} to have players split 80/10/10"
            )
        if unlisted:
            left_out = f"left out {counted(len(unlisted), 'player')} that {lister} does not list: {first_few(unlisted)}"
            notes.append(f"{left_out}; list them in {lister}, or remove their clips")

    kept = counted(len(split_of), "player")
    empty = [split for split in ("test", "validation") if split not in split_of.values()]
    if len(split_of) < len(SPLITS):
        which = kept if listed is None else f"the {kept} that {lister} lists"
        raise UserError(
            f"cannot split {which}: train, validation and test each need a player of their own, so three are the "
            "least; add players, or use the recordings with launch.py --test-also, which takes any number"
        )
    if Counter(split_of.values())["train"] <= len(empty):
        raise UserError(
            f"cannot split {kept}, {Counter(split_of.values())['train']} of them for training: train, "
            f"validation and test each need a player of their own; add players, or move some to train in {lister}"
        )
    for index, split in enumerate(empty):
        pool = sorted(
            (player for player in split_of if split_of[player] == "train"),
            key=lambda player: (tiers[player], hashlib.sha256(player.encode()).digest()),
        )
        still_needed = len(empty) - index  # this split's player, the next split's; one more stays in train
        count = min(max(1, round(SHARES[split] * len(split_of))), len(pool) - still_needed)
        carved = [pool[int((i + 0.5) * len(pool) / count)] for i in range(count)]
        split_of.update(dict.fromkeys(carved, split))
        if listed is not None:
            carving = f"{lister} gives no {split} player with clips: carved from train, {first_few(carved)}"
            notes.append(f"{carving}; to choose the players, give them that split in {lister}")
    if listed is None:
        sizes = Counter(split_of.values())
        counts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS)
        notes.append(f"no {lister}: players split 80/10/10 by name and skill tier ({counts})")
    return split_of, tuple(notes)


def parse_hold_out(rule: str) -> tuple[str, str]:
    """`soundfont=NAME` or `preset=NAME` as (column, name); a UserError for anything else."""
    column, sign, name = rule.partition("=")
    if not sign or column not in TIMBRES or not name:
        raise UserError(f"--hold-out {rule!r} is not of the form soundfont=NAME or preset=NAME")
    return column, name


def hold_out(dataset: Dataset, rule: str) -> Dataset:
    """The data set without a timbre in training and validation; test players' clips of it become the split HELD_OUT.

    Args:
        rule: `soundfont=NAME` or `preset=NAME`.

    Raises:
        UserError: no test clip has that timbre, or no training or validation clip another.
    """
    column, name = parse_hold_out(rule)
    has = dataset.clips[column] == name
    held = has & (dataset.clips.split == "test")
    if not held.any():
        known = sorted(set(dataset.clips[column][dataset.clips.split == "test"]) - {""})
        raise UserError(f"--hold-out {rule}: no test clip has that {column}; they have: {', '.join(known) or 'none'}")
    kept = dataset.clips[~has | held].copy()
    kept.loc[held[kept.index], "split"] = HELD_OUT
    for split in SPLITS:
        if not (kept.split == split).any():
            raise UserError(f"--hold-out {rule}: every {split} clip has that {column}; hold out another")
    note = f"held out: {column} {name}, {len(dataset.clips) - len(kept):,} clips of it left out of train and validation"
    return dataclasses.replace(dataset, clips=kept.reset_index(drop=True), notes=(*dataset.notes, note))


def draw(dataset: Dataset, size: str, seed: int = 0) -> Dataset:
    """At most `DATASET_SIZES[size]` clips of a data set, 80/10/10 of them as quotas inside the player splits; clips
    held out come on top, as many as of test.

    Every split has one fixed order of its clips (see `_order`), cut at the quota: so each size contains the smaller
    ones. No player is dropped: a quota below the number of players gives each one clip.

    Raises:
        UserError: an unknown size.
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
        quota = max(wanted, players)
        kept.append(_order(clips, seed)[:quota])
        if quota > wanted:
            raised.append(f"{split} {quota} instead of {wanted}")
        if len(clips) < quota:
            short.append(f"{split} has {len(clips)} of {wanted}")
    notes = list(dataset.notes)
    if short:
        notes.append(
            f"size {size} ({limit:,} clips): splits smaller than their quota are used whole: {', '.join(short)}"
        )
    if raised:
        notes.append(f"size {size} ({limit:,} clips): quotas raised so that no player is dropped: {', '.join(raised)}")
    clips = dataset.clips.loc[np.sort(np.concatenate(kept))].reset_index(drop=True)
    return dataclasses.replace(dataset, clips=clips, notes=tuple(notes))


def _order(clips: pd.DataFrame, seed: int) -> np.ndarray:
    """The index of `clips` in drawing order: round-robin over players and, within a player, over rudiments.

    Within a player × rudiment, other performances (`group_id`) come before further renderings of one. Players begin
    at different rudiments, so that every prefix is balanced over both. Chance is a keyed hash of the names: the order
    of the rows plays no part, and a clip more does not reshuffle the rest.
    """
    table = pd.DataFrame({"player": _shuffled(clips.player, seed), "rudiment": _shuffled(clips.rudiment, seed)})
    table["group"] = clips.group_id.where(clips.group_id != "", clips.sample_id).to_numpy()
    table["chance"] = _chance(clips.sample_id, seed)
    table.index = clips.index
    players, rudiments = table.player.max() + 1, table.rudiment.max() + 1
    table["distance"] = (table.rudiment - table.player * rudiments // players) % rudiments

    table = table.sort_values("chance")
    table["rendering"] = table.groupby(["player", "rudiment", "group"]).cumcount()
    table = table.sort_values(["rendering", "chance"])
    table["round"] = table.groupby(["player", "rudiment"]).cumcount()
    table = table.sort_values(["round", "distance"])
    table["turn"] = table.groupby("player").cumcount()
    return table.sort_values(["turn", "player"]).index.to_numpy()


def _shuffled(names: pd.Series, seed: int) -> np.ndarray:
    """Each name as its place in a seeded order of the distinct names."""
    distinct = names.drop_duplicates()
    distinct = distinct.iloc[np.argsort(_chance(distinct, seed))]
    return pd.Index(distinct).get_indexer(names)


def _chance(names: pd.Series, seed: int) -> np.ndarray:
    return pd.util.hash_array(names.to_numpy(dtype=object), hash_key=f"{seed:016d}")
