"""Reading of a SOUSA directory, and error messages."""

import dataclasses
import json
import os
import shutil

import pandas as pd
import pyarrow.parquet
import pytest

from sousaphone.data.inspect.check import check
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.planning.resolve_options import check_source
from sousaphone.rudiments import SLUGS


@pytest.fixture
def root(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", rudiments=SLUGS[:2], long_clips=0)


def rewrite_labels(root, change):
    path = root / "labels" / "samples.parquet"
    table = pd.read_parquet(path)
    changed = change(table)
    (table if changed is None else changed).to_parquet(path)


def set_cell(row, column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.loc[row, column] = value

    return change


def refusal(root) -> str:
    with pytest.raises(UserError) as error:
        read_dataset(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_clips_have_label_split_and_size(root):
    clips = read_dataset(root).clips
    assert len(clips) == 8
    assert list(clips.index) == list(range(8))
    assert [SLUGS[label] for label in clips.label] == clips.rudiment.tolist()
    assert clips.split.value_counts().to_dict() == {"train": 4, "validation": 2, "test": 2}
    assert all(
        (root / path).stat().st_size == size for path, size in zip(clips.audio_path, clips.size_bytes, strict=True)
    )


def test_every_player_is_in_one_split(root):
    assert (read_dataset(root).clips.groupby("player").split.nunique() == 1).all()


def rewrite_splits(root, **lists):
    splits = json.loads((root / "splits.json").read_text())
    (root / "splits.json").write_text(json.dumps(splits | lists))


def test_empty_validation_split_takes_training_players(root):
    rewrite_splits(root, val_profile_ids=[], train_profile_ids=["player000", "player001", "player002"])
    dataset = read_dataset(root)
    assert dataset.clips.groupby("split").player.nunique().to_dict() == {"train": 2, "validation": 1, "test": 1}
    assert "no validation player" in dataset.notes[0]


def test_clips_of_unlisted_players_are_excluded_with_a_note(root):
    rewrite_splits(root, train_profile_ids=["player001"])
    dataset = read_dataset(root)
    assert "player000" not in set(dataset.clips.player)
    assert list(dataset.clips.index) == list(range(6))
    assert "1 player" in dataset.notes[0]
    assert "player000" in dataset.notes[0]


def test_players_are_split_without_splits_json(root):
    (root / "splits.json").unlink()
    assert set(read_dataset(root).clips.split) == {"train", "validation", "test"}


def test_four_columns_are_required(root):
    rewrite_labels(root, lambda table: table[["sample_id", "profile_id", "rudiment_slug", "audio_path"]])
    clips = read_dataset(root).clips
    assert clips.duration_sec.isna().all()
    assert (clips.group_id == "").all()


def test_categorical_columns_may_have_missing_values(root):
    def change(table):
        table["soundfont"] = pd.Categorical([None, *table.soundfont[1:]])
        table["profile_id"] = pd.Categorical(table.profile_id)

    rewrite_labels(root, change)
    assert read_dataset(root).clips.soundfont.tolist() == ["", *["FluidR3_GM"] * 7]


def test_rudiments_may_be_spelt_with_hyphens(root):
    rewrite_labels(root, set_cell(0, "rudiment_slug", SLUGS[0].replace("_", "-")))
    assert read_dataset(root).clips.rudiment[0] == SLUGS[0]


def test_fingerprint_depends_on_labels_and_not_on_the_location(root, tmp_path):
    fingerprint = read_dataset(root).fingerprint
    copy = shutil.copytree(root, tmp_path / "copy")
    assert read_dataset(copy).fingerprint == fingerprint
    rewrite_labels(copy, set_cell(0, "rudiment_slug", SLUGS[5]))
    assert read_dataset(copy).fingerprint != fingerprint


@pytest.mark.parametrize("column", ["audio_path", "rudiment", "player", "split", "size_bytes"])
def test_fingerprint_depends_on_every_relevant_column(root, column):
    dataset = read_dataset(root)
    clips = dataset.clips.copy()
    clips.loc[0, column] = clips[column][0] * 2
    assert dataclasses.replace(dataset, clips=clips).fingerprint != dataset.fingerprint


def test_path_that_is_not_a_directory_is_rejected(tmp_path):
    assert "is not a directory" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["~nobody_of_this_name/sousa", "LOOP", "a" * 300])
def test_inaccessible_path_is_rejected(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LOOP").symlink_to("LOOP")
    assert name in refusal(name)
    with pytest.raises(UserError, match=name):
        check_source("--data-dir", name)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_link_to_itself_is_rejected(root, place):
    path = root / read_dataset(root).clips.audio_path[0]
    path = path if place == "file" else path.parent
    path.rename(root / "elsewhere")
    path.symlink_to(path.name)
    assert str(path) in refusal(root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read everything")
def test_unreadable_directory_is_rejected(root):
    inner = root / "labels"
    root.chmod(0)
    try:
        for path in (root, inner):
            assert f"{str(path)!r} is not accessible" in refusal(path)
    finally:
        root.chmod(0o700)


def test_directory_without_labels_is_rejected(tmp_path):
    message = refusal(tmp_path)
    assert all(form in message for form in ("labels/samples.parquet", "splits.json", "RUDIMENT/*.wav", "CSV file"))


@pytest.mark.parametrize("content", [b"", b"this is no Parquet file"])
def test_unreadable_labels_are_rejected(root, content):
    (root / "labels" / "samples.parquet").write_bytes(content)
    assert "samples.parquet is not readable" in refusal(root)


def test_missing_columns_are_named(root):
    rewrite_labels(root, lambda table: table.drop(columns=["profile_id", "audio_path"]))
    assert "lacks the columns profile_id, audio_path" in refusal(root)


def test_repeated_column_is_named(root):
    table = pyarrow.parquet.read_table(root / "labels" / "samples.parquet")
    table = table.append_column("rudiment_slug", table["rudiment_slug"])
    pyarrow.parquet.write_table(table, root / "labels" / "samples.parquet")
    assert "2 columns rudiment_slug" in refusal(root)
    assert any("2 columns rudiment_slug" in finding.text for finding in check(root, audio=False).findings)


def test_labels_without_rows_are_rejected(root):
    rewrite_labels(root, lambda table: table.iloc[:0])
    assert "no clips" in refusal(root)


def test_empty_cells_of_a_required_column_are_counted(root):
    rewrite_labels(root, set_cell(3, "profile_id", None))
    assert "1 of 8 rows have no profile_id" in refusal(root)


def test_unknown_rudiment_is_named(root):
    rewrite_labels(root, set_cell(0, "rudiment_slug", "paradidle_supreme"))
    assert "paradidle_supreme" in refusal(root)


@pytest.mark.parametrize("column", ["sample_id", "audio_path"])
def test_repeated_clip_is_rejected(root, column):
    rewrite_labels(
        root, lambda table: table.assign(**{column: table[column].where(table.index != 1, table[column][0])})
    )
    assert f"{column} " in refusal(root)
    assert "1 repeated" in refusal(root)


@pytest.mark.parametrize("path", ["/etc/hostname", "../outside.flac", "audio/../../outside.flac", "audio/.."])
def test_path_out_of_the_data_directory_is_rejected(root, path):
    (root.parent / "outside.flac").touch()
    rewrite_labels(root, set_cell(0, "audio_path", path))
    assert f"{path!r} leaves the data directory" in refusal(root)


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_link_out_of_the_data_directory_is_rejected(root, tmp_path, linked):
    target = root / read_dataset(root).clips.audio_path[0]
    target = target if linked == "file" else target.parent
    target.rename(tmp_path / "outside")
    target.symlink_to(tmp_path / "outside")
    assert "leaves the data directory" in refusal(root)


def test_data_directory_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert len(read_dataset(tmp_path / "link").clips) == 8


def test_missing_audio_files_are_counted(root):
    paths = read_dataset(root).clips.audio_path
    (root / paths[2]).unlink()
    (root / paths[5]).unlink()
    message = refusal(root)
    assert "2 of 8 audio files" in message
    assert paths[2] in message


@pytest.mark.parametrize("content", ["{", "[]", '{"train": []}', '{"train_profile_ids": "player000"}'])
def test_malformed_splits_json_is_rejected(root, content):
    (root / "splits.json").write_text(content)
    assert "splits.json" in refusal(root)


def test_player_in_two_splits_is_rejected(root):
    rewrite_splits(root, test_profile_ids=["player003", "player000"])
    assert "'player000' in both train and test" in refusal(root)
