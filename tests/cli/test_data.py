"""`python -m sousaphone.data`: exit codes, one-line errors, and output of each command."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from sousaphone.cli.data import main
from sousaphone.data.cache.build import build_caches
from sousaphone.data.inspect.stroke_sequences import STROKES
from sousaphone.data.prepare import read_further
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_recordings


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", rudiments=SLUGS[:3], long_clips=0)


def test_valid_data_set_passes(root, capsys):
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "0 errors, 5 warnings" in out  # one of the pairs of classes, which differ in tempo only
    assert "detected in the audio" in out
    assert "FluidR3_GM" in out
    assert "12 shorter than 2.5 s" in out


def test_source_of_stroke_counts_is_reported(root, capsys):
    clips = read_dataset(root).clips
    clips[["sample_id"]].assign(actual_time_ms=0.0).to_parquet(root / STROKES)
    assert main(["check", str(root)]) == 0
    assert "counted in the labels" in capsys.readouterr().out


def test_data_set_with_errors_fails(root, capsys):
    splits = json.loads((root / "splits.json").read_text())
    (root / "splits.json").write_text(json.dumps(splits | {"test_profile_ids": ["player003", "player000"]}))
    assert main(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "error: splits.json" in out
    assert "'player000'" in out
    assert "1 error, 0 warnings" in out


def test_info_does_not_decode_audio(root, capsys):
    for path in root.rglob("*.flac"):
        path.write_bytes(b"")
    assert main(["info", str(root)]) == 0
    out = capsys.readouterr().out
    assert "local layout" in out
    assert read_dataset(root).fingerprint in out
    assert "0.40 to 1.10 s" in out


def test_cache_is_built_and_cleared(root, cache_dir, capsys):
    assert main(["cache", str(root), "--rates", "16000", "8000"]) == 0
    built = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert len(built) == 2
    assert all((cache_dir / path / "wave.int16").is_file() for path in built)
    assert main(["cache", str(root), "--clear"]) == 0
    assert sorted(capsys.readouterr().out.split()[1::2]) == sorted(built)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]


def test_clear_removes_all_subsets_of_a_removed_data_set(root, cache_dir):
    dataset = read_dataset(root)
    main(["cache", str(root), "--rates", "8000"])
    build_caches(dataclasses.replace(dataset, clips=dataset.clips[3:]), [8_000], cache_dir)  # as --hold-out does
    assert len(list(cache_dir.glob("*-8000hz"))) == 2
    shutil.rmtree(root)
    assert main(["cache", str(root), "--clear"]) == 0
    assert not list(cache_dir.glob("*-8000hz"))


def test_data_set_for_test_also_is_described_and_cleared(tmp_path, cache_dir, root, capsys):
    solo = tmp_path / "solo"
    (solo / "anna").mkdir(parents=True)
    shutil.copytree(root / "audio", solo / "anna", dirs_exist_ok=True)
    build_caches(read_further(solo), [8_000], cache_dir)
    assert main(["info", str(solo)]) == 0
    out = capsys.readouterr().out
    assert "--test-also" in out
    assert "1 player" in out
    assert main(["cache", str(solo), "--clear"]) == 0
    assert not list(cache_dir.glob("*-8000hz"))


def test_clear_keeps_other_data_sets(root, make_sousa, tmp_path, cache_dir):
    other = make_sousa(tmp_path / "other", rudiments=SLUGS[3:5], long_clips=0)
    for source in (root, other):
        main(["cache", str(source), "--rates", "8000"])
    main(["cache", str(root), "--clear"])
    assert len(list(cache_dir.glob("*-8000hz"))) == 1
    main(["cache", "--clear"])
    assert not list(cache_dir.glob("*-8000hz"))


def test_make_writes_a_data_set(tmp_path, capsys):
    assert main(["make", str(tmp_path / "made"), "--clips", "10", "--workers", "1"]) == 0
    assert str(tmp_path / "made") in capsys.readouterr().out
    assert len(read_dataset(tmp_path / "made").clips) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "/nowhere"], "/nowhere"),
        (["info", "/nowhere"], "/nowhere is not a directory"),
        (["info", "hub:zkeown"], "hub:OWNER/NAME"),
        (["make", "DIR", "--clips", "3"], "--clips 3"),
        (["make", "DIR", "--clips", "20", "--soundfont", "no.sf2"], "no.sf2"),
        (["cache"], "no data set given"),
        (["cache", "SOURCE", "--rates", "5"], "--rates 5"),
        (["cache", "hub:no/where", "--clear"], "hub:no/where"),
        (["preview", "SOURCE", "--clips", "0"], "--clips 0"),
        (["preview", "SOURCE", "--output", "SOURCE/splits.json/here", "--scales", "nano"], "splits.json/here"),
    ],
)
def test_invalid_value_is_one_line_with_exit_code_2(root, tmp_path, capsys, arguments, message):
    arguments = [text.replace("SOURCE", str(root)).replace("DIR", str(tmp_path / "made")) for text in arguments]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["fly"], ["check", ""], ["make", "DIR"], ["cache", "DIR", "--verify"]),
        *(["cache", "DIR", "--clear", "--dataset", "tiny"], ["cache", "--clear", "--rates", "16000"]),
    ],
)
def test_invalid_arguments_are_one_line_with_exit_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "info", "make", "cache", "preview"])
def test_help_of_every_command_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert f"  python -m sousaphone.data {command} " in capsys.readouterr().out


def test_help_does_not_import_torch_pandas_or_soundfile():
    script = "import sys; from sousaphone.cli.data import build_parser; build_parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert not {"torch", "soundfile", "pandas"} & set(loaded.stdout.split())


@pytest.mark.parametrize("players", [True, False])
def test_folder_of_recordings_without_tempo(root, tmp_path, capsys, players):
    folder = as_recordings(root, tmp_path / "folder", players)
    assert main(["info", str(folder)]) == 0
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "rudiment" in out
    assert "tempo" not in out


def test_source_of_durations_and_longer_recordings_are_reported(root, capsys):
    path = root / "labels" / "samples.parquet"
    table = pd.read_parquet(path)
    table.assign(duration_sec=table.duration_sec - 0.3).to_parquet(path)
    assert main(["info", str(root)]) == 0
    assert "durations (from labels or file headers): " in capsys.readouterr().out
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "durations: " in out
    assert "0.30 s longer" in out
