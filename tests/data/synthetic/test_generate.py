"""The built-in set: SOUSA's layout, reproducible bytes, and classes that differ only in their stroke pattern."""

import dataclasses
import errno
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import soundfile

from sousaphone.config import DATASET_SIZES
from sousaphone.data.synthetic import generate as generator
from sousaphone.data.synthetic import tables
from sousaphone.data.synthetic.generate import PLAN, builtin_dataset, builtin_root, generate, plan_clips
from sousaphone.data.synthetic.players import Clip, Performance, make_players, perform
from sousaphone.data.synthetic.render import ROOMS, SAMPLE_RATE, make_clip, make_voice, render
from sousaphone.data.synthetic.soundfonts import builtin_kits, snare
from sousaphone.data.synthetic.tables import audio_path
from sousaphone.errors import UserError
from sousaphone.rudiments import RUDIMENTS, SLUGS

WINDOW = 2.5  # seconds, of a nano model

SAMPLES_COLUMNS = (
    *("sample_id", "profile_id", "rudiment_slug", "tempo_bpm", "duration_sec", "num_cycles", "skill_tier"),
    *("skill_tier_binary", "dominant_hand", "midi_path", "audio_path", "num_strokes", "num_measures", "soundfont"),
    *("augmentation_preset", "augmentation_group_id", "aug_soundfont", "aug_room_type", "aug_room_wet_dry"),
    *("aug_mic_distance", "aug_mic_type", "aug_compression_ratio", "aug_noise_level_db", "aug_bit_depth"),
    "aug_sample_rate",
)
STROKES_COLUMNS = (
    *("index", "hand", "stroke_type", "intended_time_ms", "actual_time_ms", "timing_error_ms", "intended_velocity"),
    *("actual_velocity", "velocity_error", "is_grace_note", "is_accent", "diddle_position", "flam_spacing_ms"),
    *("parent_stroke_index", "buzz_count", "sample_id"),
)


@pytest.fixture(scope="module")
def plan() -> list[Clip]:
    return list(plan_clips(1000, seed=0))


@pytest.fixture(scope="module")
def performances(plan) -> list[Performance]:
    return [perform(clip) for clip in plan]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "set"
    generate(root, clips=12, seed=3, workers=1)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def steady(clip: Clip) -> Clip:
    """The same clip by a player without jitter, in the driest room, so that only the hands differ."""
    calm = dataclasses.replace(clip.player, jitter_ms=0.0, drift=0.0, spread=0.0, downbeat_level=1.0, dominant="R")
    return dataclasses.replace(clip, player=calm, room=0, phase=0.0)


def test_equal_seeds_give_equal_bytes_with_any_number_of_workers(root, tmp_path):
    generate(tmp_path / "two", clips=12, seed=3, workers=2)
    assert contents(tmp_path / "two") == contents(root)
    generate(tmp_path / "other", clips=10, seed=4, workers=1)
    assert not set(contents(tmp_path / "other").values()) & set(contents(root).values())


def test_layout_is_sousas(root):
    samples = pd.read_parquet(root / "labels" / "samples.parquet")
    strokes = pd.read_parquet(root / "labels" / "strokes.parquet")
    assert tuple(samples) == SAMPLES_COLUMNS
    assert tuple(strokes) == STROKES_COLUMNS
    assert samples["sample_id"].is_unique
    assert set(strokes["sample_id"]) == set(samples["sample_id"])
    splits = json.loads((root / "splits.json").read_text())
    listed = [player for split in ("train", "val", "test") for player in splits[f"{split}_profile_ids"]]
    assert sorted(listed) == sorted(set(samples["profile_id"]))
    assert splits["stats"]["total_profiles"] == len(listed)
    for row in samples.itertuples():
        info = soundfile.info(root / row.audio_path)
        assert (info.format, info.subtype, info.samplerate) == ("FLAC", "PCM_24", SAMPLE_RATE)
        assert info.frames == round(row.duration_sec * SAMPLE_RATE)
        assert Path(row.audio_path).parent.name == row.rudiment_slug
        assert row.num_strokes == (strokes["sample_id"] == row.sample_id).sum()


