"""Shortcuts are detected, and the built-in set has none."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from sousaphone.data.inspect.shortcuts import ShortcutScores, nearest_neighbour, shortcut_scores
from sousaphone.data.inspect.stroke_sequences import STROKES, labelled_strokes, transcribed_strokes
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.synthetic.generate import generate, plan_clips
from sousaphone.data.synthetic.players import perform
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.transcription.transcribe import transcribe

LIMIT = 10.0  # percent; chance is 2.5
RATE = 44_100


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shortcuts") / "set"
    generate(root, clips=200, seed=0, workers=1)
    return root


def measured(root: Path) -> ShortcutScores:
    dataset = read_dataset(root)
    return shortcut_scores(dataset, labelled_strokes(dataset) or transcribed_strokes(dataset))


def taps(times: list[float], seconds: float) -> np.ndarray:
    """Decaying noise bursts over a little noise, float32 [T]."""
    rng = np.random.default_rng(0)
    wave = 0.001 * rng.standard_normal(round(seconds * RATE))
    for time in times:
        start = round(time * RATE)
        burst = np.exp(-np.arange(4000) / 800) * rng.standard_normal(4000)
        wave[start : start + 4000] += burst[: len(wave) - start]
    return (0.2 * wave).astype(np.float32)


def test_neighbours_of_the_same_player_are_excluded():
    features = np.array([0.0, 0.0, 5.0, 5.1])
    players = np.array(["a", "a", "b", "c"])
    assert nearest_neighbour(features, np.array([0, 0, 1, 1]), players) == 50.0  # a's clips find b's
    assert nearest_neighbour(features, np.array([1, 1, 1, 1]), players) == 100.0


def test_equally_near_clips_vote_and_ties_count_fractionally():
    features = np.zeros(4)
    players = np.array(["a", "b", "c", "d"])
    assert nearest_neighbour(features, np.array([0, 0, 0, 1]), players) == 75.0
    assert nearest_neighbour(features[:3], np.array([0, 0, 1]), players[:3]) == pytest.approx(100 / 3)


def test_features_are_scaled():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    players = np.arange(200)
    feature = labels + 0.01 * rng.standard_normal(200)
    assert nearest_neighbour(np.stack([feature, 1e4 * rng.standard_normal(200)], axis=1), labels, players) > 90
    assert nearest_neighbour(1e4 * rng.standard_normal(200), labels, players) < 65


def test_stroke_counts_that_reveal_the_class_are_detected(tmp_path):
    """The label is the number of strokes, counted in the audio and in the labels."""
    rows, strokes = [], []
    for player in range(6):
        for label in range(8):
            name = f"p{player}_{SLUGS[label]}"
            times = [0.05 + 0.11 * place for place in range(3 + label)]
            path = tmp_path / "audio" / SLUGS[label] / f"{name}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, taps(times, 2.0), RATE)
            audio = path.relative_to(tmp_path).as_posix()
            rows.append(
                {"sample_id": name, "profile_id": f"p{player}", "rudiment_slug": SLUGS[label], "audio_path": audio}
            )
            strokes += [{"sample_id": name, "actual_time_ms": 1000 * time} for time in times]
    (tmp_path / "labels").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "labels" / "samples.parquet")
    lists = {"train_profile_ids": ["p0", "p1", "p2", "p3"], "val_profile_ids": ["p4"], "test_profile_ids": ["p5"]}
    (tmp_path / "splits.json").write_text(json.dumps(lists))

    detected = measured(tmp_path)
    assert (detected.counted, detected.clips, detected.majority) == ("audio", 48, 12.5)
    assert detected.percent["strokes"] > 90
    assert "strokes in the first 2.5 s" not in detected.percent  # no clip is longer
    pd.DataFrame(strokes).to_parquet(tmp_path / STROKES)
    labelled = measured(tmp_path)
    assert (labelled.counted, labelled.percent["strokes"]) == ("labels", 100.0)
    pd.DataFrame(strokes[5:]).to_parquet(tmp_path / STROKES)  # the labels lack a clip
    assert measured(tmp_path).counted == "audio"


def test_built_in_set_has_no_shortcut_by_counts_duration_or_tempo():
    clips = list(plan_clips(1000, seed=0))
    times = [np.array(perform(clip).columns["actual_time_ms"]) / 1000 for clip in clips]
    seconds = np.array([clip.duration for clip in clips])
    starts = (seconds - 2.5) / 2  # of a nano model's test window
    features = {
        "duration": seconds,
        "strokes": [len(own) for own in times],
        "strokes in the first 2.5 s": [(own < 2.5).sum() for own in times],
        "strokes in the middle": [
            ((own >= start) & (own < start + 2.5)).sum() for own, start in zip(times, starts, strict=True)
        ],
        "strokes per second": [len(own) / length for own, length in zip(times, seconds, strict=True)],
        "tempo": [clip.tempo_bpm for clip in clips],
    }
    labels = np.array([SLUGS.index(clip.rudiment.slug) for clip in clips])
    players = np.array([clip.player.profile_id for clip in clips])
    for name, values in features.items():
        assert nearest_neighbour(np.array(values), labels, players) < LIMIT, name


def test_built_in_set_has_no_shortcut_by_timbre(generated):
    scores = measured(generated)
    assert scores.counted == "labels"
    assert scores.percent["duration, loudness and spectral centroid"] < LIMIT


@pytest.mark.slow
def test_built_in_tiny_set_has_no_shortcut(built_in, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(built_in, root, ignore=lambda directory, names: {Path(STROKES).name} & {*names})
    scores = measured(root)
    assert scores.counted == "audio"
    assert max(scores.percent.values()) < LIMIT, scores


def test_strokes_in_the_built_in_set_are_found(generated):
    samples = pd.read_parquet(generated / "labels" / "samples.parquet")
    strokes = pd.read_parquet(generated / STROKES)
    samples = samples[samples.rudiment_slug != "multiple_bounce_roll"].head(30)  # its bounces are not separate
    hits = detected = strokes_total = 0
    for row in samples.itertuples():
        wave, rate = soundfile.read(generated / row.audio_path, dtype="float32")
        found = transcribe(wave, rate).times
        times = strokes.actual_time_ms[strokes.sample_id == row.sample_id].to_numpy() / 1000
        hits += int((np.abs(found[:, None] - times).min(axis=1) < 0.02).sum())
        detected, strokes_total = detected + len(found), strokes_total + len(times)
    assert hits / detected > 0.9
    assert hits / strokes_total > 0.8


def test_undecodable_clip_is_named(tmp_path, make_sousa):
    root = make_sousa(tmp_path / "set")
    broken = next(root.glob("audio/*/*.flac"))
    broken.write_bytes(b"no audio")
    with pytest.raises(UserError, match=f"{broken.name} cannot be decoded"):
        measured(root)


def test_share_of_the_largest_class_is_reported(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(12):
        folder = tmp_path / f"player{index % 3}" / (SLUGS[0] if index < 9 else SLUGS[1])
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{index}.wav", rng.normal(0, 0.1, 20_000), 16_000)
    assert measured(tmp_path).majority == 75
