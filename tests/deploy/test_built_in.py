"""On the built-in data set: what the report states of a model is what a user of the exported model gets."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from analysis.report import write_report
from sousaphone import load
from sousaphone.backbones.nano import shipped
from sousaphone.cli.main import main
from sousaphone.config import TrainConfig
from sousaphone.data.synthetic.generate import plan_clips
from sousaphone.data.synthetic.render import make_clip
from tests.deploy.conftest import finished_run

pytestmark = pytest.mark.slow
RATE = 44_100
PAUSE = 2.0  # seconds


@pytest.fixture(scope="module")
def trained(built_in: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The built-in set of `--dataset tiny`, and a run of EfficientAT on it."""
    root = tmp_path_factory.mktemp("trained")
    config = TrainConfig(
        model="efficientat",
        augment=False,
        weights=str(shipped("efficientat")),
        data_dir=str(built_in),
        cache_dir=str(root / "cache"),
        epochs=6,
        learning_rate=5e-3,
        micro_batch=16,
        accumulation=2,
    )
    return built_in, finished_run(root / "run", [config]).path


def sousaphone(*arguments: object) -> str:
    """Run the command and return its output."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(map(str, arguments))) == 0
    return output.getvalue()


@pytest.fixture(scope="module")
def folder(trained: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    sousaphone("export", trained[1], "--to", folder)
    return folder


@pytest.fixture(scope="module")
def test_clips(trained: tuple[Path, Path]) -> pd.DataFrame:
    (table,) = trained[1].glob("trials/*/predictions.parquet")
    return pd.read_parquet(table)


@pytest.fixture(scope="module")
def named(trained: tuple[Path, Path], folder: Path, test_clips: pd.DataFrame) -> pd.DataFrame:
    """The test clips with the rudiments that `sousaphone predict` gives."""
    files = [trained[0] / path for path in test_clips.audio_path]
    found = json.loads(sousaphone("predict", folder, *files, "--format", "json"))
    assert [len(each["segments"]) for each in found] == [1] * len(files)
    answers = [each["segments"][0] for each in found]
    return test_clips.assign(**{name: [each[name] for each in answers] for name in ("rudiment", "confidence")}).assign(
        true=test_clips.rudiment
    )


def test_exported_model_names_clips_segments_and_changes(
    trained: tuple[Path, Path], folder: Path, named: pd.DataFrame, tmp_path: Path
) -> None:
    """In one test, because worker processes would each train the model."""
    check_accuracy(trained, folder, named, tmp_path)
    check_ten_clips_with_pauses(trained[0], folder, named, tmp_path)
    check_two_rudiments_without_a_pause(trained[0], folder, named, tmp_path)
    check_one_rudiment_for_long(folder, tmp_path)


def check_accuracy(trained: tuple[Path, Path], folder: Path, named: pd.DataFrame, tmp_path: Path) -> None:
    """The accuracy is that of the report."""
    data, run = trained
    table = pd.read_csv(write_report(run, with_sounds=False) / "comparison_table.csv")
    sousaphone("evaluate", folder, data, "--split", "test", "--output", tmp_path / "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["centre_window"]["accuracy"] == pytest.approx(table.test_acc.iloc[0])
    accuracy = (named.rudiment == named.true).mean()
    assert accuracy == pytest.approx(scores["averaged"]["accuracy"])
    if "test_averaged_acc" in table:
        assert accuracy == pytest.approx(table.test_averaged_acc.iloc[0])
    assert accuracy > 0.3  # far above chance, 0.025


def correct_clips(data: Path, named: pd.DataFrame, confidence: float = 0.0) -> list[tuple[str, np.ndarray]]:
    """Rudiment and wave of the correctly named clips of at least this confidence."""
    rows = named[(named.rudiment == named.true) & (named.confidence >= confidence)]
    waves = [soundfile.read(data / path, always_2d=True)[0].mean(1) for path in rows.audio_path]
    return list(zip(rows.rudiment, waves, strict=True))


def joined(path: Path, waves: Sequence[np.ndarray], pause: float) -> list[tuple[float, float]]:
    """Write waves one after the other; return the bounds of each, s."""
    rng, parts, bounds, place = np.random.default_rng(0), [], [], 0
    for wave in waves:
        silence = rng.normal(0, 1e-4, round(pause * RATE)) if parts else np.zeros(0)
        place += len(silence)
        bounds.append((place / RATE, (place + len(wave)) / RATE))
        parts += [silence, wave]
        place += len(wave)
    soundfile.write(path, np.concatenate(parts), RATE)
    return bounds


def check_ten_clips_with_pauses(data: Path, folder: Path, named: pd.DataFrame, tmp_path: Path) -> None:
    """Ten clips are ten segments, at least nine right."""
    clips = correct_clips(data, named)[:10]
    bounds = joined(tmp_path / "practice.wav", [wave for _, wave in clips], PAUSE)
    (found,) = json.loads(sousaphone("predict", folder, tmp_path / "practice.wav", "--format", "json"))
    assert len(found["segments"]) == 10
    for segment, (start, end) in zip(found["segments"], bounds, strict=True):
        assert abs(segment["start"] - start) <= 0.5
        assert abs(segment["end"] - end) <= 0.5
    right = [segment["rudiment"] == name for segment, (name, _) in zip(found["segments"], clips, strict=True)]
    assert sum(right) >= 9


def check_two_rudiments_without_a_pause(data: Path, folder: Path, named: pd.DataFrame, tmp_path: Path) -> None:
    """Pairs are divided within one hop, and both answers are those of the clips."""
    clips, model = correct_clips(data, named, confidence=0.5), load(folder, device="cpu")
    pairs = [(a, b) for a, b in zip(clips, [*clips[7:], *clips[:7]], strict=True) if a[0] != b[0]]
    apart, right = [], []
    for pair in pairs:
        ((_, boundary), _) = joined(tmp_path / "pair.wav", [wave for _, wave in pair], 0.0)
        segments = model.predict(tmp_path / "pair.wav").segments
        apart.append(len(segments) == 2 and abs(segments[0].end - boundary) <= model.config.clip_seconds / 2)
        right.append(apart[-1] and [each.rudiment for each in segments] == [name for name, _ in pair])
    assert len(pairs) >= 10
    assert np.mean(apart) >= 0.9  # of a small model, trained briefly
    assert np.mean(right) >= 0.85


def check_one_rudiment_for_long(folder: Path, tmp_path: Path) -> None:
    """A single rudiment is seldom divided."""
    model, alone = load(folder, device="cpu"), []
    clips = [clip for clip in plan_clips(1_000, seed=0) if clip.player.split == "test"][:20]
    for clip in clips:
        make_clip((dataclasses.replace(clip, duration=25.0), tmp_path / "long.flac"))
        alone.append(len(model.predict(tmp_path / "long.flac").segments) == 1)
    assert np.mean(alone) >= 0.8
