"""python -m tests.benchmarks.transcription PERFORMANCES: onsets by room, and what the stroke model makes of them.

PERFORMANCES is a parquet file with a row for each performance of SOUSA's generator: rudiment_slug, duration_sec, split,
and lists of time_ms, velocity, hand, stroke. Clips are drawn and rendered with the two kits that are held out of
the transcriber's training, in the two kinds of room that are (`--rooms held-out`) or in all of SOUSA's (`--rooms all`).
Strokes closer than 8 ms count as one, for every method. A detected stroke is correct within 10 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from scripts.train_transcriber.clips import MERGED_SECONDS, targets
from scripts.train_transcriber.sequences import Sequence
from scripts.train_transcriber.sounds import HELD_OUT_ROOMS, RATE, ROOMS, dry, impulse_response, kit_drums, record
from scripts.train_transcriber.sounds import similar_room as draw_similar
from sousaphone.baselines.strokes import train_network
from sousaphone.transcription.transcribe import Strokes, frames, transcribe
from tests.benchmarks.spectral_flux import onsets

# Median delay of the detected onsets of a close recording, s; subtracted, for these methods place them in a window.
DELAYS = {"spectral flux": 0.008, "librosa": 0.018}
TOLERANCE = 0.010  # seconds
WINDOWS = 8  # random ones of each training clip
Detector = Callable[[np.ndarray, int], Strokes]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.transcription", description=__doc__)
    parser.add_argument("performances", type=Path)
    parser.add_argument("--clips", type=int, default=1_200)
    parser.add_argument("--rooms", choices=("held-out", "all"), default="held-out")
    parser.add_argument(
        "--window", type=float, default=5.0, help="seconds that the stroke model reads (default %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=3_000, help="of the stroke model's training; 0: none (default %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    table = pd.read_parquet(options.performances).sample(options.clips, random_state=0).sort_index()
    names = HELD_OUT_ROOMS if options.rooms == "held-out" else tuple(ROOMS)
    jobs = [(index, row, names) for index, row in enumerate(table.to_dict("records"))]
    with multiprocessing.get_context("spawn").Pool(options.workers, torch.set_num_threads, (1,)) as pool:
        clips = pool.map(measure, jobs, chunksize=16)
    rows = score([found for found, _ in clips])
    for row in rows:
        print(row)
    accuracy: dict[str, Any] = {}
    if options.steps:
        torch.set_num_threads(options.workers)
        for source in ("audio", "true strokes"):
            own = [frame[source] for _, frame in clips]
            accuracy[source] = recognise(table, own, options.window, options.steps)
            print(source, accuracy[source])
    if options.output:
        options.output.write_text(json.dumps({"onsets": rows, "rival": accuracy}, indent=1) + "\n", encoding="utf-8")


def sequence_of(row: dict[str, Any]) -> Sequence:
    """The strokes of a performance; those before the clip's start sound at it."""
    times = np.asarray(row["time_ms"], float) / 1000
    order = np.argsort(times, kind="stable")
    kinds = np.asarray(row["stroke"])[order]
    hands = (np.asarray(row["hand"])[order] == "L").astype(int)
    velocities = np.asarray(row["velocity"], float)[order]
    return Sequence(np.maximum(times[order], 0), velocities, hands, kinds == "grace", kinds == "buzz")


