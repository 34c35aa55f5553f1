"""Splits consist of whole players; subsets are balanced."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sousaphone.config import DATASET_SIZES
from sousaphone.data.dataset import Dataset
from sousaphone.data.splits import assign_splits, draw, hold_out
from sousaphone.errors import UserError


def tiers(count: int) -> dict[str, str]:
    return {f"player{i:03d}": ("beginner", "advanced")[i % 2] for i in range(count)}


def test_listed_splits_are_kept():
    listed = {"player000": "test", "player001": "train", "player002": "validation"}
    assert assign_splits(tiers(3), listed) == (listed, ())


def test_missing_validation_split_takes_training_players_with_a_note():
    listed = dict.fromkeys(tiers(30), "train") | {"player000": "test"}
    split_of, notes = assign_splits(tiers(30), listed)
    assert list(split_of.values()).count("validation") == 3
    assert split_of["player000"] == "test"
    assert "validation" in notes[0]


def test_assignment_does_not_depend_on_the_order_of_the_players():
    reverse = dict(reversed(tiers(30).items()))
    assert assign_splits(tiers(30), None)[0] == assign_splits(reverse, None)[0]


def test_default_split_is_80_10_10_across_tiers_with_a_note():
    split_of, notes = assign_splits(tiers(40), None)
    assert [list(split_of.values()).count(split) for split in ("train", "validation", "test")] == [32, 4, 4]
    for split in ("validation", "test"):
        assert {tiers(40)[player] for player in split_of if split_of[player] == split} == {"beginner", "advanced"}
    assert "32 train, 4 validation, 4 test" in notes[0]


def test_at_least_three_players_are_required():
    assert sorted(assign_splits(tiers(3), None)[0].values()) == ["test", "train", "validation"]
    with pytest.raises(UserError, match=r"2 players: .*at least 3.*--test-also"):
        assign_splits(tiers(2), None)
    with pytest.raises(UserError, match=r"2 players of splits\.json, 1 in train"):
        assign_splits(tiers(3), {"player000": "train", "player001": "test"})
    with pytest.raises(UserError, match=r"3 players of splits\.json, 0 in train"):
        assign_splits(tiers(3), dict.fromkeys(tiers(3), "test"))


def test_unlisted_players_are_excluded_with_a_note():
    listed = {"player000": "train", "player001": "validation", "player002": "test"}
    split_of, notes = assign_splits(tiers(4), listed)
    assert split_of == listed
    assert "1 player not listed in splits.json: player003" in notes[0]
    with pytest.raises(UserError, match="none of the 4 players"):
        assign_splits(tiers(4), {"someone": "train"})


def a_dataset(players: int, rudiments: int = 40, groups: int = 5, renderings: int = 5) -> Dataset:
    """80/10/10 by player, with every rudiment by every player."""
    grid = np.indices((players, rudiments, groups, renderings)).reshape(4, -1)
    names = pd.DataFrame(grid.T, columns=["player", "rudiment", "group", "rendering"]).astype(str)
    fraction = grid[0] / players
    clips = pd.DataFrame(
        {
            "sample_id": names.player + "-" + names.rudiment + "-" + names.group + "-" + names.rendering,
            "player": names.player,
            "rudiment": names.rudiment,
            "label": grid[1],
            "split": np.select([fraction < 0.8, fraction < 0.9], ["train", "validation"], "test"),
            "group_id": names.player + "-" + names.rudiment + "-" + names.group,
        }
    )
    return Dataset(Path("nowhere"), clips)


@pytest.fixture(scope="module")
def large() -> Dataset:
    return a_dataset(players=20)


def test_size_is_80_10_10(large):
    assert draw(large, "tiny").clips.split.value_counts().to_dict() == {"train": 800, "validation": 100, "test": 100}


def test_sizes_are_nested(large):
    sizes = [set(draw(large, size).clips.sample_id) for size in DATASET_SIZES]
    assert all(smaller <= larger for smaller, larger in pairwise(sizes))
    assert [len(size) for size in sizes] == [1_000, 3_000, 10_000, 20_000, 20_000]


def test_players_and_rudiments_are_drawn_evenly(large):
    clips = draw(large, "tiny").clips
    for _, split in clips.groupby("split"):
        for names in (split.player, split.rudiment):
            counts = names.value_counts()
            assert counts.max() - counts.min() <= 1
        assert split.player.nunique() == large.clips[large.clips.split == split.split.iloc[0]].player.nunique()
        assert split.rudiment.nunique() == 40


def test_performances_are_drawn_before_further_renderings(large):
    clips = draw(large, "mini").clips  # 3 or 4 of the 5 performances of each player × rudiment
    assert clips.group_id.is_unique


def test_number_of_clips_is_raised_to_that_of_players():
    dataset = a_dataset(players=1200, rudiments=2, groups=1, renderings=1)
    drawn = draw(dataset, "tiny")
    assert drawn.clips.player.nunique() == 1200
    assert "train 960 instead of 800" in drawn.notes[-1]


def test_player_with_few_clips_is_kept(large):
    clips = large.clips
    single = clips[(clips.player == "0") & (clips.rudiment == "7")].head(1)
    clips = pd.concat([clips[clips.player != "0"], single], ignore_index=True)
    assert "0" in set(draw(Dataset(large.root, clips), "tiny").clips.player)


def test_draw_does_not_depend_on_the_order_of_rows(large):
    shuffled = Dataset(large.root, large.clips.sample(frac=1, random_state=0).reset_index(drop=True))
    once = set(draw(large, "tiny").clips.sample_id)
    assert once == set(draw(shuffled, "tiny").clips.sample_id)


def test_split_with_fewer_clips_is_complete_with_a_note():
    dataset = a_dataset(players=10, rudiments=5, groups=1, renderings=1)
    drawn = draw(dataset, "tiny")
    assert len(drawn.clips) == len(dataset.clips)
    assert "train has 40 of 800, validation has 5 of 100, test has 5 of 100" in drawn.notes[-1]


@pytest.fixture(scope="module")
def timbres(large) -> Dataset:
    clips = large.clips.assign(soundfont=np.where(large.clips.index % 3 == 0, "Brass", "Wood"), preset="hall")
    return dataclasses.replace(large, clips=clips)


def test_held_out_timbre_is_a_separate_split(timbres):
    clips = draw(hold_out(timbres, "soundfont=Brass"), "tiny").clips
    assert clips.split.value_counts().to_dict() == {"train": 800, "validation": 100, "test": 100, "held_out": 100}
    assert set(clips[clips.split == "held_out"].soundfont) == {"Brass"}
    assert set(clips[clips.split != "held_out"].soundfont) == {"Wood"}
    assert set(clips[clips.split == "held_out"].player) == set(clips[clips.split == "test"].player)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("kit=Brass", "kit=Brass.*soundfont=NAME or preset=NAME"),
        ("soundfont=", "soundfont=NAME"),
        ("soundfont=Tin", "soundfont=Tin: no test clip.*: Brass, Wood"),
        ("preset=hall", "preset=hall: every train clip"),
    ],
)
def test_invalid_hold_out_is_rejected(timbres, rule, message):
    with pytest.raises(UserError, match=message):
        hold_out(timbres, rule)


def test_hold_out_of_data_without_timbres_is_rejected(timbres):
    nameless = dataclasses.replace(timbres, clips=timbres.clips.assign(soundfont=""))
    with pytest.raises(UserError, match=r"--hold-out soundfont=Tin: .*leave it out"):
        hold_out(nameless, "soundfont=Tin")


def test_unknown_size_is_rejected(large):
    with pytest.raises(UserError, match=r"'huge'.*tiny, mini"):
        draw(large, "huge")
