"""Labels in a CSV file: names of columns, unknown players, and error messages."""

from unicodedata import normalize

import pandas as pd
import pytest

from sousaphone.data.readers.sousa import read_dataset
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from tests.data.forms import labels


@pytest.fixture
def source(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", rudiments=SLUGS[:2], long_clips=0)


def write(source, separator=",", **columns):
    """Write a CSV file with the given columns of the labels."""
    table = labels(source)
    path = source / "mine.csv"
    pd.DataFrame({ours: table[theirs] for ours, theirs in columns.items()}).to_csv(path, sep=separator, index=False)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        read_dataset(path)
    assert "\n" not in str(error.value)
    return str(error.value)


PLAIN = {"path": "audio_path", "label": "rudiment_slug"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_have_alternative_names(source, separator):
    path = write(source, separator, id="sample_id", **PLAIN, player="profile_id", Split="split")
    clips, expected = read_dataset(path).clips, read_dataset(source).clips
    same = ["sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "duration_sec"]
    pd.testing.assert_frame_equal(clips[same], expected[same])


def test_spaces_in_headers_are_ignored(source):
    headers = {"path": "audio_path", " label": "rudiment_slug", " player": "profile_id", "split ": "split"}
    path = write(source, **headers)
    other = {"player000,train": "player000,test", "player003,test": "player003,train"}
    for now, then in other.items():
        path.write_text(path.read_text().replace(now, then))
    clips = read_dataset(path).clips
    assert set(clips.player[clips.split == "test"]) == {"player000"}


@pytest.mark.parametrize("lines", [slice(1, None), slice(1, None, 3), slice(0, None)])
def test_commas_at_the_end_of_lines_are_ignored(source, lines):
    path = write(source, **PLAIN, player="profile_id")
    expected, text = read_dataset(path).clips, path.read_text().splitlines()
    text[lines] = [f"{line}," for line in text[lines]]
    path.write_text("\n".join(text))
    pd.testing.assert_frame_equal(read_dataset(path).clips, expected)


def test_cell_beyond_the_header_is_rejected(source):
    path = write(source, **PLAIN, player="profile_id")
    path.write_text(path.read_text() + "a.wav,flam,anna,90\n")
    assert "90" in refusal(path)


@pytest.mark.parametrize("name", ["path", "label", "player", "split"])
def test_column_that_is_used_must_be_there_once(source, name):
    path = write(source, **PLAIN, player="profile_id", split="split")
    expected, lines = read_dataset(path).clips, path.read_text().splitlines()
    cells = [f"{line},x,x" for line in lines[1:]]
    path.write_text("\n".join([f"{lines[0]},note,{name}", *cells]))
    assert f"2 columns {name}" in refusal(path)
    path.write_text("\n".join([f"{lines[0]},note,note", *cells]))
    pd.testing.assert_frame_equal(read_dataset(path).clips, expected)


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_file_names_are_found_in_another_normal_form(source, listed):
    path = write(source, **PLAIN, player="profile_id")
    (stored,) = {"NFC", "NFD"} - {listed}
    old, name = labels(source).audio_path[0], "Zo\u00e9/caf\u00e9.flac"
    new = source / normalize(stored, name)
    new.parent.mkdir()
    (source / old).rename(new)
    path.write_text(path.read_text().replace(old, normalize(listed, name)), encoding="utf-8")
    clips = read_dataset(path).clips
    assert normalize(stored, name) in set(clips.audio_path)


@pytest.mark.parametrize("spelt", ["./{}", ".//./{}", " {}", "{}"])
def test_repeated_path_is_rejected_in_any_spelling(source, spelt):
    first, second = labels(source).audio_path[:2]
    path = write(source, **PLAIN, player="profile_id")
    path.write_text(path.read_text().replace(second, spelt.format(first.replace("/", "//"))))
    assert f"path '{first}'" in refusal(path)


@pytest.mark.parametrize("other", ["Zo\u00e9 ", "Zoe\u0301"])
def test_player_names_are_normalised(source, other):
    path = write(source, **PLAIN, player="profile_id")
    text = path.read_text().replace("player003\n", "Zo\u00e9\n").replace("player002\n", f"{other}\n")
    path.write_text(text, encoding="utf-8")
    (source / "splits.json").write_text(
        '{"train_profile_ids": ["player000"], "val_profile_ids": ["player001"], "test_profile_ids": ["Zoe\\u0301 "]}'
    )
    clips = read_dataset(path).clips
    assert clips.player.value_counts()["Zo\u00e9"] == 4
    assert set(clips.split[clips.player == "Zo\u00e9"]) == {"test"}


def test_cells_that_are_not_numbers_are_counted(source):
    path = write(source, ";", **PLAIN, player="profile_id", tempo="tempo_bpm")
    lines = path.read_text().replace(";60", ";90,5").splitlines()
    path.write_text("\n".join([*lines[:-2], lines[-2].replace("90,5", "80"), lines[-1].replace("90,5", "")]))
    dataset = read_dataset(path)
    assert "6 of 8 cells of tempo" in dataset.notes[0]
    assert "'90,5'" in dataset.notes[0]
    assert dataset.clips.tempo_bpm.notna().sum() == 1


def test_byte_order_mark_is_ignored(source):
    path = write(source, **PLAIN, player="profile_id")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert len(read_dataset(path).clips) == 8


def test_player_may_be_called_na(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("player003,", "NA,"))
    assert "NA" in set(read_dataset(path).clips.player)


def test_splits_json_is_used_without_a_split_column(source):
    clips = read_dataset(write(source, **PLAIN, player="profile_id")).clips
    assert clips.split.tolist() == read_dataset(source).clips.split.tolist()


def test_takes_of_one_name_are_in_one_split_with_a_note(source):
    dataset = read_dataset(write(source, **PLAIN))
    assert dataset.clips.player.unique().tolist() == ["player000", "player001", "player002", "player003"]
    assert dataset.clips.groupby("player").split.nunique().max() == 1
    assert "players unknown" in dataset.notes[0]
    assert not dataset.players_known


def test_empty_split_names_the_column(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("validation", "train"))
    note = read_dataset(path).notes[0]
    assert "the column split of mine.csv" in note
    assert "validation" in note


def test_missing_and_present_columns_are_named(source):
    message = refusal(write(source, player="profile_id", tempo="tempo_bpm"))
    assert "mine.csv lacks the columns audio_path or path or file_name or file, rudiment_slug or" in message
    assert "it has: player, tempo" in message


def test_unknown_split_is_named(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("validation", "holdout"))
    message = refusal(path)
    assert "2 of 8 rows" in message
    assert "'holdout'" in message


def test_player_in_two_splits_is_rejected(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("player003,test", "player000,test", 1))
    message = refusal(path)
    assert "'player000' is in both test and train" in message
    assert "the column split" in message


def test_unknown_rudiments_are_listed_in_one_line(source):
    path = write(source, **PLAIN, player="profile_id")
    path.write_text(path.read_text().replace(f",{SLUGS[0]},", ",moonwalk,").replace(f",{SLUGS[1]},", ",flamm,"))
    message = refusal(path)
    assert "'moonwalk'" in message
    assert "'flamm' (did you mean flam" in message


def test_missing_recording_names_the_csv_file(source):
    path = write(source, **PLAIN, player="profile_id")
    (source / labels(source).audio_path[0]).unlink()
    assert "rows from mine.csv" in refusal(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"path,label\n", "0 rows"), (b"\xff\xfe,", "UTF-8")]
)
def test_invalid_csv_file_is_rejected(source, content, message):
    (source / "mine.csv").write_bytes(content)
    assert message in refusal(source / "mine.csv")