def measure(job: tuple[int, dict[str, Any], tuple[str, ...]]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Render a clip; return its true and detected strokes, and the frames that the stroke model reads."""
    index, row, names = job
    rng = np.random.default_rng((11, index))
    room, sequence, drums = names[rng.integers(len(names))], sequence_of(row), kit_drums(held_out=True)
    drum = drums[rng.integers(len(drums))]
    response = impulse_response(draw_similar(room, rng), rng)
    wave = record(dry(sequence, drum, rng, row["duration_sec"]), response, rng)
    merged = sequence.merged(MERGED_SECONDS)
    found = {name: detect(wave, RATE) for name, detect in detectors().items()}
    true = targets(sequence, len(wave) // (RATE // 200) + 1).astype(np.float32) / 127
    true[2:] = 0  # intervals and velocities only
    return {"room": room, "true": merged, "found": found}, {"audio": frames(wave, RATE), "true strokes": true}


def detectors() -> dict[str, Detector]:
    """The methods that are compared; librosa's only where it is installed."""
    found: dict[str, Detector] = {
        "transcribe": transcribe,
        "spectral flux": lambda wave, rate: _plain(onsets(wave, rate) - DELAYS["spectral flux"]),
    }
    try:
        import librosa
    except ImportError:
        return found

    def detect(wave: np.ndarray, rate: int) -> Strokes:
        times = librosa.onset.onset_detect(y=wave, sr=rate, hop_length=rate // 200, units="time")
        return _plain(times - DELAYS["librosa"])

    return {**found, "librosa": detect}


def _plain(times: np.ndarray) -> Strokes:
    one = np.ones(len(times), np.float32)
    return Strokes(np.asarray(times, float), 64 * one, one, 0 * one, 0 * one)


def score(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table by method and room: precision, recall, F1, those of grace notes, error of the velocity."""
    sums: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(8))
    for clip in clips:
        true = clip["true"]
        for method, strokes in clip["found"].items():
            pairs = match(true.times, strokes.times)
            of_true, of_found = (pairs[:, 0], pairs[:, 1]) if len(pairs) else (np.zeros(0, int),) * 2
            called, grace = strokes.grace > 0.5, true.grace
            errors = np.abs(strokes.velocities[of_found] - true.velocities[of_true])
            both = int((grace[of_true] & called[of_found]).sum())
            counts = (len(pairs), len(strokes.times), len(true.times), grace[of_true].sum(), grace.sum())
            for room in (clip["room"], "all rooms"):
                sums[method, room] += (*counts, both, called.sum(), errors.sum())
    rows = []
    for (method, room), (hits, found, true, reached, graces, both, called, error) in sorted(sums.items()):
        measured = {"precision": hits / max(found, 1), "recall": hits / true, "f1": 2 * hits / (found + true)}
        measured |= {"grace_recall": reached / max(graces, 1), "velocity_error": error / max(hits, 1)}
        measured |= {"grace_f1": 2 * both / max(graces + called, 1)}
        rows.append({"method": method, "room": room, **{name: round(float(v), 3) for name, v in measured.items()}})
    return rows


def match(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Pairs of indices of strokes within the tolerance, by time, each stroke in one pair at most: int [P, 2]."""
    pairs, i, j = [], 0, 0
    while i < len(true) and j < len(found):
        late = found[j] - true[i]
        if abs(late) <= TOLERANCE:
            pairs.append((i, j))
        i, j = i + (late >= -TOLERANCE), j + (late <= TOLERANCE)
    return np.array(pairs, int).reshape(-1, 2)


def recognise(table: pd.DataFrame, clips: list[np.ndarray], seconds: float, steps: int) -> dict[str, float]:
    """Train the stroke model on windows of the training clips; its accuracy (%) on the centre windows of the others."""
    rng, length = np.random.default_rng(0), round(seconds * 200) + 1
    labels = {slug: number for number, slug in enumerate(sorted(table.rudiment_slug.unique()))}
    label = torch.tensor([labels[slug] for slug in table.rudiment_slug])
    split = table.split.to_numpy()

    def window(clip: np.ndarray, place: float) -> torch.Tensor:
        start = round(place * max(0, clip.shape[1] - length))
        part = torch.from_numpy(clip[:, start : start + length])
        return torch.nn.functional.pad(part, (0, length - part.shape[1])).T.flatten()

    rows = np.repeat(np.flatnonzero(split == "train"), WINDOWS)
    train = torch.stack([window(clips[row], rng.random()) for row in rows])
    began = time.perf_counter()
    network = train_network(train, label[rows], 0, lambda done: None, steps)
    found = {"seconds": round(time.perf_counter() - began, 1)}
    for name in ("validation", "test"):
        own = np.flatnonzero(split == name)
        scores = network.score(torch.stack([window(clips[row], 0.5) for row in own]))
        found[name] = round(100 * float((scores.argmax(1) == label[own]).float().mean()), 1)
    return found


if __name__ == "__main__":
    main()
