"""Waveform, strokes and segments as HTML with SVG, in colours that suit light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from sousaphone.deploy.formats import clock, label
from sousaphone.deploy.page.detection import Strokes
from sousaphone.deploy.predictor import Prediction
from sousaphone.text import counted

_COLUMNS, _HEIGHT = 900, 100  # of a waveform
_STROKE_WIDTH = 11  # pixels for a stroke and its letter; longer waveforms scroll
_MOST_LETTERS = 150

CSS = """
.strokes .scroll {overflow-x: auto; contain: inline-size}
.strokes p {opacity: .75; font-size: 13px; margin: 0 0 4px}
#timeline audio {width: 100%; height: 40px; margin-top: 8px}
.dark audio {color-scheme: dark}
.strokes .plot, .timeline {position: relative}
.strokes svg.wave, .timeline svg.wave {display: block; width: 100%; height: 110px}
.timeline svg.wave {height: 56px}
.wave .sound {fill: currentColor; opacity: .45}
.wave line {stroke: currentColor; stroke-width: 1.5; vector-effect: non-scaling-stroke; opacity: .55}
.wave line.R, .wave line.L {opacity: 1}
.R {stroke: var(--right); color: var(--right)} .L {stroke: var(--left); color: var(--left)}
.strokes .row {position: relative; height: 1.3em; font-size: 13px}
.strokes .row span {position: absolute; transform: translateX(-50%)}
.strokes .row.ticks {opacity: .75; font-size: 12px}
.strokes .ticks span:first-child {transform: none} .strokes .ticks span:last-child {transform: translateX(-100%)}
.notation {max-width: 100%; height: auto; display: block; margin: 10px 0 0; fill: currentColor}
.notation path {fill: none; stroke: currentColor; stroke-width: 1.4}
.notation .staff {opacity: .35; stroke-width: 1} .notation .beam {stroke-width: 5} .notation .thick {stroke-width: 2.4}
.notation .accent {stroke-width: 1.8} .notation .fine {stroke-width: 1}
.notation text {text-anchor: middle; stroke: none; font-size: 15px; font-weight: 600; fill: currentColor}
.notation text.grace {font-size: 11px}
.timeline .segment {position: absolute; top: 0; bottom: 0; padding: 0; margin: 0 !important;
  border: 1px solid var(--right); border-radius: 4px; background: color-mix(in srgb, var(--right) 18%, transparent);
  cursor: pointer; overflow: hidden; color: inherit; font-size: 12px}
.timeline .segment.undecided {border-style: dashed; background: none}
.timeline .segment[aria-pressed=true] {background: color-mix(in srgb, var(--right) 45%, transparent)}
:root, .light {--right: #0072b2; --left: #c44e00} .dark {--right: #56b4e9; --left: #ff9d4d}
"""


def strokes(found: Strokes, start: float, notation: str) -> str:
    """Draw the waveform of a segment with its strokes, above the notation of its rudiment (SVG, or nothing).

    Args:
        start: of the segment in the recording, seconds.
    """
    aligned = found.alignment
    hands = dict(zip(aligned.times.tolist(), aligned.hands, strict=False)) if aligned else {}
    wave, onsets = found.wave, found.onsets
    seconds = len(wave) / found.rate
    lines, letters = [], []
    for onset in onsets.tolist():
        hand, place = hands.get(onset, ""), onset / seconds
        lines.append(f'<line class="{hand}" x1="{place * _COLUMNS:.1f}" x2="{place * _COLUMNS:.1f}" y1="0" y2="100"/>')
        if hand and len(onsets) <= _MOST_LETTERS:
            letters.append(f'<span class="{hand}" style="left:{place:.2%}">{hand}</span>')
    ticks = [
        f'<span style="left:{place:.0%}">{clock(start + place * seconds)}</span>' for place in (0, 0.25, 0.5, 0.75, 1)
    ]
    width = min(len(onsets), _MOST_LETTERS) * _STROKE_WIDTH
    caption = f"{counted(len(onsets), 'stroke')} detected from {clock(start)} to {clock(start + seconds)}"
    cycle = f"{notation}<p>One cycle of the sticking; note values are not shown.</p>" if notation else ""
    return (
        f'<div class="strokes"><p>{caption}</p><div class="scroll" tabindex="0" role="img" aria-label="Waveform">'
        f'<div class="plot" style="min-width:{width}px">{_wave(wave, lines)}<div class="row">{"".join(letters)}</div>'
        f'<div class="row ticks">{"".join(ticks)}</div></div></div>{cycle}</div>'
    )


def timeline(prediction: Prediction, chosen: int, address: str) -> str:
    """Draw a whole recording with its segments, which are buttons, and a player of the chosen one.

    Args:
        address: of the recording on the server.
    """
    seconds, buttons = prediction.recording.seconds, []
    for number, each in enumerate(prediction.segments):
        name = escape(f"{number + 1}: {label(each)}, {clock(each.start)} to {clock(each.end)}")
        place = f"left:{each.start / seconds:.3%};width:{(each.end - each.start) / seconds:.3%}"
        kind = "segment undecided" if each.undecided else "segment"
        buttons.append(
            f'<button type="button" class="{kind}" data-segment="{number}" style="{place}" '
            f'aria-pressed="{str(number == chosen).lower()}" title="{name}" aria-label="{name}">{number + 1}</button>'
        )
    segment = prediction.segments[chosen]
    source = f"{address}#t={segment.start:.2f},{segment.end:.2f}"  # a media fragment: only this part is played
    return (
        f'<div class="timeline">{_wave(prediction.recording.envelope)}{"".join(buttons)}</div>'
        f'<audio controls preload="metadata" src="{escape(source)}" aria-label="Segment {chosen + 1}"></audio>'
    )


def _wave(samples: npt.NDArray[np.float32], marks: Sequence[str] = ()) -> str:
    """A waveform, normalised, from samples [T] or from lowest and highest samples [T, 2]."""
    pairs = samples if samples.ndim == 2 else np.stack([samples, samples], 1)
    bounds = np.linspace(0, len(pairs), min(_COLUMNS, len(pairs)), endpoint=False).astype(int)
    low, high = np.minimum.reduceat(pairs[:, 0], bounds), np.maximum.reduceat(pairs[:, 1], bounds)
    middle = _HEIGHT / 2
    scale = middle / max(float(-low.min()), float(high.max()), 1e-6)
    places = np.linspace(0, _COLUMNS, len(bounds))
    top = [f"{x:.1f} {middle - scale * y:.1f}" for x, y in zip(places, high, strict=True)]
    bottom = [f"{x:.1f} {middle - scale * y + 0.6:.1f}" for x, y in zip(places[::-1], low[::-1], strict=True)]
    return (
        f'<svg class="wave" viewBox="0 0 {_COLUMNS} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="sound" d="M{"L".join([*top, *bottom])}Z"/>{"".join(marks)}</svg>'
    )
