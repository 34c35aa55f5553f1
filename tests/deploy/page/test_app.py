"""The handlers of the page, without a browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sousaphone.deploy.predictor import load
from sousaphone.rudiments import RUDIMENTS
from tests.deploy.page.performances import RATE, play, sound

app = pytest.importorskip("sousaphone.deploy.page.app")


@pytest.fixture
def page(model: Path) -> object:
    return app.Page(load(model, device="cpu"))


@pytest.fixture
def take(tmp_path: Path) -> Path:
    path = tmp_path / "take.wav"
    times, levels, _ = play(RUDIMENTS["flam"])
    soundfile.write(path, sound(times, levels), RATE)
    return path


def test_answer_is_that_of_predict(page: app.Page, take: Path) -> None:
    (_, prediction), results, _, _, _, top, *_ = page.analyse(str(take))
    expected = page.model.predict(take).segments
    assert prediction.segments == expected
    assert results.visible
    assert list(top.values()) == [confidence for _, confidence in expected[0].top]


@pytest.mark.parametrize("content", [b"", b"text", np.zeros(999).tobytes()])
def test_file_that_is_no_audio_is_named_without_its_directory(page: app.Page, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "take.wav"
    path.write_bytes(content)
    analysed, results, _, message, *_ = page.analyse(str(path))
    assert analysed is None
    assert not results.visible
    assert "take.wav" in message
    assert str(tmp_path) not in message


def test_recording_that_is_too_long_is_refused(page: app.Page, take: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MOST_MINUTES", 0.05)
    analysed, _, _, message, *_ = page.analyse(str(take))
    assert analysed is None
    assert "0.05 minutes" in message


def test_answer_remains_when_the_recording_is_deleted(page: app.Page, take: Path) -> None:
    analysed, *_, before, _, _ = page.analyse(str(take))
    take.unlink()
    _, _, top, _, words = page.show(analysed, 0)
    assert top == before
    assert "deleted" in words
    assert "deleted" in page.show(None, 0)[0]
