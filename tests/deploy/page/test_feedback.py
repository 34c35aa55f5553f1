"""The words of the page contain what was measured, and say what was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sousaphone.deploy.model_folder import Calibration, ModelConfig
from sousaphone.deploy.page import feedback, figures
from sousaphone.deploy.page.evenness import evenness
from sousaphone.deploy.page.strokes import align
from sousaphone.deploy.predictor import Segment
from sousaphone.rudiments import RUDIMENTS
from tests.deploy.page.performances import play, prediction, sound


@pytest.fixture
def config(model: Path) -> ModelConfig:
    return ModelConfig.read(model)


def segment(slug: str = "single_paradiddle", confidence: float = 0.83, undecided: bool = False) -> Segment:
    return Segment(0.0, 5.0, ((slug, confidence), ("flam", 0.1)), undecided)


def test_answer_has_name_and_confidence(config: ModelConfig) -> None:
    text = feedback.answer(segment(), config, 40)
    assert "Single paradiddle" in text
    assert "83%" in text
    assert "ndecided" not in text


def test_undecided_answer_gives_the_threshold_and_the_most_probable_rudiment(config: ModelConfig) -> None:
    calibrated = dataclasses.replace(config, calibration=Calibration(1.0, 1.0, 0.61))
    text = feedback.answer(segment(confidence=0.4, undecided=True), calibrated, 40)
    assert text.startswith("## Undecided")
    assert all(each in text for each in ("single paradiddle", "40%", "61%"))
    never = dataclasses.replace(config, calibration=Calibration(1.0, 1.0, 1.0))
    assert "100%" not in feedback.answer(segment(confidence=0.4, undecided=True), never, 40)


def test_answer_warns_of_few_strokes_and_missing_calibration(config: ModelConfig) -> None:
    bare = dataclasses.replace(config, calibration=Calibration())
    assert "1 stroke" in feedback.answer(segment(), bare, 1)
    assert "not calibrated" in feedback.answer(segment(), bare, 40)


def test_limits_name_the_model_and_what_it_was_trained_on(config: ModelConfig) -> None:
    synthetic = dataclasses.replace(config, trained={**config.trained, "synthetic_data": True})
    assert "synthetic" in feedback.limits(synthetic)
    real = dataclasses.replace(config, trained={"synthetic_data": False})
    assert "synthetic" not in feedback.limits(real)
    assert "nano" in feedback.limits(real)


def test_evenness_is_given_in_numbers() -> None:
    times, level, _ = play(RUDIMENTS["single_paradiddle"], jitter_ms=2, left_late_ms=12)
    found = align(times, level, RUDIMENTS["single_paradiddle"], begins=True)
    assert found is not None
    measured = evenness(found)
    assert measured.hands is not None
    text = feedback.on_evenness(segment(), found, 48)
    assert f"{measured.deviation:.0f} ms" in text
    assert f"{measured.hands.late:.0f} ms later" in text
    assert "48 strokes" in text


def test_no_difference_between_hands_is_claimed_within_the_uncertainty() -> None:
    times, level, _ = play(RUDIMENTS["single_paradiddle"], jitter_ms=8, left_late_ms=1)
    found = align(times, level, RUDIMENTS["single_paradiddle"], begins=True)
    assert "No difference" in feedback.on_evenness(segment(), found, 48)


@pytest.mark.parametrize("each", [segment(), segment("drag"), segment(undecided=True), segment("unknown_class")])
def test_evenness_that_cannot_be_measured_is_not_given(each: Segment) -> None:
    text = feedback.on_evenness(each, None, 17)
    assert "cannot be determined" in text
    assert " ms" not in text


def test_names_are_escaped_in_figures(tmp_path: Path) -> None:
    times, level, _ = play(RUDIMENTS["flam"])
    _, found = prediction(tmp_path / "a.wav", sound(times, level), 0.0, 2.0, 4.0, slug='<b>"evil"')
    page = figures.timeline(found, 1, '/file="><script>')
    assert "<b>" not in page
    assert "<script>" not in page
    assert page.count('aria-pressed="true"') == 1
    assert "#t=2.00,4.00" in page
