"""Folders of recordings: any format and rate, players by folder or by file name."""

import os

import numpy as np
import pytest
import soundfile

from sousaphone.data.cache.build import build_caches
from sousaphone.data.inspect.check import check
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError

PEOPLE = ("anna", "ben", "cleo", "dora")


def record(path, rate=44_100, channels=1, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(rate * seconds)) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(path, np.stack([tone] * channels, axis=1), rate)


@pytest.fixture
def root(tmp_path):
    for person in PEOPLE:
        for take in (1, 2):
            record(tmp_path / "Flam Tap" / f"{person}_take{take:02d}.wav")
            record(tmp_path / "single-paradiddle" / f"{person}_take{take + 2:02d}.wav")
    return tmp_path


def refusal(root) -> str:
    with pytest.raises(UserError) as error:
        read_dataset(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folder_names_are_rudiments_in_any_spelling(root):
    assert set(read_dataset(root).clips.rudiment) == {"flam_tap", "single_paradiddle"}


def test_takes_of_one_stem_are_in_one_split_with_a_note(root):
    dataset = read_dataset(root)
    assert set(dataset.clips.player) == {f"{person}_take" for person in PEOPLE}
    assert dataset.clips.groupby("player").split.nunique().max() == 1
    assert set(dataset.clips.split) == {"train", "validation", "test"}
    assert not dataset.players_known
    assert dataset.notes[0].startswith("players unknown")
    assert "4" in dataset.notes[0]


def test_stem_excludes_rudiment_tempo_and_number(tmp_path):
    for person in PEOPLE:
        for folder, name in (
            ("flam", "Flam"),
            ("Drag Paradiddle #1", "drag-paradiddle-1"),
            ("paradiddle", "paradiddle"),
            ("Lesson 25", "lesson_25"),
        ):
            record(tmp_path / folder / f"{person}_{name}_3.wav")
            record(tmp_path / folder / f"{person}_{name}.wav")
            record(tmp_path / folder / f"{person}_{name}_120bpm_1.wav")
            record(tmp_path / folder / f"{name} {person} (4).wav")
    assert set(read_dataset(tmp_path).clips.player) == set(PEOPLE)


def test_numbers_alone_do_not_distinguish_players(tmp_path):
    for take in range(5):
        record(tmp_path / "flam" / f"{take}.wav")
        record(tmp_path / "drag" / f"drag_{take}.wav")
    assert "only 1 different stem (unnamed)" in refusal(tmp_path)


def test_folder_above_the_rudiment_is_the_player(root):
    for person in PEOPLE:
        for folder in ("Flam Tap", "single-paradiddle"):
            (root / person / folder).mkdir(parents=True)
            for path in (root / folder).glob(f"{person}_*"):
                path.rename(root / person / folder / path.name)
    dataset = read_dataset(root)
    assert set(dataset.clips.player) == set(PEOPLE)
    assert dataset.players_known


def test_folders_between_player_and_rudiment_are_ignored(tmp_path):
    for person in PEOPLE:
        for day in ("day1", "day2"):
            record(tmp_path / person / day / "flam" / "1.wav")
    dataset = read_dataset(tmp_path)
    assert set(dataset.clips.player) == set(PEOPLE)
    assert len(dataset.clips) == 8


SPLIT_FOLDERS = {"Train": "train", "val": "validation", "test": "test"}


def test_split_folders_with_players(tmp_path):
    for person, folder in zip(PEOPLE, ("Train", *SPLIT_FOLDERS), strict=True):
        record(tmp_path / folder / person / "day1" / "flam" / "1.wav")
    dataset = read_dataset(tmp_path)
    splits = dict(zip(dataset.clips.player, dataset.clips.split, strict=True))
    assert splits == dict(zip(PEOPLE, ("train", *SPLIT_FOLDERS.values()), strict=True))
    assert dataset.notes == ()
    record(tmp_path / "test" / "anna" / "drag" / "1.wav")
    assert "'anna' is in both test and train" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["anna_1.wav", "1.wav"])
def test_split_folders_without_players(tmp_path, name):
    for folder in SPLIT_FOLDERS:
        record(tmp_path / folder / "flam" / name)
    dataset = read_dataset(tmp_path)
    folders = dataset.clips.audio_path.str.partition("/")[0]
    assert dataset.clips.split.tolist() == folders.map(SPLIT_FOLDERS).tolist()
    (note,) = dataset.notes
    assert note.startswith("players unknown")
    assert not dataset.players_known
    assert len(read_dataset(tmp_path, only_test=True).clips) == 3


