"""Hugging Face's audiofolder layout: metadata.csv or metadata.jsonl next to the audio files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.planning.resolve_options import check_source
from sousaphone.rudiments import SLUGS
from tests.data.forms import labels


@pytest.fixture
def source(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", rudiments=SLUGS[:2], long_clips=0)


def audiofolder(source: Path, out: Path, suffix: str, in_splits: bool, players: bool = True) -> Path:
    """One folder of clips per split, each with a list, or one list for all."""
    table = labels(source)
    names = table.split + "/" + table.sample_id + ".flac"
    for name, path in zip(names, table.audio_path, strict=True):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, out / name)
    lists = pd.DataFrame({"file_name": names, "label": table.rudiment_slug, "tempo": table.tempo_bpm})
    if players:
        lists["player"] = table.profile_id
    for split, rows in lists.groupby(table.split if in_splits else lambda row: "."):
        if in_splits:
            rows = rows.assign(file_name=rows.file_name.str.removeprefix(f"{split}/"))
        path = out / split / f"metadata.{suffix}"
        rows.to_csv(path, index=False) if suffix == "csv" else rows.to_json(path, orient="records", lines=True)
    return out


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("in_splits", [True, False])
def test_layout_is_read(source, tmp_path, suffix, in_splits):
    clips = read_dataset(audiofolder(source, tmp_path / "set", suffix, in_splits)).clips
    expected = read_dataset(source).clips
    clips.index = clips.audio_path.map(lambda path: Path(path).stem)
    clips = clips.loc[expected.sample_id].reset_index(drop=True)
    same = ["player", "rudiment", "label", "split", "size_bytes", "tempo_bpm"]
    pd.testing.assert_frame_equal(clips[same], expected[same])


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_list_itself_may_be_given(source, tmp_path, suffix):
    root = audiofolder(source, tmp_path / "set", suffix, in_splits=False)
    path = check_source("--data-dir", str(root / f"metadata.{suffix}"))
    pd.testing.assert_frame_equal(read_dataset(path).clips, read_dataset(root).clips)


def test_folders_of_splits_may_have_lists_of_either_kind(source, tmp_path):
    root = audiofolder(source, tmp_path / "set", "csv", in_splits=True)
    expected = read_dataset(root).clips
    listed = next(root.glob("test*/metadata.csv"))
    pd.read_csv(listed).to_json(listed.with_suffix(".jsonl"), orient="records", lines=True)
    listed.unlink()
    assert read_dataset(root).clips.split.value_counts().to_dict() == expected.split.value_counts().to_dict()


def test_unknown_players_of_different_splits_are_different(source, tmp_path):
    dataset = read_dataset(audiofolder(source, tmp_path / "set", "csv", in_splits=True, players=False))
    assert set(dataset.clips.split) == {"train", "validation", "test"}
    assert dataset.clips.groupby("player").split.nunique().max() == 1
    assert not dataset.players_known


@pytest.mark.parametrize("line", ["[1, 2]", "{", "3", pytest.param("[" * 200_000, id="deep")])
def test_invalid_line_is_rejected(source, tmp_path, line):
    root = audiofolder(source, tmp_path / "set", "jsonl", in_splits=False)
    with (root / "metadata.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(UserError, match=r"metadata\.jsonl"):
        read_dataset(root)
