"""The same clips are the same data set in every layout."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sousaphone.data.cache.build import build_caches
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.splits import draw
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_metadata_csv, as_recordings, as_shards

FORMS = {"metadata.csv": as_metadata_csv, "shards": as_shards}
# Columns that depend on the location of the audio.
PLACES = ["audio_path", "size_bytes", "modified_ns"]


@pytest.fixture(scope="module")
def root(make_sousa, tmp_path_factory):
    return make_sousa(tmp_path_factory.mktemp("forms") / "sousa", players=5, rudiments=SLUGS[:3], takes=2)


def rows(dataset) -> pd.DataFrame:
    return dataset.clips.drop(columns=PLACES).sort_values("sample_id", ignore_index=True)


def waves(dataset, cache_dir) -> dict[str, np.ndarray]:
    cache = build_caches(dataset, [16_000], cache_dir, progress=False)[16_000]
    bounds = zip(cache.offsets[:-1], cache.offsets[1:], strict=True)
    return {name: cache.wave[a:b] for name, (a, b) in zip(dataset.clips.sample_id, bounds, strict=True)}


@pytest.mark.parametrize("form", FORMS)
def test_layouts_give_equal_rows_and_waveforms(form, root, tmp_path):
    local, other = read_dataset(root), read_dataset(FORMS[form](root, tmp_path / "other"))
    assert list(other.clips.columns) == list(local.clips.columns)
    pd.testing.assert_frame_equal(rows(other), rows(local))
    expected, actual = waves(local, tmp_path / "cache"), waves(other, tmp_path / "cache")
    assert expected.keys() == actual.keys()
    assert all(np.array_equal(actual[name], wave) for name, wave in expected.items())


def test_player_folders_keep_players_rudiments_and_waveforms(root, tmp_path):
    local, other = read_dataset(root), read_dataset(as_recordings(root, tmp_path / "other", players=True))
    names = other.clips.audio_path.map(lambda path: path.rpartition("/")[2].removesuffix(".flac"))
    kept = ["sample_id", "player", "rudiment", "label", "duration_sec"]
    found = other.clips.assign(sample_id=names)[kept].sort_values("sample_id", ignore_index=True)
    pd.testing.assert_frame_equal(found, rows(local)[kept])
    expected, actual = waves(local, tmp_path / "cache"), waves(other, tmp_path / "cache")
    assert all(
        np.array_equal(actual[path], expected[name]) for path, name in zip(other.clips.sample_id, names, strict=True)
    )


@pytest.mark.parametrize("form", FORMS)
def test_copy_has_the_same_fingerprint_but_another_cache(form, root, tmp_path):
    first = FORMS[form](root, tmp_path / "first")
    copy = shutil.copytree(first, tmp_path / "copy", copy_function=shutil.copyfile)
    assert read_dataset(copy).fingerprint == read_dataset(first).fingerprint
    paths = [build_caches(read_dataset(at), [16_000], tmp_path / "cache")[16_000].path for at in (first, copy)]
    assert paths[0] != paths[1]


def test_subset_of_shards_equals_subset_of_files(root, tmp_path, monkeypatch):
    monkeypatch.setattr("sousaphone.data.splits.DATASET_SIZES", {"few": 12})
    local, shards = (draw(read_dataset(at), "few") for at in (root, as_shards(root, tmp_path / "other")))
    pd.testing.assert_frame_equal(rows(shards), rows(local))
    expected, actual = waves(local, tmp_path / "cache"), waves(shards, tmp_path / "cache")
    assert all(np.array_equal(actual[name], wave) for name, wave in expected.items())


@pytest.mark.slow
def test_100000_clips_in_shards_are_indexed(root, tmp_path):
    as_shards(root, tmp_path / "other")
    for path in (tmp_path / "other" / "audio").glob("*.parquet"):
        table = pq.read_table(path)
        table = table.drop_columns("audio").append_column("audio", pa.array([{"bytes": b"fLaC"}] * len(table)))
        many = pa.concat_tables([table] * (100_000 // 30))
        ids = pa.array([f"{path.name} {i}" for i in range(len(many))])
        pq.write_table(many.drop_columns("sample_id").append_column("sample_id", ids), path)
    assert len(read_dataset(tmp_path / "other").clips) > 99_000