def test_names_that_are_not_utf_8_are_rejected(root):
    path = root / "Flam Tap" / "anna_take01.wav"
    path.rename(path.with_name(os.fsdecode(b"caf\xe9.wav")))
    (root / os.fsdecode(b"notes.\xe9")).touch()
    message = refusal(root)
    assert "1 of 16 recordings" in message
    assert r"'Flam Tap/caf\udce9.wav'" in message


def test_recordings_with_and_without_a_player_folder_are_rejected(root):
    record(root / "anna" / "flam" / "1.wav")
    message = refusal(root)
    assert all(path in message for path in ("anna/flam/1.wav", "Flam Tap/anna_take01.wav", "PLAYER/RUDIMENT/"))


def test_too_few_stems_are_rejected(root):
    for person in PEOPLE[2:]:
        for path in root.rglob(f"{person}_*"):
            path.unlink()
    message = refusal(root)
    assert "anna_take, ben_take" in message
    assert "PLAYER/RUDIMENT/" in message


def test_unknown_folders_are_listed_in_one_line(root):
    record(root / "flammtap" / "x.wav")
    record(root / "warm up" / "x.wav")
    message = refusal(root)
    assert "2 of 4" in message
    assert "'flammtap' (did you mean flam_tap" in message
    assert "'warm up'" in message


@pytest.mark.parametrize("place", ["wavs/1.wav", "1.wav"])
def test_csv_file_next_to_unlabelled_recordings_is_suggested(tmp_path, place):
    record(tmp_path / place)
    (tmp_path / "clips.csv").touch()
    assert refusal(tmp_path).endswith(f"give the file itself: {tmp_path / 'clips.csv'}")
    record(tmp_path / "flam" / "1.wav")
    assert "clips.csv" not in refusal(tmp_path)


def test_other_files_are_ignored_with_a_note(root):
    for name in ("notes.txt", "Flam Tap/x.mid", "Flam Tap/README", "Flam Tap/.hidden.wav", ".trash/flam/x.wav"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    record(root / "loose.wav")
    dataset = read_dataset(root)
    assert len(dataset.clips) == 16
    assert any("3 files" in note and "1 .mid, 1 .txt" in note for note in dataset.notes)
    assert any("2 recordings" in note for note in dataset.notes)


def test_formats_rates_and_channels_give_equal_audio(tmp_path):
    forms = [("wav", 44_100, 1), ("FLAC", 96_000, 2), ("mp3", 32_000, 2), ("ogg", 48_000, 1), ("wav", 8_000, 2)]
    for (suffix, rate, channels), name in zip(forms, "abcde", strict=True):
        record(tmp_path / "flam" / f"{name}.{suffix}", rate, channels)
    dataset = read_dataset(tmp_path)
    assert dataset.clips.duration_sec.tolist() == pytest.approx([0.5] * 5, abs=0.1)
    cache = build_caches(dataset, [16_000], tmp_path / "cache")[16_000]
    for a, b in zip(cache.offsets[:-1], cache.offsets[1:], strict=True):
        spectrum = np.abs(np.fft.rfft(cache.wave[a:b] * np.hanning(b - a)))
        assert np.argmax(spectrum) * 16_000 / (b - a) == pytest.approx(440, abs=4)
        assert b - a == pytest.approx(8_000, rel=0.2)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("labels", [None, "metadata.csv"])  # unreadable, so that `check` looks for recordings
def test_pipe_is_not_read(root, linked, labels):
    pipe = root / "Flam Tap" / "anna_take09.wav"
    os.mkfifo(root / "pipe" if linked else pipe)
    if linked:
        pipe.symlink_to(root / "pipe")
    if labels:
        (root / labels).touch()
    assert (labels or pipe.name) in refusal(root)
    assert (labels or pipe.name) in check(root).findings[0].text


@pytest.mark.parametrize("target", ["recording", "nothing"])
def test_link_out_of_the_directory_is_refused(root, tmp_path_factory, target):
    outside = tmp_path_factory.mktemp("outside")
    record(outside / "recording.wav")
    (root / "Flam Tap" / "anna_take09.wav").symlink_to(outside / f"{target}.wav")
    assert "Flam Tap/anna_take09.wav' leaves the data directory" in refusal(root)


def test_link_to_another_recording_is_read(root):
    (root / "Flam Tap" / "anna_take09.wav").symlink_to("anna_take01.wav")
    assert len(read_dataset(root).clips) == 17


def test_file_that_is_not_audio_is_named(root):
    (root / "Flam Tap" / "anna_take09.wav").write_bytes(b"nothing")
    assert "anna_take09.wav cannot be decoded" in refusal(root)
