"""The check of a data set reports all problems at once."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from sousaphone.data.inspect.check import check
from sousaphone.rudiments import SLUGS
from tests.data.forms import as_metadata_csv, as_recordings, as_shards


@pytest.fixture
def root(make_sousa, tmp_path):
    return make_sousa(tmp_path / "sousa", rudiments=SLUGS[:3], long_clips=0)


def table(root) -> pd.DataFrame:
    return pd.read_parquet(root / "labels" / "samples.parquet")


def audio(root, row):
    return root / table(root).audio_path[row]


def relabel(root, row, **cells):
    clips = table(root)
    for column, value in cells.items():
        clips[column] = clips[column].astype(object)
        clips.loc[row, column] = value
    clips.to_parquet(root / "labels" / "samples.parquet")


def list_players(root, **lists):
    splits = json.loads((root / "splits.json").read_text())
    (root / "splits.json").write_text(json.dumps(splits | lists))


def missing_file(root):
    audio(root, 2).unlink()


def truncated_flac(root):
    audio(root, 2).write_bytes(audio(root, 2).read_bytes()[:4000])


def unknown_slug(root):
    relabel(root, 0, rudiment_slug="paradidle")


def duplicated_id(root):
    relabel(root, 1, sample_id=table(root).sample_id[0])


def player_in_two_splits(root):
    list_players(root, test_profile_ids=["player003", "player000"])


def empty_split(root):
    list_players(root, val_profile_ids=[], train_profile_ids=["player000", "player001", "player002"])


def tempo_not_a_number(root):
    relabel(root, 4, tempo_bpm=float("nan"))


def path_outside(root):
    relabel(root, 0, audio_path="../outside.flac")


def zero_length_file(root):
    audio(root, 2).write_bytes(b"")


def missing_column(root):
    table(root).drop(columns="profile_id").to_parquet(root / "labels" / "samples.parquet")


def no_samples(root):
    soundfile.write(audio(root, 2), np.zeros((0, 1)), 44_100)


def silent_clip(root):
    soundfile.write(audio(root, 2), np.full(44_100, 1e-5), 44_100, subtype="PCM_24")


def clipped_clip(root):
    time = np.arange(44_100) / 44_100
    soundfile.write(audio(root, 2), np.clip(3 * np.sin(600 * time), -1, 1), 44_100, subtype="PCM_24")


def two_labels_for_one_sound(root):
    audio(root, 1).write_bytes(audio(root, 0).read_bytes())


def one_sound_in_two_splits(root):
    audio(root, 9).write_bytes(audio(root, 0).read_bytes())


def one_sound_under_two_ids(root):
    audio(root, 3).write_bytes(audio(root, 0).read_bytes())


def names_that_differ_in_capitals(root):
    relabel(root, 0, profile_id="Player003")
    list_players(root, train_profile_ids=["player000", "player001", "Player003"])


def unlisted_player(root):
    list_players(root, train_profile_ids=["player001"])


ERRORS = {
    missing_file: "1 of 12 audio files",
    truncated_flac: "player000_single_stroke_seven_0.flac cannot be decoded|truncated",
    unknown_slug: "'paradidle' .*did you mean",
    duplicated_id: "sample_id 'player000_single_stroke_roll_0'",
    player_in_two_splits: "'player000' in both train and test",
    path_outside: "'../outside.flac' leaves the data directory",
    zero_length_file: r"player000_single_stroke_seven_0.flac is empty \(0 bytes\)",
    missing_column: "lacks the column profile_id",
    no_samples: "cannot be decoded|is empty",
    silent_clip: r"1 clip silent.*\(player000_single_stroke_seven_0\)",
    two_labels_for_one_sound: "1 recording more than once under different rudiments",
    one_sound_in_two_splits: r"more than once in different splits.*player000_single_stroke_roll_0 = player003_single",
}
WARNINGS = {
    empty_split: "no validation player with clips: moved from train, ",
    tempo_not_a_number: r"1 of 12 clips.*tempo.*\(player001_single_stroke_four_0\)",
    clipped_clip: r"1 clip clipped.*\(player000_single_stroke_seven_0\)",
    one_sound_under_two_ids: "1 recording more than once under different ids",
    names_that_differ_in_capitals: r"2 players.*\(Player003, player003\)",
    unlisted_player: "1 player not listed in splits.json",
}


def texts(checked, error: bool) -> list[str]:
    return [finding.text for finding in checked.findings if finding.error is error]


def test_valid_data_set_has_no_errors(root):
    checked = check(root)
    assert not texts(checked, True)
    few, absent, *scarce = texts(checked, False)
    assert "1 test player" in few
    assert "37 of the 40 rudiments" in absent
    assert [" validation " in text for text in scarce] == [True, False]
    assert checked.seconds.tolist() == pytest.approx(checked.dataset.clips.duration_sec.tolist(), abs=1e-3)


def test_rudiments_of_a_single_player_or_clip_are_counted(make_sousa, tmp_path):
    players = [f"player{number}" for number in range(12)]
    splits = {"train_profile_ids": players[:2], "val_profile_ids": players[2:4], "test_profile_ids": players[4:]}
    root = make_sousa(tmp_path / "large", players=players, rudiments=SLUGS[:5], takes=2, splits=splits, long_clips=0)
    assert not any("single" in text for text in texts(check(root, audio=False), False))
    clips = table(root)
    test = clips.profile_id.isin(players[4:])
    dropped = test & (clips.rudiment_slug == SLUGS[0]) & (clips.profile_id != players[4])
    dropped |= test & (clips.rudiment_slug == SLUGS[1]) & (clips.sample_id != f"{players[4]}_{SLUGS[1]}_0")
    clips[~dropped].to_parquet(root / "labels" / "samples.parquet")
    (scarce,) = (text for text in texts(check(root, audio=False), False) if "single" in text)
    assert "2 rudiments with test clips" in scarce
    assert "1 with a single clip" in scarce
    assert f"({SLUGS[1]}, {SLUGS[0]})" in scarce


def as_csv_without_splits(root, out):
    table = as_metadata_csv(root, out) / "metadata.csv"
    pd.read_csv(table).drop(columns=["split", "skill_tier"]).to_csv(table, index=False)
    return out


def as_folders_of_players(root, out):
    return as_recordings(root, out, players=True)


@pytest.mark.parametrize(
    ("form", "how"), [(as_folders_of_players, "folders train"), (as_csv_without_splits, "column split")]
)
def test_notes_are_about_the_layout_at_hand(root, tmp_path, form, how):
    found = "\n".join(texts(check(form(root, tmp_path / "other"), audio=False), False))
    assert how in found
    assert not any(word in found for word in ("splits.json", "quota", "skill tier"))


@pytest.mark.parametrize("breaking", ERRORS, ids=lambda breaking: breaking.__name__)
def test_errors(root, breaking):
    breaking(root)
    found = texts(check(root), error=True)
    assert len(found) == 1
    assert pd.Series(found).str.contains(ERRORS[breaking]).all(), found
    assert ";" in found[0]  # a remedy
    assert "\n" not in found[0]


@pytest.mark.parametrize("breaking", WARNINGS, ids=lambda breaking: breaking.__name__)
def test_warnings(root, breaking):
    breaking(root)
    checked = check(root)
    assert not texts(checked, True)
    assert pd.Series(texts(checked, error=False)).str.contains(WARNINGS[breaking]).sum() == 1


def test_all_errors_are_reported_at_once(root):
    for breaking in (truncated_flac, unknown_slug, duplicated_id, player_in_two_splits):
        breaking(root)
    audio(root, 7).unlink()
    found = pd.Series(texts(check(root), error=True))
    assert len(found) == 5
    for breaking in (missing_file, truncated_flac, unknown_slug, duplicated_id, player_in_two_splits):
        assert found.str.contains(ERRORS[breaking]).sum() == 1, breaking


def test_every_broken_file_is_named_once(root):
    for row in (1, 5, 8):
        audio(root, row).write_bytes(b"no FLAC")
    assert len(texts(check(root), error=True)) == 3


def test_nothing_is_decoded_without_audio(root):
    truncated_flac(root)
    assert not texts(check(root, audio=False), True)


@pytest.mark.parametrize("form", [as_metadata_csv, as_shards])
def test_every_layout_is_checked(root, tmp_path, form):
    audio(root, 2).write_bytes(b"no FLAC")
    other = form(root, tmp_path / "other")
    checked = check(other)
    assert len(checked.seconds) == 12
    (error,) = texts(checked, error=True)
    assert "cannot be decoded" in error


def test_all_recordings_of_an_invalid_folder_are_decoded(root, tmp_path):
    other = as_recordings(root, tmp_path / "other", players=True)
    broken = sorted(other.rglob("*.flac"))[:2]
    for path in broken:
        path.write_bytes(b"no FLAC")
    found = pd.Series(texts(check(other), error=True))
    assert all(found.str.contains(path.name).sum() == 1 for path in broken)
    assert len(found) == 2


def test_files_next_to_an_invalid_csv_file_are_not_checked(root):
    audio(root, 2).write_bytes(b"no FLAC")
    (root / "mine.csv").write_text("path,label\n")
    assert "mine.csv has no clips" in " ".join(texts(check(root / "mine.csv"), error=True))
    assert len(texts(check(root / "mine.csv"), error=True)) == 1
