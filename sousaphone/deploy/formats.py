"""Predictions as text: a table, CSV, JSON, label tracks of Audacity."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousaphone.deploy.predictor import Prediction, Segment
from sousaphone.errors import printable
from sousaphone.rudiments import spoken

UNDECIDED, SILENCE = "undecided", "silence"


def to_json(predictions: Sequence[Prediction]) -> str:
    """A list with one object per recording: file, seconds, and its segments with start, end (s), rudiment, confidence,
    undecided and top."""
    return json.dumps([_plain(prediction) for prediction in predictions], indent=1, ensure_ascii=False) + "\n"


def _plain(prediction: Prediction) -> dict[str, Any]:
    segments = [
        {
            "start": round(segment.start, 3),
            "end": round(segment.end, 3),
            "rudiment": segment.rudiment,
            "confidence": round(segment.confidence, 6),
            "undecided": segment.undecided,
            "top": [{"rudiment": name, "confidence": round(value, 6)} for name, value in segment.top],
        }
        for segment in prediction.segments
    ]
    return {"file": prediction.name, "seconds": round(prediction.recording.seconds, 3), "segments": segments}


def to_csv(predictions: Sequence[Prediction]) -> str:
    """One row per segment; recordings without one have a row without a rudiment."""
    text = io.StringIO()
    most = max((len(s.top) for prediction in predictions for s in prediction.segments), default=1)
    writer = csv.writer(text, lineterminator="\n")
    others = [f"{name}_{place}" for place in range(2, most + 1) for name in ("rudiment", "confidence")]
    writer.writerow(["file", "start", "end", "rudiment", "confidence", "undecided", *others])
    for prediction in predictions:
        for each in prediction.segments:
            rest = [cell for name, value in each.top[1:] for cell in (name, f"{value:.6f}")]
            place = [f"{each.start:.3f}", f"{each.end:.3f}", each.rudiment, f"{each.confidence:.6f}"]
            writer.writerow([prediction.name, *place, str(each.undecided).lower(), *rest])
        if not prediction.segments:
            writer.writerow(
                [prediction.name, "0.000", f"{prediction.recording.seconds:.3f}", "", "", "", *[""] * len(others)]
            )
    return text.getvalue()


def to_labels(prediction: Prediction) -> str:
    """A label track of Audacity: start, end (s) and text of each segment, separated by tabs."""
    return "".join(f"{s.start:.6f}\t{s.end:.6f}\t{label(s)} {s.confidence:.0%}\n" for s in prediction.segments)


def label(segment: Segment) -> str:
    """`flam tap`, or `undecided (flam tap?)`."""
    name = spoken(segment.rudiment)
    return f"{UNDECIDED} ({name}?)" if segment.undecided else name


def to_table(predictions: Sequence[Prediction]) -> Any:
    """A table for `rich`. Recordings are named by their paths if several have the same name."""
    from rich.table import Column, Table

    right: Any = {"justify": "right", "no_wrap": True}
    head = (Column("start", **right), Column("end", **right), Column("rudiment", no_wrap=True))
    table = Table(Column("file", overflow="fold"), *head, Column("confidence", **right), "next", box=None)
    names = [Path(prediction.name).name for prediction in predictions]
    if len(set(names)) < len(names):
        names = [prediction.name for prediction in predictions]
    for prediction, name in zip(predictions, map(printable, names), strict=True):
        for each in prediction.segments:
            others = ", ".join(f"{spoken(other)} {value:.0%}" for other, value in each.top[1:])
            table.add_row(name, clock(each.start), clock(each.end), label(each), f"{each.confidence:.0%}", others)
            name = ""
        if not prediction.segments:
            table.add_row(name, clock(0.0), clock(prediction.recording.seconds), SILENCE)
    return table


def clock(seconds: float) -> str:
    """`0:02.5`, `1:02:03.0`."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
