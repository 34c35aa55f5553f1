"""Labels in a CSV file: columns by several names, players known or not, and one clear line for what is wrong."""

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
    """A CSV file with these columns of the labels, under these names."""
    table = labels(source)
    path = source / "mine.csv"
    pd.DataFrame({ours: table[theirs] for ours, theirs in columns.items()}).to_csv(path, sep=separator, index=False)
    return path


def refusal(path) -> str:
    with pytest.raises(UserError) as caught:
        read_dataset(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PLAIN = {"path": "audio_path", "label": "rudiment_slug"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_path_label_player_and_split_are_read_by_their_plain_names(source, separator):
    path = write(source, separator, id="sample_id", **PLAIN, player="profile_id", Split="split")
    clips, expected = read_dataset(path).clips, read_dataset(source).clips
    same = ["sample_id", "player", "rudiment", "label", "split", "audio_path", "size_bytes", "duration_sec"]
    pd.testing.assert_frame_equal(clips[same], expected[same])


def test_a_space_beside_a_header_hides_no_column(source):
    headers = {"path": "audio_path", " label": "rudiment_slug", " player": "profile_id", "split ": "split"}
    path = write(source, **headers)
    other = {"player000,train": "player000,test", "player003,test": "player003,train"}
    for now, then in other.items():
        path.write_text(path.read_text().replace(now, then))
    clips = read_dataset(path).clips
    assert set(clips.player[clips.split == "test"]) == {"player000"}


@pytest.mark.parametrize("spelt", ["./{}", ".//./{}", " {}", "{}"])
def test_a_recording_listed_twice_is_refused_however_its_path_is_spelt(source, spelt):
    first, second = labels(source).audio_path[:2]
    path = write(source, **PLAIN, player="profile_id")
    path.write_text(path.read_text().replace(second, spelt.format(first.replace("/", "//"))))
    assert f"path '{first}' occurs more than once" in refusal(path)


@pytest.mark.parametrize("other", ["Zo\u00e9 ", "Zoe\u0301"])
def test_a_player_is_one_whatever_spaces_and_accents_are_made_of(source, other):
    path = write(source, **PLAIN, player="profile_id")
    text = path.read_text().replace("player003\n", "Zo\u00e9\n").replace("player002\n", f"{other}\n")
    path.write_text(text, encoding="utf-8")
    (source / "splits.json").write_text(
        '{"train_profile_ids": ["player000"], "val_profile_ids": ["player001"], "test_profile_ids": ["Zoe\\u0301 "]}'
    )
    clips = read_dataset(path).clips
    assert clips.player.value_counts()["Zo\u00e9"] == 4
    assert set(clips.split[clips.player == "Zo\u00e9"]) == {"test"}


def test_cells_that_should_be_numbers_and_are_not_are_counted(source):
    path = write(source, ";", **PLAIN, player="profile_id", tempo="tempo_bpm")
    lines = path.read_text().replace(";60", ";90,5").splitlines()
    path.write_text("\n".join([*lines[:-2], lines[-2].replace("90,5", "80"), lines[-1].replace("90,5", "")]))
    dataset = read_dataset(path)
    assert "6 of 8 cells of tempo are no numbers (the first: '90,5')" in dataset.notes[0]
    assert dataset.clips.tempo_bpm.notna().sum() == 1


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(source):
    path = write(source, **PLAIN, player="profile_id")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert len(read_dataset(path).clips) == 8


def test_a_player_called_na_is_a_player(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("player003,", "NA,"))
    assert "NA" in set(read_dataset(path).clips.player)


def test_without_a_split_column_splits_json_counts(source):
    clips = read_dataset(write(source, **PLAIN, player="profile_id")).clips
    assert clips.split.tolist() == read_dataset(source).clips.split.tolist()


def test_without_players_takes_of_one_name_stay_together_and_it_is_said(source):
    dataset = read_dataset(write(source, **PLAIN))
    assert dataset.clips.player.unique().tolist() == ["player000", "player001", "player002", "player003"]
    assert dataset.clips.groupby("player").split.nunique().max() == 1
    assert "players unknown: split by name stem" in dataset.notes[0]
    assert not dataset.players_known


def test_an_empty_split_is_carved_and_the_column_is_named(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("validation", "train"))
    assert "the column split of mine.csv gives no validation player" in read_dataset(path).notes[0]


def test_missing_columns_are_named_with_those_that_are_there(source):
    message = refusal(write(source, player="profile_id", tempo="tempo_bpm"))
    assert "mine.csv lacks the columns audio_path or path or file_name or file, rudiment_slug or" in message
    assert message.endswith("it has: player, tempo; add what is missing, or rename the column that holds it")


def test_an_unknown_split_is_named(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("validation", "holdout"))
    assert "2 of 8 rows have no known split (the first: 'holdout')" in refusal(path)


def test_a_player_in_two_splits_is_named(source):
    path = write(source, **PLAIN, player="profile_id", split="split")
    path.write_text(path.read_text().replace("player003,test", "player000,test", 1))
    assert "player 'player000' is in both test and train" in refusal(path)


def test_all_unknown_rudiments_are_in_one_line(source):
    path = write(source, **PLAIN, player="profile_id")
    path.write_text(path.read_text().replace(f",{SLUGS[0]},", ",moonwalk,").replace(f",{SLUGS[1]},", ",flamm,"))
    message = refusal(path)
    assert "'moonwalk'" in message
    assert "'flamm' (did you mean flam" in message


def test_a_missing_recording_is_named_with_the_file_that_lists_it(source):
    path = write(source, **PLAIN, player="profile_id")
    (source / labels(source).audio_path[0]).unlink()
    assert "remove their rows from mine.csv" in refusal(path)


@pytest.mark.parametrize(("content", "said"), [(b"", "is empty"), (b"path,label\n", "0 rows"), (b"\xff\xfe,", "UTF-8")])
def test_a_file_that_is_no_list_of_clips_is_refused(source, content, said):
    (source / "mine.csv").write_bytes(content)
    assert said in refusal(source / "mine.csv")