def test_tiny_set_is_split_80_10_10_by_player(plan):
    splits = {split: [c for c in plan if c.player.split == split] for split in ("train", "val", "test")}
    assert {split: len(clips) for split, clips in splits.items()} == {"train": 800, "val": 100, "test": 100}
    players = {split: {c.player.profile_id for c in clips} for split, clips in splits.items()}
    assert {split: len(own) for split, own in players.items()} == {"train": 80, "val": 10, "test": 10}
    assert len(set.union(*players.values())) == 100
    assert len({audio_path(clip) for clip in plan}) == 1000


def test_rudiments_are_even_in_every_split(plan):
    for split in ("train", "val", "test"):
        counts = Counter(clip.rudiment.slug for clip in plan if clip.player.split == split)
        assert set(counts) == set(SLUGS)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_every_kit_and_room_occurs(plan):
    assert {clip.kit for clip in plan} == set(builtin_kits())
    assert {clip.room for clip in plan} == set(range(len(ROOMS)))


def test_clip_is_longer_than_the_window_and_played_to_its_end(plan, performances):
    for clip, performance in zip(plan, performances, strict=True):
        times = np.array(performance.columns["actual_time_ms"]) / 1000
        assert clip.duration > WINDOW + 0.1
        assert times.min() > 0
        assert clip.duration - 1.5 < times.max() < clip.duration


def test_performance_is_its_cycle_from_any_position(plan, performances):
    starts = set()
    for clip, performance in zip(plan, performances, strict=True):
        columns, cycle = performance.columns, clip.rudiment.strokes
        hands = columns["hand"] if clip.player.dominant == "R" else ["LR"["RL".index(h)] for h in columns["hand"]]
        played = [
            (hand, kind)
            for hand, kind, parent in zip(hands, columns["stroke_type"], columns["parent_stroke_index"], strict=True)
            if kind != "buzz" or parent is None
        ]
        turns = [cycle[turn:] + cycle[:turn] for turn in range(len(cycle))]
        fits = [
            turn
            for turn, order in enumerate(turns)
            if all(played[i] == (order[i % len(order)].hand, order[i % len(order)].kind) for i in range(len(played)))
        ]
        assert fits, f"{clip.rudiment.slug} is not its cycle"
        starts.add(fits[0] > 0)
    assert starts == {True, False}


def test_grace_notes_precede_their_stroke(plan, performances):
    for performance in performances[::7]:
        columns = performance.columns
        for i, kind in enumerate(columns["stroke_type"]):
            if kind == "grace":
                main = columns["parent_stroke_index"][i]
                assert columns["stroke_type"][main] in ("accent", "tap")
                lead = columns["actual_time_ms"][main] - columns["actual_time_ms"][i]
                assert lead == pytest.approx(columns["flam_spacing_ms"][i])
                assert lead > 10 or columns["actual_time_ms"][i] == 5.0


def test_hands_of_every_player_differ_in_level(plan):
    for clip in plan[:: len(plan) // 50]:
        columns = perform(steady(dataclasses.replace(clip, rudiment=RUDIMENTS["single_stroke_roll"]))).columns
        struck = pd.Series(columns["actual_velocity"]).groupby(columns["hand"]).mean()
        assert 0.55 < struck["L"] / struck["R"] < 0.93


def test_hands_of_every_player_differ_in_timbre():
    def centroid(cents: float) -> float:
        wave = make_voice(snare(builtin_kits()[0]), cents=cents, shelf_db=0.0).stroke(80)
        spectrum = np.abs(np.fft.rfft(wave)) ** 2
        return float(np.sum(np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE) * spectrum) / spectrum.sum())

    for player in make_players(seed=0):
        assert abs(player.weak_cents) >= 60
        assert abs(player.weak_shelf_db) >= 3
    assert centroid(150) > 1.02 * centroid(50)
    assert centroid(-150) < 0.98 * centroid(-50)


def test_weak_hand_sounds_different_only_for_its_strokes(plan, performances):
    clip, performance = plan[0], performances[0]
    player = dataclasses.replace(clip.player, weak_cents=clip.player.weak_cents + 100)
    for hand in ("R", "L"):
        columns = {**performance.columns, "hand": [hand] * len(performance.columns["hand"])}
        played = dataclasses.replace(performance, columns=columns)
        same = np.array_equal(render(clip, played), render(dataclasses.replace(clip, player=player), played))
        assert same == (hand == player.dominant)


