"""`python -m sousaphone.data`: exit codes, one line for a wrong word, and what each command prints."""

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
from sousaphone.data.inspect.shortcuts import STROKES
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


def test_a_sound_data_set_passes(root, capsys):
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "passes: 0 errors, 2 warnings" in out
    assert "by strokes" in out
    assert "strokes are detected in the audio" in out
    assert "FluidR3_GM" in out
    assert "of 12 clips 12 shorter than 2.5 s" in out


def test_strokes_that_the_labels_count_are_said_to_be_counted_there(root, capsys):
    clips = read_dataset(root).clips
    clips[["sample_id"]].assign(actual_time_ms=0.0).to_parquet(root / STROKES)
    assert main(["check", str(root)]) == 0
    assert "strokes are counted by the labels" in capsys.readouterr().out


def test_a_data_set_that_would_mislead_does_not(root, capsys):
    splits = json.loads((root / "splits.json").read_text())
    (root / "splits.json").write_text(json.dumps(splits | {"test_profile_ids": ["player003", "player000"]}))
    assert main(["check", str(root)]) == 1
    out = capsys.readouterr().out
    assert "error: splits.json puts player 'player000' in both train and test" in out
    assert "mislead: 1 error, 0 warnings" in out


def test_a_data_set_is_described_without_its_audio(root, capsys):
    for path in root.rglob("*.flac"):
        path.write_bytes(b"")
    assert main(["info", str(root)]) == 0
    out = capsys.readouterr().out
    assert "local layout" in out
    assert read_dataset(root).fingerprint in out
    assert "0.40 to 1.10 s" in out


def test_the_cache_is_built_and_cleared(root, cache_dir, capsys):
    assert main(["cache", str(root), "--rates", "16000", "8000"]) == 0
    built = [line.split(", ")[-1] for line in capsys.readouterr().out.splitlines()]
    assert len(built) == 2
    assert all((cache_dir / path / "wave.int16").is_file() for path in built)
    assert main(["cache", str(root), "--clear"]) == 0
    assert sorted(capsys.readouterr().out.split()[1::2]) == sorted(built)
    assert not [path for path in cache_dir.iterdir() if path.is_dir()]


def test_clearing_leaves_nothing_of_a_data_set_whichever_clips_were_decoded_and_wherever_they_are_now(root, cache_dir):
    dataset = read_dataset(root)
    main(["cache", str(root), "--rates", "8000"])
    build_caches(dataclasses.replace(dataset, clips=dataset.clips[3:]), [8_000], cache_dir)  # as --hold-out does
    assert len(list(cache_dir.glob("*-8000hz"))) == 2
    shutil.rmtree(root)
    assert main(["cache", str(root), "--clear"]) == 0
    assert not list(cache_dir.glob("*-8000hz"))


def test_one_players_recordings_which_only_test_also_takes_are_described_and_cleared(tmp_path, cache_dir, root, capsys):
    solo = tmp_path / "solo"
    (solo / "anna").mkdir(parents=True)
    shutil.copytree(root / "audio", solo / "anna", dirs_exist_ok=True)
    build_caches(read_further(solo), [8_000], cache_dir)
    assert main(["info", str(solo)]) == 0
    assert "note: it serves for --test-also alone: cannot split 1 player" in capsys.readouterr().out
    assert main(["cache", str(solo), "--clear"]) == 0
    assert not list(cache_dir.glob("*-8000hz"))


def test_another_data_sets_cache_is_not_cleared_unless_all_are(root, make_sousa, tmp_path, cache_dir):
    other = make_sousa(tmp_path / "other", rudiments=SLUGS[3:5], long_clips=0)
    for source in (root, other):
        main(["cache", str(source), "--rates", "8000"])
    main(["cache", str(root), "--clear"])
    assert len(list(cache_dir.glob("*-8000hz"))) == 1
    main(["cache", "--clear"])
    assert not list(cache_dir.glob("*-8000hz"))


def test_a_set_is_made(tmp_path, capsys):
    assert main(["make", str(tmp_path / "made"), "--clips", "10", "--workers", "1"]) == 0
    assert str(tmp_path / "made") in capsys.readouterr().out
    assert len(read_dataset(tmp_path / "made").clips) == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "/nowhere"], "/nowhere does not exist"),
        (["info", "/nowhere"], "is not a directory"),
        *(([command, ""], "the path of the data set is ''") for command in ("check", "info", "cache", "preview")),
        (["info", "hub:zkeown"], "hub:OWNER/NAME"),
        (["make", "DIR", "--clips", "3"], "clips=3 is too few"),
        (["make", "DIR", "--clips", "20", "--soundfont", "no.sf2"], "no.sf2"),
        (["cache"], "no data set given"),
        (["cache", "SOURCE", "--rates", "5"], "--rates 5 is not a sample rate"),
        (["cache", "SOURCE", "--dataset", "tiny", "--clear"], "leave --dataset out"),
        (["cache", "hub:no/where", "--clear"], "not in the hub's cache"),
        (["preview", "SOURCE", "--clips", "0"], "--clips 0 is below its limit"),
        (["preview", "SOURCE", "--output", "SOURCE/splits.json/here", "--scales", "nano"], "cannot be written"),
    ],
)
def test_a_wrong_word_gets_one_line_and_exit_code_2(root, tmp_path, capsys, words, said):
    words = [word.replace("SOURCE", str(root)).replace("DIR", str(tmp_path / "made")) for word in words]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["fly"], ["make", "DIR"], ["cache", "DIR", "--verify"]])
def test_words_that_cannot_be_parsed_get_one_line_and_exit_code_2(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["check", "info", "make", "cache", "preview"])
def test_every_command_teaches(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"  python -m sousaphone.data {command} " in capsys.readouterr().out


def test_help_needs_no_audio_and_no_torch():
    script = "import sys; from sousaphone.cli.data import build_parser; build_parser(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert not {"torch", "soundfile", "pandas"} & set(loaded.stdout.split())


@pytest.mark.parametrize("players", [True, False])
def test_a_folder_of_recordings_is_looked_at_although_it_says_no_tempo(root, tmp_path, capsys, players):
    folder = as_recordings(root, tmp_path / "folder", players)
    assert main(["info", str(folder)]) == 0
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "rudiment" in out
    assert "tempo" not in out


def test_lengths_by_the_labels_are_called_so_and_longer_recordings_are_told(root, capsys):
    path = root / "labels" / "samples.parquet"
    table = pd.read_parquet(path)
    table.assign(duration_sec=table.duration_sec - 0.3).to_parquet(path)
    assert main(["info", str(root)]) == 0
    assert "lengths by the labels, or the files' headers: " in capsys.readouterr().out
    assert main(["check", str(root)]) == 0
    out = capsys.readouterr().out
    assert "lengths: " in out
    assert "labels: the recordings last 0.30 s longer than they say, at the median" in out
