"""Audio of the worst confusions: the right clips, short and small, and remarks where they are unavailable."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from analysis.stats.confusion import Pair
from analysis.write.audio_clips import MOST_BYTES, RATE, encoded, listening
from analysis.write.blocks import Sound
from sousaphone.rudiments import SLUGS

FIRST, SECOND = SLUGS[:2]
PAIR = Pair(FIRST, SECOND, 4, 8)


def predictions_of(root: Path, mistaken: str = FIRST) -> pd.DataFrame:
    """Two seeds that misclassify every clip of one rudiment as the second one and no other clip."""
    clips = pd.read_parquet(root / "labels" / "samples.parquet")
    table = clips.rename(columns={"profile_id": "player", "rudiment_slug": "rudiment"})
    table["predicted"] = table.rudiment.where(table.rudiment != mistaken, SECOND)
    return pd.concat([table.assign(trial_id=f"s{seed}") for seed in range(2)], ignore_index=True)


def decoded(sound: Sound) -> np.ndarray:
    wave, rate = soundfile.read(BytesIO(sound.content))
    assert rate == RATE
    assert wave.ndim == 1
    return wave


def likeness(wave: np.ndarray, root: Path, audio_path: str) -> float:
    """Normalised correlation of a sound with a file of 44.1 kHz at the best shift; 1: contained in it."""
    samples, _ = soundfile.read(root / audio_path, always_2d=True)
    other = samples.mean(axis=1)
    other = other[: len(other) // 2 * 2].reshape(-1, 2).mean(axis=1)
    size = 2 ** int(np.ceil(np.log2(len(wave) + len(other))))
    product = np.fft.rfft(wave, size) * np.conj(np.fft.rfft(other, size))
    return float(np.fft.irfft(product).max() / np.linalg.norm(wave) ** 2)


def test_sounds_are_the_right_clips_by_different_players(small_sousa: Path) -> None:
    table = predictions_of(small_sousa)
    (group,), remarks = listening(small_sousa, table, [PAIR], clip_seconds=2.5)
    assert remarks == []
    assert re.match(r"single stroke roll\b.*single stroke four\b.*4 of 8", group.heading)
    assert len(group.clips) == 4
    wrong, right = group.clips[:2], group.clips[2:]
    for sounds, slug in ((wrong, FIRST), (right, SECOND)):
        assert len({sound.label for sound in sounds}) == 2
        assert all(sound.label.startswith(slug.replace("_", " ")) for sound in sounds)
        for sound in sounds:
            player = sound.label.split(": ")[1].split(",")[0]
            own = table[(table.player == player) & (table.rudiment == slug)].audio_path.unique()
            others = table[table.rudiment != slug].audio_path.unique()
            assert len(sound.content) <= MOST_BYTES
            best = max(likeness(decoded(sound), small_sousa, path) for path in own)
            assert best > 0.8
            assert best > 2 * max(likeness(decoded(sound), small_sousa, path) for path in others)


def test_long_clip_is_cut_to_its_centre_and_short_one_kept(tmp_path: Path) -> None:
    rate = 44_100
    wave = np.zeros(10 * rate)
    wave[5 * rate : 5 * rate + 200] = 0.9
    soundfile.write(tmp_path / "long.wav", wave, rate)
    soundfile.write(tmp_path / "short.wav", wave[: rate // 2], rate)
    for name, seconds in (("long.wav", 2.0), ("short.wav", 0.5)):
        rows = pd.DataFrame({"sample_id": ["a"], "player": "p", "audio_path": name, "tempo_bpm": np.nan})
        (group,), _ = listening(tmp_path, rows.assign(rudiment=FIRST, predicted=SECOND), [PAIR], clip_seconds=2.0)
        (sound,) = group.clips
        assert len(decoded(sound)) / RATE == pytest.approx(seconds, abs=0.1)
        if name == "long.wav":
            assert np.abs(decoded(sound)).argmax() / RATE == pytest.approx(1.0, abs=0.1)
        assert "BPM" not in sound.label


def test_clip_inside_a_shard_is_read(small_sousa: Path, tmp_path: Path) -> None:
    table = predictions_of(small_sousa)
    paths = list(dict.fromkeys(table.audio_path))
    contents = [{"bytes": (small_sousa / path).read_bytes(), "path": path} for path in paths]
    (tmp_path / "audio").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"audio": contents}), tmp_path / "audio" / "test-0.parquet")
    place = {path: f"audio/test-0.parquet#{row}" for row, path in enumerate(paths)}
    shards = table.assign(audio_path=table.audio_path.map(place))
    sharded, remarks = listening(tmp_path, shards, [PAIR], 2.5)
    assert remarks == []
    assert sharded == listening(small_sousa, table, [PAIR], 2.5)[0]


def test_missing_data_gives_a_remark(tmp_path: Path, small_sousa: Path) -> None:
    table = predictions_of(small_sousa)
    sounds, remarks = listening(tmp_path / "nowhere", table, [PAIR], 2.5)
    assert sounds == []
    assert len(remarks) == 1
    assert "missing" in remarks[0]
    sounds, remarks = listening(small_sousa, table.assign(audio_path=""), [PAIR], 2.5)
    assert sounds == []
    assert "audio_path" in remarks[0]


def test_file_outside_the_data_directory_is_not_embedded(tmp_path: Path, small_sousa: Path) -> None:
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "private.wav", np.zeros(1000), 8000)
    (tmp_path / "data" / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "data" / "link.wav").symlink_to("../private.wav")
    (tmp_path / "data" / "folder").symlink_to("..")
    pd.DataFrame({"audio": [{"bytes": (tmp_path / "private.wav").read_bytes()}]}).to_parquet(tmp_path / "x.parquet")
    table = predictions_of(small_sousa)
    outside = ["../private.wav", str(tmp_path / "private.wav"), "link.wav", "folder/private.wav", "a/../../private.wav"]
    for path in (*outside, "../x.parquet#0", f"{tmp_path / 'x.parquet'}#0", "folder/x.parquet#0", "broken.wav"):
        sounds, remarks = listening(tmp_path / "data", table.assign(audio_path=path), [PAIR], 2.5)
        assert sounds == []
        assert len(remarks) == 1


def test_without_pairs_or_predictions_there_are_no_sounds(small_sousa: Path) -> None:
    table = predictions_of(small_sousa)
    assert listening(small_sousa, table, [], 2.5) == ([], [])
    assert listening(small_sousa, table.iloc[:0], [PAIR], 2.5) == ([], [])


def test_numbers_of_pairs_and_clips_are_limited(small_sousa: Path) -> None:
    table = predictions_of(small_sousa)
    sounds, _ = listening(small_sousa, table, [PAIR] * 5, 0.5)
    assert [len(group.clips) for group in sounds] == [4] * 4


@pytest.mark.parametrize("seconds", [0.1, 2.5, 5.0])
def test_mp3_of_noise_is_small(seconds: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, round(seconds * RATE)).astype(np.float32)
    content = encoded(noise)
    assert len(content) <= MOST_BYTES
    assert len(base64.b64encode(content)) < 27_000


def test_audio_clips_do_not_import_torch() -> None:
    code = "import sys, analysis.write.audio_clips; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
