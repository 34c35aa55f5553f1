"""hub:OWNER/NAME: data sets in the hub's cache, downloads, and error messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.planning.resolve_options import check_source, not_downloaded, pick_data_dir
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_recordings, as_shards
from tests.weights.server import Published
from tests.weights.test_hub import publish

COMMIT = "0123456789abcdef0123456789abcdef01234567"

READ = """
import sys
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
try:
    dataset = read_dataset(sys.argv[1])
except UserError as error:
    sys.exit(str(error))
print(dataset.root, len(dataset.clips))
"""


def into_cache(source, hub_cache):
    """Store a directory like the hub's library: content in blobs, a snapshot of links to it, the commit of main."""
    repository = hub_cache / "datasets--someone--drums"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs").mkdir()
    for number, path in enumerate(path for path in source.rglob("*") if path.is_file()):
        blob = shutil.copy(path, repository / "blobs" / f"{number:040x}")
        link = snapshot / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def read_offline(word, hub_cache):
    return run(READ, [word], hub_cache, HF_HUB_OFFLINE="1")


def run(code, words, hub_cache, **settings):
    """Run a separate process, since the hub's library reads its environment once."""
    environment = {**os.environ, "HF_HUB_CACHE": str(hub_cache), "HF_HUB_DISABLE_XET": "1", **settings}
    return subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)


@pytest.fixture
def published(make_sousa, tmp_path):
    """A hub with the data set hub:someone/drums, 8 clips."""
    server = Published()
    publish(server, "someone/drums", make_sousa(tmp_path / "sousa", rudiments=SLUGS[:2], long_clips=0), "datasets")
    with server.served():
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("form", ["local", "shards", "folder"])
def test_cached_data_set_is_read_offline(form, make_sousa, tmp_path):
    source = make_sousa(tmp_path / "sousa", rudiments=SLUGS[:2], long_clips=0)
    if form == "shards":
        source = as_shards(source, tmp_path / "shards")
    elif form == "folder":
        source = as_recordings(source, tmp_path / "folder", players=True)
    snapshot = into_cache(source, tmp_path / "hub")
    result = read_offline("hub:someone/drums", tmp_path / "hub")
    assert result.stdout == f"{snapshot} 8\n", result.stderr
    assert "incomplete" in result.stderr  # a cache without the list of its files


@pytest.mark.slow
@pytest.mark.parametrize("present", ["README.md", "labels/samples.parquet"])
def test_incomplete_snapshot_is_completed_once(published, tmp_path, present):
    part = tmp_path / "part" / present
    part.parent.mkdir(parents=True)
    part.write_bytes((tmp_path / "sousa" / present).read_bytes() if present != "README.md" else b"# Drums")
    snapshot = into_cache(tmp_path / "part", tmp_path / "hub")
    result = run(READ, ["hub:someone/drums"], tmp_path / "hub", HF_ENDPOINT=published.url)
    assert result.stdout == f"{snapshot} 8\n", result.stderr
    published.requests.clear()
    assert run(READ, ["hub:someone/drums"], tmp_path / "hub", HF_ENDPOINT=published.url).stdout == result.stdout
    assert published.requests == []


@pytest.mark.slow
def test_snapshot_without_a_data_set_is_not_used_offline(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "README.md").touch()
    into_cache(tmp_path / "part", tmp_path / "hub")
    assert "cannot be downloaded" in read_offline("hub:someone/drums", tmp_path / "hub").stderr


@pytest.mark.slow
def test_missing_network_is_one_line_with_a_remedy(tmp_path):
    result = read_offline("hub:zkeown/sousa", tmp_path / "hub")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "hub:zkeown/sousa cannot be downloaded" in result.stderr
    assert "hf download --repo-type dataset zkeown/sousa" in result.stderr


def test_link_out_of_the_hub_cache_is_rejected(make_sousa, tmp_path):
    snapshot = into_cache(make_sousa(tmp_path / "sousa", rudiments=SLUGS[:1]), tmp_path / "hub")
    clip = next(path for path in snapshot.rglob("*.flac"))
    target = clip.resolve().rename(tmp_path / "outside.flac")
    clip.unlink()
    clip.symlink_to(target)
    with pytest.raises(UserError, match="leaves the data directory"):
        read_dataset(snapshot)


@pytest.mark.parametrize("word", ["hub:", "hub:sousa", "hub:a/b/c", "hub:a b/c", "hub:a/b@"])
def test_invalid_hub_word_is_rejected(word):
    with pytest.raises(UserError, match="hub:OWNER/NAME"):
        pick_data_dir(word)


@pytest.mark.parametrize("word", ["hub:zkeown/sousa", "hub:zkeown/sousa@v1.0"])
def test_hub_word_is_accepted_as_option_and_environment_variable(word, monkeypatch):
    monkeypatch.setenv("SOUSA_DATASET_PATH", word)
    assert pick_data_dir(word) == pick_data_dir(None) == word


def test_csv_file_is_accepted_and_other_files_are_not(tmp_path):
    for name in ("mine.csv", "mine.txt"):
        (tmp_path / name).touch()
    assert pick_data_dir(str(tmp_path / "mine.csv")) == str(tmp_path / "mine.csv")
    with pytest.raises(UserError, match=r"mine\.txt"):
        pick_data_dir(str(tmp_path / "mine.txt"))


def test_test_also_accepts_every_layout(tmp_path):
    (tmp_path / "mine.csv").touch()
    for given in (str(tmp_path), str(tmp_path / "mine.csv"), "hub:zkeown/sousa"):
        assert check_source("--test-also", given) == given
    with pytest.raises(UserError, match="''"):
        check_source("--data-dir", "")
    with pytest.raises(UserError, match="--test-also '/nowhere'"):
        check_source("--test-also", "/nowhere")


@pytest.mark.slow
def test_not_downloaded_needs_no_network(published, tmp_path):
    run(READ, ["hub:someone/drums"], tmp_path / "hub", HF_ENDPOINT=published.url)
    code = (
        "import sys; from sousaphone.planning.resolve_options import not_downloaded; "
        "print(*map(not_downloaded, sys.argv[1:]))"
    )
    words = ["hub:someone/drums", "hub:someone/else", str(tmp_path)]
    # Without HF_HUB_OFFLINE, a request would be sent, and fail.
    done = run(code, words, tmp_path / "hub", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.split() == ["False", "True", "False"], done.stderr
    assert not not_downloaded("")
