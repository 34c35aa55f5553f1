"""Data sets for --test-also: all clips are test clips, splits are ignored, and one player is enough."""

import dataclasses
import json

import pandas as pd
import pytest

from sousaphone.config import TrainConfig
from sousaphone.data.cache.build import build_caches
from sousaphone.data.prepare import overlap, read_further
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_metadata_csv, as_recordings, as_shards


@pytest.fixture
def root(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", players=4, rudiments=SLUGS[:2], long_clips=0)


def of_one_player(root):
    """Make all clips one player's, without splits.json."""
    path = root / "labels" / "samples.parquet"
    pd.read_parquet(path).assign(profile_id="solo").to_parquet(path)
    (root / "splits.json").unlink()
    return root


def folder_by_player(root, out):
    return as_recordings(root, out, players=True)


def folder_of_unknown_players(root, out):
    return as_recordings(root, out, players=False)


FORMS = [as_metadata_csv, as_shards, folder_by_player, folder_of_unknown_players]


@pytest.mark.parametrize("form", FORMS)
def test_all_clips_of_every_layout_are_test_clips(root, tmp_path, form):
    clips = read_dataset(form(root, tmp_path / "other"), only_test=True).clips
    assert len(clips) == 8
    assert set(clips.split) == {"test"}


def test_single_player_without_splits_is_enough(root):
    of_one_player(root)
    with pytest.raises(UserError):
        read_dataset(root)
    dataset = read_further(root)
    assert dataset.clips.split.tolist() == ["test"] * 8
    assert dataset.notes == ()


def test_invalid_splits_json_is_ignored(root):
    (root / "splits.json").write_text(json.dumps({"train_profile_ids": ["player000"], "test_profile_ids": "broken"}))
    assert len(read_further(root).clips) == 8


def test_player_in_two_splits_is_accepted(root, tmp_path):
    path = as_metadata_csv(root, tmp_path / "other") / "metadata.csv"
    clips = pd.read_csv(path)
    clips.assign(split=["train", "test"] * 4).to_csv(path, index=False)
    with pytest.raises(UserError, match="in both"):
        read_dataset(path)
    assert len(read_dataset(path, only_test=True).clips) == 8


def test_numbered_recordings_count_as_one_players(root, tmp_path):
    rows = [f"audio/{number}.flac,{slug}" for number, slug in enumerate(SLUGS[:2])]
    (tmp_path / "takes.csv").write_text("\n".join(["path,label", *rows]))
    (tmp_path / "audio").mkdir()
    for number, clip in enumerate(sorted(root.rglob("*.flac"))[:2]):
        clip.rename(tmp_path / "audio" / f"{number}.flac")
    dataset = read_dataset(tmp_path / "takes.csv", only_test=True)
    assert set(dataset.clips.player) == {"unnamed"}
    assert "players unknown" in dataset.notes[0]


def test_shared_recordings_are_counted_in_any_layout(root, tmp_path):
    dataset = read_dataset(root)
    further = read_further(folder_of_unknown_players(root, tmp_path / "other"))
    cache = tmp_path / "cache"
    for data in (dataset, further):
        build_caches(data, [16_000], cache, progress=False)
    warning = overlap(dataset, further, [TrainConfig(model="ast")], cache)
    assert warning.startswith("6 of the 8 recordings of --test-also")  # 3 of 4 players
    own = dataclasses.replace(further, clips=further.clips[further.clips.audio_path.str.contains("player003")])
    own = dataclasses.replace(own, clips=own.clips.reset_index(drop=True))
    build_caches(own, [16_000], cache, progress=False)
    assert overlap(dataset, own, [TrainConfig(model="ast")], cache) == ""
