"""The page of `sousaphone serve` in Chromium: one server and one browser for all checks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from sousaphone.cli import predict
from sousaphone.rudiments import RUDIMENTS
from tests.browser import BROWSER, OFFLINE, needs_browser
from tests.deploy.page.performances import RATE, play, sound

pytestmark = [pytest.mark.slow, needs_browser]
ROOT = Path(__file__).parents[3]
ANSWER = "#answer h2"


class Visitor:
    """A browser context with the page open, its requests and its errors."""

    def __init__(self, context: Any, address: str) -> None:
        self.page, self.requests, self.errors = context.new_page(), list[str](), list[str]()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.goto(address)
        self.page.wait_for_selector("input[type=file]", state="attached")

    def upload(self, file: Path) -> None:
        self.page.set_input_files("input[type=file]", file)

    def answer(self) -> str:
        """The heading of the next answer."""
        self.page.wait_for_selector(ANSWER)
        heading: str = self.page.inner_text(ANSWER)
        return heading

    def eventually(self, read: Callable[[], Any], expected: object) -> None:
        """Wait until the page shows what is expected; components are updated one after the other."""
        for _ in range(100):
            if read() == expected:
                break
            self.page.wait_for_timeout(100)
        assert read() == expected

    def clear(self) -> None:
        self.page.click("button[aria-label='Clear']")
        self.page.wait_for_selector(ANSWER, state="detached")
        self.page.wait_for_selector("input[type=file]", state="attached")

    def top(self) -> list[tuple[str, int]]:
        """The rudiments and their confidence, %."""
        words = self.page.inner_text("#top").splitlines()
        percent = [place for place, word in enumerate(words) if re.fullmatch(r"\d+%", word)]
        return [(words[place - 1].replace(" ", "_"), int(words[place][:-1])) for place in percent]


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is never undecided."""
    copy = tmp_path_factory.mktemp("served") / "model"
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text())
    config["calibration"].update(undecided_below=None, thresholds=None)
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def proxy() -> Iterator[socket.socket]:
    """A proxy that gets the requests of the server to other hosts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        yield listener


@pytest.fixture(scope="module")
def server(
    folder: Path, proxy: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    """Address, process and temporary directory of a server."""
    scratch = tmp_path_factory.mktemp("scratch")
    command = [sys.executable, "-m", "sousaphone", "serve", str(folder), "--port", "0"]
    address_of_proxy = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    environment = {
        **os.environ,
        "TMPDIR": str(scratch),
        "HTTP_PROXY": address_of_proxy,
        "HTTPS_PROXY": address_of_proxy,
    }
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        yield address[0], process, scratch
        process.kill()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """short.wav, long.wav (two parts), silence.wav, broken.wav, notes.txt, large.wav."""
    root = tmp_path_factory.mktemp("recordings")
    waves = [sound(*play(RUDIMENTS[slug], seed=seed)[:2]) for seed, slug in enumerate(("single_paradiddle", "flam"))]
    soundfile.write(root / "short.wav", waves[0], RATE)
    pause = np.random.default_rng(0).normal(0, 1e-4, 3 * RATE)
    soundfile.write(root / "long.wav", np.concatenate([waves[0], pause, waves[1]]), RATE)
    soundfile.write(root / "silence.wav", np.zeros(RATE), RATE)
    (root / "broken.wav").write_bytes(b"RIFF\x00\x01\x00\x00WAVE" + b"nothing" * 40)
    (root / "notes.txt").write_text("R L R R")
    with (root / "large.wav").open("wb") as file:
        file.truncate(100 * 10**6 + 1)
    return root


@contextmanager
def chromium(microphone: Path) -> Iterator[Any]:
    """A browser whose microphone plays a file, to contexts that may use it."""
    playwright = pytest.importorskip("playwright.sync_api")
    flags = [
        *OFFLINE,
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
        "--deny-permission-prompts",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


def test_page(
    server: tuple[str, subprocess.Popen[str], Path],
    proxy: socket.socket,
    folder: Path,
    recordings: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one test, because worker processes would each start a server."""
    address, process, scratch = server
    files = [str(recordings / name) for name in ("short.wav", "long.wav")]
    assert predict.main([str(folder), *files, "--format=json"]) == 0
    short, long = json.loads(capsys.readouterr().out)
    with chromium(recordings / "short.wav") as browser:
        visitor, other = (Visitor(browser.new_context(), address) for _ in range(2))
        check_short_recording(visitor, recordings, short)
        check_long_recording(visitor, recordings, long)
        check_refused_recordings(visitor, recordings)
        check_two_visitors(visitor, other, recordings, short, long)
        check_change_during_analysis(visitor, recordings, short)
        allowed = Visitor(browser.new_context(permissions=["microphone"]), address)
        check_microphone(allowed)
        refused = Visitor(browser.new_context(), address)
        check_refused_microphone(refused)
        phone = Visitor(browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark"), address)
        check_phone(phone, recordings)
        for each in (visitor, other, allowed, refused, phone):
            assert each.errors == []
            assert [url for url in each.requests if not url.startswith((address, "data:", "blob:"))] == []
        check_files_of_the_server_are_not_served(address, folder)
        process.send_signal(signal.SIGINT)  # while pages are open
        output, _ = process.communicate()
    assert process.returncode == 130
    with pytest.raises(TimeoutError):  # no request to another host
        proxy.accept()
    assert "CancelledError" not in output
    assert list(scratch.glob("sousaphone-page-*")) == []


def check_short_recording(visitor: Visitor, recordings: Path, expected: dict[str, Any]) -> None:
    visitor.upload(recordings / "short.wav")
    segment = expected["segments"][0]
    assert visitor.answer().lower() == segment["rudiment"].replace("_", " ")
    check_top(visitor, segment)
    visitor.eventually(visitor.page.locator("#strokes svg.notation").count, 1)
    assert visitor.page.locator("#strokes line").count() >= 40
    visitor.eventually(lambda: visitor.page.is_visible("#segments"), False)
    visitor.clear()
    visitor.eventually(lambda: visitor.page.is_visible("#top"), False)


def check_top(visitor: Visitor, segment: dict[str, Any]) -> None:
    """The five rudiments are those of predict; percentages are rounded."""
    expected = [(each["rudiment"], pytest.approx(100 * each["confidence"], abs=0.51)) for each in segment["top"]]
    visitor.eventually(visitor.top, expected)


def check_long_recording(visitor: Visitor, recordings: Path, expected: dict[str, Any]) -> None:
    """Each segment can be chosen, in the timeline and in the list, and its part is played."""
    visitor.upload(recordings / "long.wav")
    visitor.answer()
    assert len(expected["segments"]) >= 2
    for controls in ("#timeline [data-segment]", "#segments input"):
        visitor.eventually(visitor.page.locator(controls).count, len(expected["segments"]))
    last = len(expected["segments"]) - 1
    for number, control in ((last, f"#timeline [data-segment='{last}']"), (0, "#segments label >> nth=0")):
        visitor.page.click(control)
        visitor.page.wait_for_selector(f"#timeline [data-segment='{number}'][aria-pressed=true]")
        check_top(visitor, expected["segments"][number])
    played = visitor.page.evaluate(
        """async () => {
          const player = document.querySelector('#timeline audio');
          player.muted = true;
          const ended = new Promise(resolve => player.addEventListener('pause', resolve, {once: true}));
          await player.play();
          const start = player.currentTime;
          player.currentTime = Math.max(start, +player.src.split(',').pop() - 0.5);
          await ended;
          return [start, player.currentTime];
        }"""
    )
    assert played == [pytest.approx(expected["segments"][0][end], abs=0.5) for end in ("start", "end")]
    visitor.clear()


def check_refused_recordings(visitor: Visitor, recordings: Path) -> None:
    for name, words in (("broken.wav", "cannot be"), ("silence.wav", "Silence")):
        visitor.upload(recordings / name)
        assert words in visitor.answer()
        assert "sousaphone-page" not in visitor.page.inner_text("#answer")  # the directory of uploads
        visitor.eventually(lambda: visitor.page.is_visible("#top"), False)
        visitor.clear()
    for name in ("notes.txt", "large.wav"):
        visitor.upload(recordings / name)
        visitor.page.wait_for_selector(f".toast-wrap :text('{name}')")
        assert visitor.page.locator(ANSWER).count() == 0
        visitor.page.reload()
        visitor.page.wait_for_selector("input[type=file]", state="attached")


def check_two_visitors(
    visitor: Visitor, other: Visitor, recordings: Path, short: dict[str, Any], long: dict[str, Any]
) -> None:
    visitor.upload(recordings / "long.wav")
    other.upload(recordings / "short.wav")
    for each, expected in ((visitor, long), (other, short)):
        each.answer()
        check_top(each, expected["segments"][0])
        each.clear()


def check_change_during_analysis(visitor: Visitor, recordings: Path, expected: dict[str, Any]) -> None:
    """The last recording's answer is shown."""
    visitor.upload(recordings / "long.wav")
    visitor.page.click("button[aria-label='Clear']")
    visitor.page.wait_for_selector("input[type=file]", state="attached")
    visitor.upload(recordings / "short.wav")
    visitor.page.wait_for_selector("#strokes svg.notation")
    visitor.page.wait_for_selector("#segments", state="hidden")
    check_top(visitor, expected["segments"][0])


def check_microphone(visitor: Visitor) -> None:
    visitor.page.click("button[aria-label='Record audio']")
    visitor.page.click("button.record-button")
    visitor.page.wait_for_timeout(4_000)
    visitor.page.click("button.stop-button:visible")
    visitor.answer()
    visitor.eventually(lambda: len(visitor.top()), 5)
    visitor.page.wait_for_selector("#strokes line >> nth=9", state="attached")


def check_refused_microphone(visitor: Visitor) -> None:
    visitor.page.click("button[aria-label='Record audio']")
    visitor.page.click("button.record-button")
    visitor.page.wait_for_selector("#microphone [role=alert]:has-text('refused')")


def check_phone(visitor: Visitor, recordings: Path) -> None:
    visitor.upload(recordings / "long.wav")
    visitor.page.wait_for_selector("#strokes svg.notation")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390


def check_files_of_the_server_are_not_served(address: str, folder: Path) -> None:
    """Neither by address, nor as the name of an upload, nor to another website under this one's name."""
    secret = folder / "config.json"
    assert status(f"{address}/gradio_api/file={secret}") == 403
    assert status(address, Host="evil.example") == 400
    body = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}], "fn_index": 0, "session_hash": "x"}
    assert status(f"{address}/gradio_api/queue/join", json.dumps(body).encode()) == 200
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=x") as events:
        text = events.read().decode()
    assert '"success":false' in text
    assert secret.name not in text


def status(address: str, body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