def test_harder_strokes_are_louder_and_brighter():
    for kit in builtin_kits():
        voice = make_voice(snare(kit), cents=0.0, shelf_db=0.0)
        strokes = [voice.stroke(velocity) for velocity in (30, 45, 65, 90, 120)]
        energy = [10 * np.log10(np.sum(stroke**2)) for stroke in strokes]
        assert all(3 < step < 10 for step in np.diff(energy))
        treble = [np.sum(np.diff(stroke) ** 2) / np.sum(stroke**2) for stroke in strokes]
        assert all(np.diff(treble) > 0)


def test_rudiments_that_differ_only_in_sticking_sound_different(plan):
    """Equal onsets and intended levels: only the hands distinguish R L R L from RR LL."""
    clip = steady(
        dataclasses.replace(plan[3], kit=builtin_kits()[0], tempo_bpm=100, stretch=1.0, duration=4.0, tuning_cents=0.0)
    )
    calm = dataclasses.replace(clip.player, diddle_level=1.0, diddle_shift=0.0, weak_late_ms=0.0)
    energies, sound = {}, {}
    for slug in ("single_stroke_roll", "double_stroke_open_roll"):
        own = dataclasses.replace(clip, rudiment=RUDIMENTS[slug], player=calm)
        performance = perform(own)
        audio = sound[slug] = render(own, performance) / 32768
        onsets = [round(t / 1000 * SAMPLE_RATE) for t in performance.columns["actual_time_ms"]]
        energies[slug] = np.array([10 * np.log10(np.sum(audio[o : o + 2000] ** 2)) for o in onsets[:16]])
    assert len(sound["single_stroke_roll"]) == len(sound["double_stroke_open_roll"])
    singles, doubles = energies["single_stroke_roll"], energies["double_stroke_open_roll"]
    # Strokes of one hand are equally loud; the hands are at least a decibel apart.
    assert np.median(singles[0::2]) - np.median(singles[1::2]) > 1
    by_pair = doubles.reshape(-1, 2).mean(axis=1)
    assert np.median(by_pair[0::2]) - np.median(by_pair[1::2]) > 1


@pytest.mark.slow
def test_killed_generation_resumes_to_the_same_bytes(root, tmp_path):
    killed = tmp_path / "killed"
    line = (
        "from pathlib import Path; from sousaphone.data.synthetic.generate import *; "
        f"generate(Path({str(killed)!r}), 12, 3, 1)"
    )
    process = subprocess.Popen([sys.executable, "-c", line], stderr=subprocess.DEVNULL)
    while len(list(killed.glob("audio/*/*.flac"))) < 3:
        assert process.poll() is None, "it finished before it was killed"
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (killed / "labels" / "samples.parquet").exists()
    made = {path: path.stat().st_mtime_ns for path in killed.glob("audio/*/*.flac")}
    assert 3 <= len(made) < 12
    emptied = min(made)  # as after a power cut
    emptied.write_bytes(b"")
    generate(killed, clips=12, seed=3, workers=2)
    assert contents(killed) == contents(root)
    assert all(path.stat().st_mtime_ns == before for path, before in made.items() if path != emptied)


def test_complete_set_is_kept_and_another_plan_is_rejected(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    generate(root, clips=12, seed=3)
    for other in ({"clips": 13, "seed": 3}, {"clips": 12, "seed": 4}):
        with pytest.raises(UserError, match=r"clips 12, not 13|seed 3, not 4"):
            generate(root, **other)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_built_in_set_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASET_SIZES, "tiny", 10)
    leftover = builtin_root(tmp_path, "tiny").with_name(f"{builtin_root(tmp_path, 'tiny').name}.partial")
    (leftover / "audio").mkdir(parents=True)
    (leftover / PLAN).write_text('{"version": 0}')
    root = builtin_dataset(tmp_path, "tiny")
    assert (root / "labels" / "samples.parquet").is_file()
    assert not leftover.exists()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert builtin_dataset(tmp_path, "tiny") == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_interrupted_built_in_set_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASET_SIZES, "tiny", 10)
    partial = builtin_root(tmp_path, "tiny").with_name(f"{builtin_root(tmp_path, 'tiny').name}.partial")
    written = []

    def make_four_clips(job):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(job)
        return make_clip(job)

    with monkeypatch.context() as stopped:
        stopped.setattr(generator, "count_cpus", lambda: 1)
        stopped.setattr(generator, "make_clip", make_four_clips)
        with pytest.raises(KeyboardInterrupt):
            builtin_dataset(tmp_path, "tiny")
    made = {path.name: path.stat().st_mtime_ns for path in partial.glob("audio/*/*.flac")}
    assert len(made) == 4
    root = builtin_dataset(tmp_path, "tiny")
    kept = {path.name: path.stat().st_mtime_ns for path in root.glob("audio/*/*.flac")}
    assert len(kept) == 10
    assert made.items() <= kept.items()
    assert not list(root.rglob("*.tmp"))


