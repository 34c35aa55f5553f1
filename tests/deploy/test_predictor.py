"""The same numbers in use as in the test of a trial, whatever the form of the input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from sousaphone import hardware, load
from sousaphone.config import TrainConfig
from sousaphone.data.readers.samples import read_samples
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.deploy.calibration import probabilities, read_predictions
from sousaphone.deploy.evaluation import evaluate
from sousaphone.deploy.predictor import Predictor
from sousaphone.deploy.scorers import TorchScorer
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from tests.deploy.members import untrained

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return load(model, device="cpu")


def audio(root: Path, split: str = "test") -> list[Path]:
    clips = read_dataset(root).clips
    return [root / path for path in clips[clips.split == split].audio_path]


def centre_logits(predictor: Predictor, path: Path) -> np.ndarray:
    wave = predictor.resampled(*read_samples(str(path), path))
    start = max(0, len(wave) - predictor.window) // 2
    return predictor.score(*predictor.windows(wave[start : start + predictor.window]))[0, 0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ast", "htsat", "efficientat", "beats"])
def test_logits_of_the_test_clips_are_those_of_the_trial(
    every_backbone: Callable[..., RunDirectory], small_sousa: Path, name: str, precision: str
) -> None:
    run = every_backbone(name, precision=precision)
    (trial,) = best_arm(run)
    table = pd.read_parquet(trial.directory / PREDICTIONS_NAME)
    predictor = load(run.path, device="cpu", precision=precision)
    assert isinstance(predictor.scorer, TorchScorer)
    assert predictor.scorer.precision == precision
    # bfloat16 has 8 bits; how sums are rounded may depend on the size of a batch.
    tolerance = {"float32": 1e-4, "bfloat16": 2e-2}[precision]
    for row in table.itertuples():
        stored = table.loc[row.Index, [f"logit_{slug}" for slug in SLUGS]].to_numpy(np.float32)
        assert np.abs(centre_logits(predictor, small_sousa / row.audio_path) - stored).max() <= tolerance


@pytest.mark.parametrize("trained", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", ["nano", "base"])
@pytest.mark.parametrize("instructions", [True, False])
def test_automatic_precision_is_that_of_the_training_if_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, instructions: bool, scale: str, trained: str
) -> None:
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: instructions)
    member = untrained(TrainConfig(model="efficientat", scale=scale, precision=trained))
    expected = "bfloat16" if instructions and scale == "base" and trained == "bfloat16" else "float32"
    assert TorchScorer([member], "cpu").precision == expected


def test_ensemble_with_a_member_trained_in_float32_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: True)
    members = [
        untrained(TrainConfig(model="efficientat", scale="base", precision=precision))
        for precision in ("bfloat16", "float32")
    ]
    assert TorchScorer(members, "cpu").precision == "float32"


def test_evaluation_scores_clips_as_the_trial(run: RunDirectory, model: Path, small_sousa: Path) -> None:
    (trial, *_) = best_arm(run)
    stored = read_predictions(trial.directory / PREDICTIONS_NAME)
    predictor = load(model, device="cpu")
    rows = {row["sample_id"]: row for row in evaluate(predictor, read_dataset(small_sousa, only_test=True))}
    calibration = predictor.config.calibration
    for sample_id, logits in zip(stored.sample_ids, stored.centre, strict=True):
        expected = probabilities(logits, calibration.temperature)
        assert np.abs(rows[sample_id]["centre_window"] - expected).max() <= 1e-5
    for sample_id, logits in zip(
        stored.sample_ids, stored.averaged if stored.averaged is not None else [], strict=False
    ):
        expected = probabilities(logits, calibration.averaged_temperature)
        assert np.abs(rows[sample_id]["averaged"] - expected).max() <= 1e-5


def test_wave_and_file_give_the_same_answer(predictor: Predictor, small_sousa: Path) -> None:
    for path in audio(small_sousa):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        answer = predictor(samples.T, rate)
        assert answer.shape == (len(predictor.classes),)
        assert answer.sum() == pytest.approx(1.0)
        (segment,) = predictor.predict(path, top=40).segments
        assert dict(segment.top) == pytest.approx(dict(zip(predictor.classes, answer, strict=True)), abs=1e-6)
        assert [value for _, value in segment.top] == sorted(answer, reverse=True)


def test_kind_of_array_does_not_matter(predictor: Predictor) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000).astype(np.float32)
    answer = predictor(wave, 22_050)
    for same in (torch.from_numpy(wave), wave[None], np.stack([wave, wave]), wave.astype(np.float64)):
        assert np.allclose(predictor(same, 22_050), answer, atol=1e-6)
    for bits, kind in ((16, np.int16), (32, np.int32)):
        whole = np.round(wave.astype(np.float64) * 2 ** (bits - 1)).astype(kind)
        assert np.allclose(predictor(whole, 22_050), answer, atol=1e-3)
    assert np.array_equal(predictor(np.zeros(100, np.int32), 16_000), predictor(np.zeros(100), 16_000))


@pytest.mark.parametrize(
    ("wave", "rate"),
    [
        (np.zeros(0), 16_000),
        (np.zeros((2, 2, 100)), 16_000),
        (np.zeros((10_000, 2)), 16_000),
        (np.array(1.0), 16_000),
        (np.full(1_000, np.nan), 16_000),
        (np.zeros(1_000), 0),
        (np.zeros(1_000), 1e9),
        (np.full(100, 200, np.uint8), 16_000),  # its zero would be 128
        (np.ones(100, bool), 16_000),
        (np.ones(100, complex), 16_000),
        (np.array(["x"]), 16_000),
        (np.full(100, 9_000.0), 16_000),  # on the scale of integers
        (np.full(100, 9_000), 16_000),  # int64, which has no scale
        (torch.full((100,), 9_000), 16_000),
        (np.full(100, -9_000, np.int32), 16_000),  # silence in 32 bits
        ([[0.1], [0.2, 0.3]], 16_000),
        (torch.zeros(100, device="meta"), 16_000),
        (np.zeros(1_000), "16000"),
        (np.zeros(1_000), None),
    ],
)
def test_wrong_wave_is_refused(predictor: Predictor, wave: Any, rate: Any) -> None:
    with pytest.raises(UserError, match=r"wave|rate"):
        predictor(wave, rate)


def test_wave_in_bfloat16_is_accepted(predictor: Predictor) -> None:
    wave = torch.rand(16_000).bfloat16()
    assert np.array_equal(predictor(wave, 16_000), predictor(wave.float(), 16_000))


@pytest.mark.parametrize("source", [None, 5, b"model", [], "a/b-"], ids=lambda source: f"{source!r:.10}")
def test_source_that_is_no_model_is_refused(source: Any) -> None:
    with pytest.raises(UserError):
        load(source)


def test_answer_below_the_threshold_is_undecided(predictor: Predictor, small_sousa: Path) -> None:
    path = audio(small_sousa)[0]
    confidence = predictor.predict(path, min_confidence=0.0).segments[0].confidence
    for limit, undecided in ((confidence - 1e-6, False), (confidence + 1e-6, True)):
        assert predictor.predict(path, min_confidence=limit).segments[0].undecided == undecided


def test_parts_between_pauses_are_scored_like_clips(predictor: Predictor, tmp_path: Path) -> None:
    rate = 16_000
    rng = np.random.default_rng(0)
    clips = [rng.uniform(-0.5, 0.5, round(seconds * rate)) for seconds in (0.7, 1.0, 2.4)]
    pause = np.zeros(2 * rate)
    soundfile.write(tmp_path / "take.wav", np.concatenate([pause, *(part for c in clips for part in (c, pause))]), rate)
    found = predictor.predict(tmp_path / "take.wav")
    starts = [2.0, 4.7, 7.7]
    assert [segment.start for segment in found.segments] == pytest.approx(starts, abs=0.3)
    assert [s.end - s.start for s in found.segments] == pytest.approx([len(c) / rate for c in clips], abs=0.5)
    samples, _ = soundfile.read(tmp_path / "take.wav", dtype="int16")
    for segment in found.segments:
        alone = predictor(samples[round(segment.start * rate) : round(segment.end * rate)], rate)
        assert segment.confidence == pytest.approx(alone.max(), abs=1e-6)
        assert segment.rudiment == predictor.classes[alone.argmax()]


def test_silence_has_no_answer(predictor: Predictor, tmp_path: Path) -> None:
    for seconds in (0.5, 30.0):
        soundfile.write(tmp_path / "take.wav", np.zeros(round(seconds * 8_000)), 8_000)
        assert predictor.predict(tmp_path / "take.wav").segments == ()


def test_progress_adds_up_to_twice_the_duration(predictor: Predictor, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "take.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 30 * 16_000), 16_000)
    done: list[float] = []
    predictor.predict(tmp_path / "take.wav", advance=done.append)
    assert sum(done) == pytest.approx(60.0)


@pytest.mark.parametrize("hop", [0.0, 1.5, float("nan")])
def test_hop_out_of_range_is_refused(predictor: Predictor, small_sousa: Path, hop: float) -> None:
    with pytest.raises(UserError, match="hop"):
        predictor.predict(audio(small_sousa)[0], hop_seconds=hop)


@pytest.mark.parametrize(
    "wrong",
    [{"top": 0}, {"gate_db": 0.0}, {"gate_db": float("nan")}, {"min_confidence": 1.5}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_number_out_of_range_is_refused(predictor: Predictor, small_sousa: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        predictor.predict(audio(small_sousa)[0], **wrong)


def test_package_is_imported_without_torch() -> None:
    code = "import sousaphone, sys; assert callable(sousaphone.__getattr__); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
