"""Whole players make the splits; a size caps their clips fairly."""

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


def test_splits_json_wins():
    listed = {"player000": "test", "player001": "train", "player002": "validation"}
    assert assign_splits(tiers(3), listed) == (listed, ())


def test_a_missing_validation_split_is_carved_from_whole_training_players_and_said():
    listed = dict.fromkeys(tiers(30), "train") | {"player000": "test"}
    split_of, notes = assign_splits(tiers(30), listed)
    assert list(split_of.values()).count("validation") == 3
    assert split_of["player000"] == "test"
    assert "no validation player" in notes[0]


def test_carving_does_not_depend_on_the_order_of_the_players():
    reverse = dict(reversed(tiers(30).items()))
    assert assign_splits(tiers(30), None)[0] == assign_splits(reverse, None)[0]


def test_without_splits_json_players_are_split_80_10_10_across_the_tiers_and_that_is_said():
    split_of, notes = assign_splits(tiers(40), None)
    assert [list(split_of.values()).count(split) for split in ("train", "validation", "test")] == [32, 4, 4]
    for split in ("validation", "test"):
        assert {tiers(40)[player] for player in split_of if split_of[player] == split} == {"beginner", "advanced"}
    assert "no splits.json" in notes[0]


def test_three_players_are_enough_and_two_are_not():
    assert sorted(assign_splits(tiers(3), None)[0].values()) == ["test", "train", "validation"]
    with pytest.raises(UserError, match=r"cannot split 2 players: .* three are the least"):
        assign_splits(tiers(2), None)
    with pytest.raises(UserError, match=r"cannot split the 2 players that splits\.json lists: "):
        assign_splits(tiers(3), {"player000": "train", "player001": "test"})
    with pytest.raises(UserError, match="0 of them for training"):
        assign_splits(tiers(3), dict.fromkeys(tiers(3), "test"))


def test_players_that_splits_json_does_not_list_are_left_out_and_said():
    listed = {"player000": "train", "player001": "validation", "player002": "test"}
    split_of, notes = assign_splits(tiers(4), listed)
    assert split_of == listed
    assert "left out 1 player that splits.json does not list: player003" in notes[0]
    with pytest.raises(UserError, match="lists none of the 4 players"):
        assign_splits(tiers(4), {"someone": "train"})


def a_dataset(players: int, rudiments: int = 40, groups: int = 5, renderings: int = 5) -> Dataset:
    """80/10/10 of the players, each playing everything."""
    grid = np.indices((players, rudiments, groups, renderings)).reshape(4, -1)
    names = pd.DataFrame(grid.T, columns=["player", "rudiment", "group", "rendering"]).astype(str)
    share = grid[0] / players
    clips = pd.DataFrame(
        {
            "sample_id": names.player + "-" + names.rudiment + "-" + names.group + "-" + names.rendering,
            "player": names.player,
            "rudiment": names.rudiment,
            "label": grid[1],
            "split": np.select([share < 0.8, share < 0.9], ["train", "validation"], "test"),
            "group_id": names.player + "-" + names.rudiment + "-" + names.group,
        }
    )
    return Dataset(Path("nowhere"), clips)


@pytest.fixture(scope="module")
def large() -> Dataset:
    return a_dataset(players=20)


def test_a_size_is_80_10_10(large):
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


def test_another_performance_is_drawn_before_another_rendering_of_one(large):
    clips = draw(large, "mini").clips  # 3 or 4 of each player × rudiment, of which there are 5 performances
    assert clips.group_id.is_unique


def test_no_player_is_dropped_even_where_the_quota_is_smaller():
    dataset = a_dataset(players=1200, rudiments=2, groups=1, renderings=1)
    drawn = draw(dataset, "tiny")
    assert drawn.clips.player.nunique() == 1200
    assert "no player is dropped" in drawn.notes[-1]


def test_a_player_with_few_clips_is_not_dropped(large):
    clips = large.clips
    poor = clips[(clips.player == "0") & (clips.rudiment == "7")].head(1)
    clips = pd.concat([clips[clips.player != "0"], poor], ignore_index=True)
    assert "0" in set(draw(Dataset(large.root, clips), "tiny").clips.player)


def test_a_draw_repeats_and_follows_its_seed_but_not_the_order_of_the_rows(large):
    shuffled = Dataset(large.root, large.clips.sample(frac=1, random_state=0).reset_index(drop=True))
    once = set(draw(large, "tiny").clips.sample_id)
    assert once == set(draw(shuffled, "tiny").clips.sample_id)
    assert once != set(draw(large, "tiny", seed=1).clips.sample_id)


def test_a_split_smaller_than_its_quota_is_used_whole_and_said():
    dataset = a_dataset(players=10, rudiments=5, groups=1, renderings=1)
    drawn = draw(dataset, "tiny")
    assert len(drawn.clips) == len(dataset.clips)
    assert "train has 40 of 800, validation has 5 of 100, test has 5 of 100" in drawn.notes[-1]


@pytest.fixture(scope="module")
def timbres(large) -> Dataset:
    clips = large.clips.assign(soundfont=np.where(large.clips.index % 3 == 0, "Brass", "Wood"), preset="hall")
    return dataclasses.replace(large, clips=clips)


def test_a_timbre_held_out_is_in_no_training_or_validation_clip_and_apart_from_the_test(timbres):
    clips = draw(hold_out(timbres, "soundfont=Brass"), "tiny").clips
    assert clips.split.value_counts().to_dict() == {"train": 800, "validation": 100, "test": 100, "held_out": 100}
    assert set(clips[clips.split == "held_out"].soundfont) == {"Brass"}
    assert set(clips[clips.split != "held_out"].soundfont) == {"Wood"}
    assert set(clips[clips.split == "held_out"].player) == set(clips[clips.split == "test"].player)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("kit=Brass", "is not of the form soundfont=NAME or preset=NAME"),
        ("soundfont=", "is not of the form"),
        ("soundfont=Tin", "no test clip has that soundfont; they have: Brass, Wood"),
        ("preset=hall", "every train clip has that preset"),
    ],
)
def test_a_hold_out_that_cannot_be_is_one_clear_line(timbres, rule, said):
    with pytest.raises(UserError, match=said):
        hold_out(timbres, rule)


def test_an_unknown_size_is_refused(large):
    with pytest.raises(UserError, match="choose one of: tiny, mini"):
        draw(large, "huge")
