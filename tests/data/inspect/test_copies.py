"""Copies of a recording are found, and no two performances are taken for one."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from scipy.signal import resample_poly

from sousaphone.cli.data import main
from sousaphone.data.inspect.check import check
from sousaphone.data.inspect.copies import correlation, fingerprint
from sousaphone.data.synthetic.generate import generate, plan_clips
from sousaphone.data.synthetic.players import perform
from sousaphone.data.synthetic.render import render

RATE = 44_100
CLIPS = 40


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("copies") / "set"
    generate(root, clips=CLIPS, seed=0, workers=1)
    return root


@pytest.fixture
def root(generated, tmp_path) -> Path:
    """The generated set by links."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "splits.json").write_bytes((generated / "splits.json").read_bytes())
    clips = table(generated)
    clips.to_parquet(tmp_path / "labels" / "samples.parquet")
    for name in clips.audio_path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).hardlink_to(generated / name)
    return tmp_path


def table(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "labels" / "samples.parquet")


def read(root: Path, row: int) -> np.ndarray:
    return soundfile.read(root / table(root).audio_path[row], dtype="float32")[0]


def add(root: Path, row: int, wave: np.ndarray, rate: int, split: str, **cells) -> None:
    """Add a clip, like that of a row but by a player of `split`."""
    clips = table(root)
    player = json.loads((root / "splits.json").read_text())[f"{split}_profile_ids"][0]
    copy = clips.iloc[row].to_dict() | {"sample_id": f"added{len(clips)}", "profile_id": player}
    copy |= {"audio_path": f"audio/added{len(clips)}.flac", "augmentation_group_id": "", **cells}
    soundfile.write(root / copy["audio_path"], np.clip(wave, -1, 1), rate, subtype="PCM_16")
    pd.concat([clips, pd.DataFrame([copy])]).to_parquet(root / "labels" / "samples.parquet")


def train_row(root: Path) -> int:
    train = json.loads((root / "splits.json").read_text())["train_profile_ids"]
    return int(np.flatnonzero(table(root).profile_id.isin(train))[3])


def encoded(wave, rate, format, subtype):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype, compression_level=0.9)
    return soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")


def mp3(wave):
    return encoded(wave, RATE, "MP3", "MPEG_LAYER_III")


def ogg(wave):
    return encoded(wave, RATE, "OGG", "VORBIS")


def slower_rate(wave):
    return resample_poly(wave, 160, 441), 16_000


def with_leading_silence(wave):
    return np.concatenate([np.zeros(30_011, np.float32), wave]), RATE


def without_leading_silence(wave):
    return wave[np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())[0] :], RATE


def louder(wave):
    return wave * (2 / np.abs(wave).max()), RATE  # clipped


def inverted_and_softer(wave):
    return -0.1 * wave, RATE


def all_at_once(wave):
    wave, rate = encoded(resample_poly(1.5 * wave, 160, 441), 16_000, "MP3", "MPEG_LAYER_III")
    return np.concatenate([np.zeros(5_003, np.float32), wave]), rate


CHANGES = (
    *(mp3, ogg, slower_rate, with_leading_silence, without_leading_silence, louder, inverted_and_softer, all_at_once),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_copy_in_another_split_is_an_error(root, change):
    row = train_row(root)
    wave = read(root, row)
    add(root, row, *change(wave), split="test")
    checked = check(root)
    (repeated,) = checked.repeated
    assert repeated.clips == [row, CLIPS]
    assert not repeated.identical
    (error,) = (finding.text for finding in checked.findings if finding.error)
    assert f"{table(root).sample_id[row]} = added{CLIPS}" in error
    assert "in different splits" in error


def test_many_copies_of_one_recording_take_few_comparisons(root, monkeypatch):
    row, compared, copies = train_row(root), [], 16
    wave = read(root, row)
    for number in range(copies):
        add(root, row, (0.9 - 0.02 * number) * wave, RATE, split="train")
    monkeypatch.setattr(
        "sousaphone.data.inspect.copies.correlation", lambda a, b: compared.append(a) or correlation(a, b)
    )
    (repeated,) = check(root).repeated
    assert repeated.clips == [row, *range(CLIPS, CLIPS + copies)]
    assert len(compared) < copies * (copies + 1) / 2


def test_copies_of_one_recording_are_one_group(root, capsys):
    row = train_row(root)
    wave = read(root, row)
    for change in (louder, with_leading_silence):
        add(root, row, *change(wave), split="train")
    (repeated,) = check(root).repeated
    assert repeated.clips == [row, CLIPS, CLIPS + 1]
    assert main(["check", str(root), "--no-audio"]) == 0
    assert "occur twice" not in capsys.readouterr().out
    assert main(["check", str(root)]) == 0  # of one split: a warning
    out = capsys.readouterr().out
    assert "1 recording more than once under different ids" in out
    paths = table(root).audio_path.iloc[[row, CLIPS, CLIPS + 1]]
    assert " = ".join(f"{path} (train)" for path in paths) in out


def test_different_clips_are_not_copies(root, capsys):
    checked = check(root)
    assert checked.repeated == ()
    assert main(["check", str(root)]) == 0
    assert "(40 clips): none" in capsys.readouterr().out


def test_performances_of_one_rudiment_by_one_player_on_one_drum_are_not_copies(root):
    """Tempo, kit, room, tuning and first position are equal; only the timing and the velocities of strokes differ."""
    row = train_row(root)
    clip = next(clip for clip in plan_clips(CLIPS, seed=0) if f"_{clip.index:06d}" in table(root).sample_id[row])
    for take in range(6):
        other = dataclasses.replace(clip, seed=(9, take))
        add(root, row, render(other, perform(other)) / 32768, RATE, split="train")
    assert check(root).repeated == ()


def test_declared_renderings_of_one_performance_are_not_copies(root):
    row = train_row(root)
    clips = table(root)
    wave = read(root, row)
    same = {"profile_id": clips.profile_id[row], "augmentation_group_id": clips.augmentation_group_id[row]}
    add(root, row, *louder(wave), split="train", **same)
    assert check(root).repeated == ()
    add(root, row, *with_leading_silence(wave), split="train")  # undeclared
    assert [repeated.clips for repeated in check(root).repeated] == [[row, CLIPS, CLIPS + 1]]


def test_fingerprints_of_silence_and_of_short_clips_are_empty():
    assert not fingerprint(np.zeros(RATE, np.float32), RATE).any()
    assert not fingerprint(np.ones(10, np.float32), RATE).any()
    assert fingerprint(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), RATE).any()