def test_row_groups_do_not_change_the_tables(root, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CLIPS_PER_GROUP", 5)
    generate(tmp_path / "set", clips=12, seed=3, workers=1)
    for name in ("samples.parquet", "strokes.parquet"):
        ours, whole = tmp_path / "set" / "labels" / name, root / "labels" / name
        assert pyarrow.parquet.ParquetFile(ours).num_row_groups == 3
        pd.testing.assert_frame_equal(pd.read_parquet(ours), pd.read_parquet(whole))


def test_soundfont_is_used_in_addition_to_the_built_in_one(tmp_path):
    font = tmp_path / "Mine.sf2"
    font.write_bytes(builtin_kits()[0].path.read_bytes())
    generate(tmp_path / "set", clips=12, seed=3, workers=1, soundfonts=[font])
    fonts = pd.read_parquet(tmp_path / "set" / "labels" / "samples.parquet")["soundfont"].str.split("_").str[0]
    assert set(fonts) == {"TimGM6mb", "Mine"}
    with pytest.raises(UserError, match="soundfonts"):
        generate(tmp_path / "set", clips=12, seed=3, workers=1)


def test_habits_of_a_player_are_correlated():
    players = [player for seed in range(10) for player in make_players(seed)]
    habits = ["jitter_ms", "spread", "grace_spread", "weak_level", "diddle_level"]
    for tier in (None, "beginner", "advanced"):
        own = [dataclasses.asdict(p) for p in players if tier in (None, p.tier)]
        related = pd.DataFrame(own)[habits].corr()
        assert (related.loc["jitter_ms", ["spread", "grace_spread"]] > 0.3).all(), tier
        assert (related.loc["jitter_ms", ["weak_level", "diddle_level"]] < -0.1).all(), tier
        assert related.abs().loc["jitter_ms", habits[1:]].max() < 1, tier


def test_tempi_are_within_the_limits(plan):
    assert {60 <= clip.tempo_bpm <= 180 for clip in plan} == {True}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 3, "seed": 0}, "--clips 3"),
        ({"clips": 10, "seed": -1}, "--seed -1"),
        ({"clips": 10, "seed": 0, "workers": 0}, "--workers 0"),
    ],
)
def test_invalid_arguments_are_rejected_before_writing(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        generate(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_directory_with_files_and_unknown_size_are_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an empty directory"):
        generate(tmp_path, clips=10, seed=0)
    with pytest.raises(UserError, match="--dataset 'huge'"):
        builtin_dataset(tmp_path, "huge")


def test_set_that_does_not_fit_is_rejected_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(generator.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**5))
    with pytest.raises(UserError, match=r"10 clips need 0.00 GB"):
        generate(tmp_path / "set", 10, seed=0, workers=1)
    assert not list(tmp_path.rglob("*.flac"))


def test_generation_resumes_after_a_full_disk(tmp_path, monkeypatch):
    complete, resumed = tmp_path / "complete", tmp_path / "resumed"
    generate(complete, 10, seed=0, workers=1)
    write, written = Path.write_bytes, []

    def full(path, content):
        if len(written) == 4:
            write(path, bytes(content)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write(path, content)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            generate(resumed, 10, seed=0, workers=1)
    assert len(list(resumed.rglob("*.flac"))) == 4
    assert not list(resumed.rglob("*.tmp"))
    generate(resumed, 10, seed=0, workers=1)
    assert contents(resumed) == contents(complete)
