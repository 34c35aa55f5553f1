"""The page of `sousaphone serve`: a recording in, its rudiments out (Gradio)."""

from __future__ import annotations

import ipaddress
import math
import os
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

# Read when Gradio is imported: no statistics are sent.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import torch
import uvicorn
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sousaphone.data.readers.samples import header_seconds
from sousaphone.deploy.formats import clock, label
from sousaphone.deploy.page import feedback, figures
from sousaphone.deploy.page.detection import detect
from sousaphone.deploy.page.notation import notation
from sousaphone.deploy.predictor import Prediction, Predictor
from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus
from sousaphone.rudiments import RUDIMENTS, spoken
from sousaphone.text import escape_markdown

MOST_MEGABYTES, MOST_MINUTES = 100, 30
_AT_ONCE = 2  # recordings that are analysed at the same time
_KEPT_SECONDS = 3600  # uploaded recordings are deleted afterwards
_FONTS = ["system-ui", "sans-serif"]
_CSS = f"""{figures.CSS}
.gradio-container {{max-width: 1000px !important; margin: 0 auto !important}}
#segments {{max-height: 20rem; overflow-y: auto}}
#answer {{min-height: 5rem}}
#microphone:not(:has(p)) {{display: none}}
"""
# A click on a segment of the timeline chooses it in the list.
_CHOOSE = """element.addEventListener('click', event => {
  const clicked = event.target.closest('[data-segment]');
  if (clicked) document.querySelectorAll('#segments input')[clicked.dataset.segment].click();
});"""
# Gradio does not explain a refused microphone, and throws an error; here the request is left without an answer.
_MICROPHONE = """const explain = text => { element.innerHTML = `<p role="alert">${text}</p>`; };
const media = navigator.mediaDevices;
if (!media) explain('No microphone: browsers allow it on this machine and over HTTPS only. Uploads work.');
else {
  const request = media.getUserMedia.bind(media);
  media.getUserMedia = wanted => request(wanted).then(
    stream => { element.innerHTML = ''; return stream; },
    error => {
      explain(error.name === 'NotAllowedError'
        ? 'The browser refused the microphone. Allow it in the settings of this page, then record again, or upload.'
        : 'No microphone was found. Connect one, then record again, or upload.');
      return new Promise(() => {});
    });
}"""
_DELETED = "The recording has been deleted from the server, as all are after an hour. Give it again to continue."


