"""Picture of a prediction: waveform, segments, and the confidence of some rudiments over time."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from sousaphone.deploy.predictor import Prediction
from sousaphone.deploy.segments import FRAME_SECONDS
from sousaphone.errors import printable
from sousaphone.rudiments import spoken

# Okabe and Ito (2008), as in the report.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_GREY, _GRID = "#767676", "#e6e6e6"
_SHOWN = 5
_MOST_POINTS = 4_000
_LETTER, _MOST_LINES = 0.0058, 4  # width of a letter, of the picture's; lines of a segment's text, if they fit


def draw(prediction: Prediction, classes: tuple[str, ...]) -> bytes:
    """Draw a prediction as a PNG."""
    # Matplotlib takes half a second to import.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    recording = prediction.recording
    settings: dict[str, Any] = {"text.parse_math": False, "font.size": 9.0, "axes.edgecolor": "#999999"}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # in the file's name
        figure = Figure(figsize=(12.0, 5.2), facecolor="white")
        FigureCanvasAgg(figure)
        margins = {"left": 0.06, "right": 0.99, "top": 0.94, "bottom": 0.16}
        wave, band, lines = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": [2, 1, 3], "hspace": 0.12, **margins}
        )
        figure.text(0.06, 0.955, printable(Path(recording.name).name), fontsize=11, fontweight="bold")
        step = -(-len(recording.envelope) // _MOST_POINTS)
        envelope = np.pad(recording.envelope, ((0, -len(recording.envelope) % step), (0, 0)), "edge")
        low, high = (
            reduced(envelope[:, side].reshape(-1, step), axis=1) for side, reduced in ((0, np.min), (1, np.max))
        )
        wave.fill_between(np.arange(len(low)) * step * FRAME_SECONDS, low, high, color=_GREY, linewidth=0)
        wave.set_ylabel("waveform")
        mean = prediction.probabilities.mean(0) if len(prediction.times) else np.zeros(len(classes))
        named = Counter[int]()
        for segment in prediction.segments:
            if not segment.undecided:
                named[classes.index(segment.rudiment)] += round(1000 * (segment.end - segment.start))
        first = [number for number, _ in named.most_common(_SHOWN)]
        shown = list(dict.fromkeys([*first, *np.argsort(-mean, kind="stable").tolist()]))[:_SHOWN]
        colours = {classes[number]: colour for number, colour in zip(shown, _COLOURS, strict=False)}
        for segment in prediction.segments:
            width = segment.end - segment.start
            colour = "white" if segment.undecided else colours.get(segment.rudiment, "#bbbbbb")
            band.barh(0, width, left=segment.start, color=colour, edgecolor="#555555", alpha=0.6)
            name = spoken(segment.rudiment) + "?" * segment.undecided
            text = textwrap.wrap(name, max(1, int(width / recording.seconds / _LETTER)), break_long_words=False)
            if max(map(len, text)) * _LETTER * recording.seconds <= width and len(text) < _MOST_LINES:
                band.text(
                    segment.start + width / 2,
                    0,
                    "\n".join([*text, f"{segment.confidence:.0%}"]),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    clip_on=True,
                )
        band.set_yticks([])
        band.set_ylabel("segments")
        steps = np.diff(prediction.times)
        pauses: Any = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else []
        for number in shown:
            times = np.insert(prediction.times, pauses, np.nan)
            values = np.insert(prediction.probabilities[:, number], pauses, np.nan)
            name = classes[number]
            lines.plot(times, values, ".-", color=colours[name], label=spoken(name), markersize=4, linewidth=1.2)
        lines.set_ylim(0, 1.02)
        lines.set_ylabel("confidence")
        lines.set_xlabel("seconds")
        lines.set_xlim(0, max(recording.seconds, FRAME_SECONDS))
        lines.grid(color=_GRID)
        if shown:
            lines.legend(loc="upper right", fontsize=8, frameon=False, ncols=len(shown), bbox_to_anchor=(1.0, -0.16))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
