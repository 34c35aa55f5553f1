"""The strokes of a segment of a recording, detected and assigned to its rudiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sousaphone.data.cache.decode import to_mono
from sousaphone.data.readers.samples import read_blocks
from sousaphone.deploy.page.strokes import Alignment, Floats, align, levels, without_graces
from sousaphone.deploy.predictor import Prediction
from sousaphone.rudiments import RUDIMENTS
from sousaphone.transcription.transcribe import transcribe

MOST_SECONDS = 60.0  # from the start of a segment, so that memory and page stay small
_SILENCE_SECONDS = 0.04  # before the first stroke of a phrase


@dataclass(frozen=True, eq=False)
class Strokes:
    """The detected strokes of a segment."""

    wave: npt.NDArray[np.float32]  # mono, of at most MOST_SECONDS [T]
    rate: int  # Hz
    onsets: Floats  # of all strokes, seconds from the start of the segment [N]
    main: int  # number of those that are not grace notes
    alignment: Alignment | None  # None if they do not fit the rudiment, or if the answer is undecided


def detect(path: Path, prediction: Prediction, number: int) -> Strokes:
    """Detect the strokes of a segment of a file; raises a UserError if it cannot be read again."""
    segment = prediction.segments[number]
    wave, rate = part(path, segment.start, min(segment.end, segment.start + MOST_SECONDS))
    found = transcribe(wave, rate).times
    rudiment = RUDIMENTS.get(segment.rudiment)
    if segment.undecided or rudiment is None:
        return Strokes(wave, rate, found, len(found), None)
    main = found[without_graces(found, rudiment)]
    after_pause = number == 0 or prediction.segments[number - 1].end < segment.start
    begins = after_pause and len(main) > 0 and main[0] >= _SILENCE_SECONDS
    return Strokes(wave, rate, found, len(main), align(main, levels(wave, rate, main), rudiment, begins))


def part(path: Path, start: float, end: float) -> tuple[npt.NDArray[np.float32], int]:
    """Decode a file from `start` to `end`, seconds: mono samples [T], and their rate, Hz."""
    blocks, rate = read_blocks(path.name, path)
    first, last = round(start * rate), round(end * rate)
    found, place = [], 0
    for block in map(to_mono, blocks):
        found.append(block[max(0, first - place) : max(0, last - place)])
        place += len(block)
        if place >= last:
            break
    return np.concatenate(found), rate
