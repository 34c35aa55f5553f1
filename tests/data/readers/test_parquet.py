"""Parquet shards of the hub: reading of rows, and error messages."""

from __future__ import annotations

import pandas as pd
import pytest

from sousaphone.data.cache.build import build_caches
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.parquet import clips_of_shard
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_shards


@pytest.fixture
def root(make_sousa, tmp_path):
    return as_shards(make_sousa(tmp_path / "sousa", rudiments=SLUGS[:3], long_clips=0), tmp_path / "hub")


def shard(root, split="train", number=0):
    return root / "audio" / f"{split}-{number:05d}-of-00002.parquet"


def rewrite(path, change):
    change(pd.read_parquet(path)).to_parquet(path)


def refusal(root) -> str:
    with pytest.raises(UserError) as error:
        read_dataset(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_clip_path_has_shard_and_row(root):
    clips = read_dataset(root).clips
    assert clips.audio_path[1] == "audio/train-00000-of-00002.parquet#1"
    assert clips.size_bytes[1] == shard(root).stat().st_size


@pytest.mark.parametrize("rows", [[0, 1, 2], [1], [2], [0, 2], []])
def test_rows_are_read_across_row_groups(root, rows):
    audio = pd.read_parquet(shard(root)).audio
    assert list(clips_of_shard(shard(root), rows)) == [audio[row]["bytes"] for row in rows]


def test_rows_must_ascend(root):
    with pytest.raises(ValueError, match="must ascend"):
        list(clips_of_shard(shard(root), [1, 0]))


def test_folder_of_the_shards_is_accepted(root):
    assert read_dataset(root / "audio").clips.sample_id.tolist() == read_dataset(root).clips.sample_id.tolist()


def test_empty_validation_split_takes_training_players(root):
    for number, path in enumerate((root / "audio").glob("validation-*")):
        path.rename(path.with_name(f"train-more{number}.parquet"))
    dataset = read_dataset(root)
    assert dataset.clips.groupby("split").player.nunique().to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert "the shards in audio" in dataset.notes[0]
    assert "validation" in dataset.notes[0]


def test_player_in_two_splits_is_rejected(root):
    rewrite(shard(root, "test"), lambda table: table.assign(profile_id="player000"))
    assert "'player000' is in both test and train" in refusal(root)


def test_missing_columns_are_named(root):
    rewrite(shard(root), lambda table: table.drop(columns=["profile_id", "rudiment_slug"]))
    assert "train-00000-of-00002.parquet lacks the columns profile_id, rudiment_slug;" in refusal(root)


def test_shards_without_audio_are_rejected(root):
    rewrite(shard(root), lambda table: table.drop(columns="audio"))
    assert "no column audio" in refusal(root)


def test_clips_without_audio_are_counted(root):
    rewrite(shard(root), lambda table: table.assign(audio=[*table.audio[:-1], {"bytes": None, "path": "x.flac"}]))
    assert "1 of 3 clips have no audio" in refusal(root)


def test_missing_shard_is_reported(root):
    shard(root, "train", 1).unlink()
    message = refusal(root)
    assert "1 of 2 train shards" in message
    assert "number 1" in message


def test_truncated_shard_is_named(root):
    shard(root).write_bytes(shard(root).read_bytes()[:500])
    assert "train-00000-of-00002.parquet is not readable" in refusal(root)


def test_damaged_clip_is_named_by_shard_and_row(root, tmp_path):
    rewrite(shard(root), lambda table: table.assign(audio=[*table.audio[:-1], {"bytes": b"no FLAC", "path": "x.flac"}]))
    with pytest.raises(UserError, match=r"train-00000-of-00002\.parquet#2 cannot be decoded"):
        build_caches(read_dataset(root), [16_000], tmp_path / "cache")


def test_repeated_path_is_opened_twice(tmp_path):
    path = tmp_path / "a.wav"
    assert list(open_clips(tmp_path, ["a.wav", "a.wav"])) == [(str(path), path)] * 2