class Page:
    """The handlers of the page."""

    def __init__(self, model: Predictor) -> None:
        self.model = model

    def analyse(self, path: str | None, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        """Name the rudiments of a recording: path and prediction, visibility of the results, segments, and `show`."""
        if path is None:
            return _nothing("")
        torch.set_num_threads(max(1, count_cpus() // _AT_ONCE))  # of this thread
        name, done, total = Path(path).name, 0.0, math.nan
        with suppress(UserError):  # raised again below, with the name of the file
            total = header_seconds(Path(path))

        def advance(seconds: float) -> None:
            nonlocal done
            done += seconds / 2
            if done > 60 * MOST_MINUTES:
                raise UserError(f"{name} is longer than {MOST_MINUTES} minutes; cut it, or use sousaphone predict")
            progress(min(1.0, done / total) if total > 0 else None)

        try:
            prediction = self.model.predict(path, name=name, advance=advance)
        except UserError as error:
            return _nothing(
                f"## This recording cannot be used\n\n{escape_markdown(str(error))}\n\n"
                "WAV, FLAC, MP3 and Ogg files can be read; convert others, such as a phone's M4A."
            )
        if not prediction.segments:
            return _nothing(
                "## Silence\n\nNothing in this recording is louder than −80 dB re full scale. The microphone may be "
                "muted, or another one may be selected."
            )
        choices = [
            (f"{number} · {clock(each.start)} to {clock(each.end)} · {label(each)} · {each.confidence:.0%}", number - 1)
            for number, each in enumerate(prediction.segments, start=1)
        ]
        segments = gr.Radio(choices, value=0, visible=len(choices) > 1)
        analysed = (Path(path), prediction)
        return [analysed, gr.Column(visible=True), segments, *self.show(analysed, 0)]

    def show(self, analysed: tuple[Path, Prediction] | None, number: int | None) -> list[Any]:
        """Show a segment: the answer, the timeline, the top five, the strokes, and their evenness."""
        if analysed is None or number is None:
            return [_DELETED, *[gr.skip()] * 4]
        path, prediction = analysed
        segment = prediction.segments[number]
        address = f"gradio_api/file={quote(str(path))}"
        several = len(prediction.segments) > 1
        timeline = gr.HTML(figures.timeline(prediction, number, address) if several else "", visible=several)
        top = {spoken(name): confidence for name, confidence in segment.top}
        try:
            strokes = detect(path, prediction, number)
        except UserError:
            return [feedback.answer(segment, self.model.config), timeline, top, "", _DELETED]
        rudiment = None if segment.undecided else RUDIMENTS.get(segment.rudiment)
        drawn = figures.strokes(strokes, segment.start, notation(rudiment) if rudiment else "")
        words = feedback.on_evenness(segment, strokes.alignment, strokes.main)
        answer = feedback.answer(segment, self.model.config, len(strokes.onsets))
        return [answer, timeline, top, drawn, words]


def _nothing(message: str) -> list[Any]:
    """The values of `Page.analyse` without a prediction."""
    return [None, gr.Column(visible=False), gr.Radio([], value=None, visible=False), message, *[gr.skip()] * 4]


def build(model: Predictor) -> gr.Blocks:
    """Build the page of a model."""
    page = Page(model)
    with gr.Blocks(title="SOUSAphone", analytics_enabled=False) as blocks:
        analysed = gr.State(None, time_to_live=_KEPT_SECONDS)
        gr.Markdown(f"# Which rudiment is it?\n\n{feedback.limits(model.config)}")
        audio = gr.Audio(
            label=f"Upload or record: up to {MOST_MINUTES} min, {MOST_MEGABYTES} MB",
            type="filepath",
            editable=False,
            buttons=[],
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
        )
        gr.HTML(elem_id="microphone", js_on_load=_MICROPHONE)
        answer = gr.Markdown(elem_id="answer")
        with gr.Column(visible=False) as results:
            timeline = gr.HTML(elem_id="timeline", js_on_load=_CHOOSE)
            segments = gr.Radio([], label="Segments", elem_id="segments", visible=False)
            with gr.Row():
                top = gr.Label(label="The five most probable rudiments", show_heading=False, elem_id="top", scale=1)
                with gr.Column(scale=2):
                    strokes = gr.HTML(elem_id="strokes")
            evenness = gr.Markdown(elem_id="evenness")
        shown = [answer, timeline, top, strokes, evenness]
        private: Any = {"api_visibility": "private", "concurrency_limit": _AT_ONCE, "concurrency_id": "analysis"}
        audio.change(page.analyse, audio, [analysed, results, segments, *shown], show_progress_on=answer, **private)
        segments.input(page.show, [analysed, segments], shown, trigger_mode="always_last", **private)
    return blocks


def application(model: Predictor, address: str) -> FastAPI:
    """Build the server of a model's page.

    On an address of this machine alone, such as 127.0.0.1, only requests to it or to localhost are answered, so that
    other websites cannot reach the page under their names. Nothing but uploads is served from the disk.
    """
    no_documentation: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    outer = FastAPI(**no_documentation)
    if ipaddress.ip_address(address).is_loopback:
        host = f"[{address}]" if ":" in address else address
        outer.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"])
    blocks = build(model).queue()
    gr.mount_gradio_app(
        outer,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MOST_MEGABYTES * 10**6,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=_FONTS),
        css=_CSS,
        app_kwargs=no_documentation,
    )
    # Otherwise Gradio would not check that a file named in a request is an upload.
    blocks.has_launched = True
    return outer


def serve(model: Predictor, listener: socket.socket) -> None:
    """Serve the page on a socket until the process is stopped. Uploads are deleted after an hour and at the end."""
    with tempfile.TemporaryDirectory(prefix="sousaphone-page-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        Thread(target=_delete_old_files, args=(Path(uploads),), daemon=True).start()
        page = application(model, listener.getsockname()[0])
        # At the end, uvicorn would log an error for each open page; Gradio prints those of the handlers itself.
        config = uvicorn.Config(page, log_level="critical", timeout_graceful_shutdown=1)
        uvicorn.Server(config).run(sockets=[listener])


def _delete_old_files(directory: Path) -> None:
    # Gradio's own deletion ends for good at the first error, which a request for a directory causes.
    while True:
        time.sleep(_KEPT_SECONDS / 6)
        delete_files(directory, time.time() - _KEPT_SECONDS)


def delete_files(directory: Path, before: float) -> None:
    """Delete the files in a directory that were written before a time, seconds since the epoch."""
    for path in directory.rglob("*"):
        with suppress(OSError):  # no longer there
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink()
