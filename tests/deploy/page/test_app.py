"""The handlers of the page, without a browser."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from sousaphone.deploy.predictor import load
from sousaphone.errors import UserError
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


@pytest.mark.parametrize(
    ("address", "host", "status"),
    [
        *[("127.0.0.1", host, 200) for host in ("127.0.0.1:7860", "localhost:7860")],
        *[("127.0.0.1", host, 400) for host in ("example.com", "127.0.0.1.example.com", "0.0.0.0")],
        *[("127.0.0.2", "127.0.0.2", 200), ("127.0.0.2", "example.com", 400)],
        *[("::1", "[::1]:7860", 200), ("::1", "localhost", 200), ("::1", "example.com", 400)],
        *[("0.0.0.0", "example.com", 200), ("::", "example.com", 200)],
    ],
)
def test_page_on_this_machine_answers_under_no_other_name(page: app.Page, address: str, host: str, status: int) -> None:
    client = TestClient(app.application(page.model, address))
    assert client.get("/", headers={"Host": host}).status_code == status


def test_old_uploads_are_deleted(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "take.wav").touch()
    os.utime(tmp_path / "old" / "inner" / "take.wav", (0, 0))
    app.delete_files(tmp_path, before=1.0)
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.wav")] == ["new"]


def test_requests_for_other_files_are_refused_and_the_server_ends_without_errors(
    page: app.Page, take: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of uploads, too, which is not a recording."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    opened: list[str] = []

    def predict(path: str, **_: object) -> None:
        opened.append(path)
        raise UserError("not a recording")

    monkeypatch.setattr(page.model, "predict", predict)
    with TestClient(app.application(page.model, "127.0.0.1"), base_url="http://127.0.0.1") as client:
        (upload,) = client.post("/gradio_api/upload", files={"files": ("x.wav", take.read_bytes())}).json()
        for path in (str(take), "/etc/passwd", "http://127.0.0.1:9/x.wav", str(Path(upload).parent)):
            data = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
            client.post("/gradio_api/run/analyse", json={"data": data, "fn_index": 0})
    assert set(opened) <= {str(Path(upload).parent)}
