"""Classes that are played by one pattern are named, and no others are."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from sousaphone.cli.data import main
from sousaphone.data.dataset import Dataset
from sousaphone.data.inspect.inseparable import EXAMPLES, pairs, stroke_features
from sousaphone.data.inspect.stroke_sequences import STROKES, Strokes, labelled_strokes, transcribed_strokes
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.rudiments import RUDIMENTS
from tests.data.inspect.test_shortcuts import RATE, taps

CLASSES = (
    *("single_stroke_roll", "single_paradiddle", "flam_tap", "inverted_flam_tap", "flam_accent", "swiss_army_triplet"),
    *("single_drag_tap", "double_drag_tap", "nine_stroke_roll", "eleven_stroke_roll"),
)
FAULTS = [("double_drag_tap", "single_drag_tap"), ("swiss_army_triplet", "flam_accent")]
VELOCITY = {"grace": 40, "tap": 65, "diddle": 75, "accent": 118, "buzz": 70}


def play(slug: str, rng: np.random.Generator, cycles: int = 4) -> pd.DataFrame:
    """Four cycles of a rudiment at a random tempo, unevenly played."""
    rudiment, beat_ms = RUDIMENTS[slug], 60_000 / rng.uniform(70, 160)
    rows = [
        (stroke.onset + cycle * rudiment.beats, stroke.hand, stroke.kind)
        for cycle in range(cycles)
        for stroke in rudiment.strokes
    ]
    onsets, hands, kinds = zip(*rows, strict=True)
    times = 100 + beat_ms * np.array(onsets) + rng.normal(0, 6, len(rows))
    velocities = np.array([VELOCITY[kind] for kind in kinds]) * rng.normal(1, 0.06, len(rows))
    return pd.DataFrame(
        {
            "hand": hands,
            "stroke_type": kinds,
            "actual_time_ms": times,
            "actual_velocity": velocities.round().clip(1, 127),
        }
    )


def make_set(root: Path, faults=(), players=12, takes=2, columns=None, classes=CLASSES) -> Dataset:
    """A data set of strokes without audio; in `faults`, the first class of each pair is played as the second."""
    pattern, rng = {slug: slug for slug in classes} | dict(faults), np.random.default_rng(0)
    rows, strokes = [], []
    for player in range(players):
        for slug in classes:
            for take in range(takes):
                name = f"p{player}_{slug}_{take}"
                rows.append({"sample_id": name, "player": f"p{player}", "rudiment": slug, "audio_path": f"{name}.wav"})
                strokes.append(play(pattern[slug], rng).assign(sample_id=name))
    (root / "labels").mkdir(parents=True)
    table = pd.concat(strokes)
    table = table if columns is None else table[["sample_id", *columns]]
    table.sample(frac=1, random_state=0).to_parquet(root / STROKES)  # in any order
    return Dataset(root, pd.DataFrame(rows))


def measure(dataset: Dataset):
    return pairs(dataset.clips, labelled_strokes(dataset))


def named(measured) -> set[frozenset]:
    return {frozenset(pair.classes) for pair in measured if pair.alike}


def test_no_pair_of_different_patterns_is_named(tmp_path):
    measured = measure(make_set(tmp_path))
    assert len(measured) == len(CLASSES) * (len(CLASSES) - 1) // 2
    assert not named(measured)
    assert min(pair.low for pair in measured) > 0.6


def test_exactly_the_pairs_of_one_pattern_are_named(tmp_path):
    measured = measure(make_set(tmp_path, FAULTS))
    assert named(measured) == set(map(frozenset, FAULTS))
    assert {frozenset(pair.classes) for pair in measured[: len(FAULTS)]} == named(measured)  # the lowest accuracies
    for pair in measured[: len(FAULTS)]:
        assert pair.low < 0.5 < pair.high
        assert pair.agreement == pytest.approx(1, abs=0.05)
        assert not pair.sticking_only


def test_patterns_that_differ_in_hands_only_need_the_hands(tmp_path):
    without = measure(make_set(tmp_path / "without", columns=["actual_time_ms", "actual_velocity"]))
    (pair,) = (pair for pair in without if set(pair.classes) == {"flam_accent", "swiss_army_triplet"})
    assert pair.alike
    assert pair.sticking_only
    (other,) = (pair for pair in without if set(pair.classes) == {"single_drag_tap", "double_drag_tap"})
    assert not other.alike
    hands = measure(make_set(tmp_path / "with", columns=["actual_time_ms", "actual_velocity", "hand"]))
    assert not named(hands)


def test_examples_are_clips_of_different_players(tmp_path):
    dataset = make_set(tmp_path, FAULTS)
    pair = measure(dataset)[0]
    for slug, examples in zip(pair.classes, pair.examples, strict=True):
        clips = dataset.clips.iloc[examples]
        assert len(clips) == EXAMPLES == clips.player.nunique()
        assert set(clips.rudiment) == {slug}


def test_few_players_widen_the_interval(tmp_path):
    few = measure(make_set(tmp_path / "few", FAULTS, players=4, takes=1))
    many = measure(make_set(tmp_path / "many", FAULTS, players=12, takes=1))
    width = {len(own): np.median([pair.high - pair.low for pair in own]) for own in (few, many)}
    assert np.median([p.high - p.low for p in few]) > 1.5 * np.median([p.high - p.low for p in many]), width
    two = measure(make_set(tmp_path / "two", players=2, takes=1))
    assert all(np.isnan([pair.low, pair.high]).all() for pair in two)


def test_pairs_that_no_other_player_plays_are_not_measured(tmp_path):
    dataset = make_set(tmp_path)
    clips = dataset.clips[(dataset.clips.rudiment != CLASSES[0]) | (dataset.clips.player == "p0")]
    dataset = Dataset(dataset.root, clips.reset_index(drop=True))
    measured = measure(dataset)
    assert len(measured) == (len(CLASSES) - 1) * (len(CLASSES) - 2) // 2
    assert not any(CLASSES[0] in pair.classes for pair in measured)
    assert measure(make_set(tmp_path / "one", players=1)) == []


def test_features_depend_neither_on_tempo_nor_on_loudness():
    rng = np.random.default_rng(0)
    times, values = np.cumsum(rng.uniform(0.05, 0.3, 40)), rng.normal(0, 0.3, (3, 40))
    features = stroke_features(Strokes(times, values))
    np.testing.assert_allclose(stroke_features(Strokes(5 + 2.5 * times, values)), features, atol=1e-9)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_clips_with_few_strokes_have_as_many_features(count):
    few = stroke_features(Strokes(np.arange(count) / 10, np.zeros((2, count))))
    assert few.shape == stroke_features(Strokes(np.arange(40) / 10, np.zeros((2, 40)))).shape
    assert np.isfinite(few).all()


def test_labels_without_a_clip_or_a_time_are_not_used(tmp_path):
    dataset = make_set(tmp_path, players=2)
    table = pd.read_parquet(tmp_path / STROKES)
    first = table.sample_id == dataset.clips.sample_id[0]
    table[~first].to_parquet(tmp_path / STROKES)
    assert labelled_strokes(dataset) is None
    table.assign(actual_time_ms=table.actual_time_ms.where(~first)).to_parquet(tmp_path / STROKES)
    assert labelled_strokes(dataset) is None
    table.drop(columns="actual_time_ms").to_parquet(tmp_path / STROKES)
    assert labelled_strokes(dataset) is None
    (tmp_path / STROKES).write_bytes(b"no table")
    assert labelled_strokes(dataset) is None


def test_incomplete_columns_of_labels_are_ignored(tmp_path):
    dataset = make_set(tmp_path, players=2)
    table = pd.read_parquet(tmp_path / STROKES)
    table.loc[table.index[:50], "hand"] = None
    table.to_parquet(tmp_path / STROKES)
    assert labelled_strokes(dataset).attributes == ("time", "loudness", "type")
    table.assign(actual_velocity=np.inf).to_parquet(tmp_path / STROKES)
    assert labelled_strokes(dataset).attributes == ("time", "type")


@pytest.mark.parametrize("column", ["hand", "stroke_type"])
@pytest.mark.parametrize("value", [["L"], {"L": 1}, 1.5, b"L"])
def test_names_of_any_type_are_read_as_text(tmp_path, column, value):
    dataset = make_set(tmp_path, players=2)
    table = pd.read_parquet(tmp_path / STROKES)
    table.assign(**{column: [value] * len(table)}).to_parquet(tmp_path / STROKES)
    found = labelled_strokes(dataset)
    assert found.attributes == ("time", "loudness", "hand", "type")
    assert pairs(dataset.clips, found)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Recordings of three patterns by six players under four labels: flam_tap is played as single_stroke_roll."""
    root, rng = tmp_path_factory.mktemp("recorded"), np.random.default_rng(0)
    gaps = {"single_stroke_roll": [1], "flam_tap": [1], "single_paradiddle": [1, 1, 2], "drag": [1, 3]}
    for player in range(6):
        for slug, pattern in gaps.items():
            for take in range(3):
                step = rng.uniform(0.09, 0.13)
                times = 0.1 + step * np.cumsum(np.tile(pattern, 16)[:16]) + rng.normal(0, 0.004, 16)
                path = root / ("val" if player == 4 else "test" if player == 5 else "train") / f"p{player}" / slug
                path.mkdir(parents=True, exist_ok=True)
                wave = taps(times.tolist(), times[-1] + 0.3) * rng.uniform(0.5, 1)
                soundfile.write(path / f"{take}.flac", wave, RATE)
    return root


def test_pair_of_one_pattern_is_ranked_first_from_audio(recorded):
    dataset = read_dataset(recorded)
    strokes = transcribed_strokes(dataset)
    assert not strokes.labelled
    first, *others = pairs(dataset.clips, strokes)
    assert set(first.classes) == {"single_stroke_roll", "flam_tap"}
    assert first.alike
    assert not named(others)


def test_check_shows_pairs_and_warns(recorded, capsys):
    assert main(["check", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert "defined alike?" in out
    assert "transcribed" in out
    assert "6 players" in out
    assert out.count("/p") >= 2 * EXAMPLES
    assert [line for line in out.splitlines() if line.startswith("warning: 1 pair")]
    assert main(["check", str(recorded), "--no-audio"]) == 0
    assert "defined alike?" not in capsys.readouterr().out
