"""Rendered training clips: waveforms in a memory-mapped file, and their targets."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import torch

from scripts.train_transcriber.sequences import Sequence, draw_sequence
from scripts.train_transcriber.sounds import RATE, draw_drum, draw_room, dry, impulse_response, record
from sousaphone.transcription.network import HOP

SECONDS = 4.0
MERGED_SECONDS = 0.008  # strokes closer than this sound as one
_LENGTH = round(SECONDS * RATE)
_FRAMES = _LENGTH // HOP + 1
_WIDTH = 1.6  # half width of an onset's target, frames


def render(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip, int16 [T], and its targets, uint8 [4, F]."""
    rng = np.random.default_rng((7, index))
    sequence = draw_sequence(rng, SECONDS)
    drum = draw_drum(rng)
    response = impulse_response(draw_room(rng), rng)
    wave = record(dry(sequence, drum, rng, SECONDS), response, rng)
    return np.round(wave * 32767).astype(np.int16), targets(sequence)


def targets(sequence: Sequence, frames: int = _FRAMES) -> np.ndarray:
    """Return onset, velocity, grace and buzz by frame, uint8 [4, F] in units of 1/127.

    The onset's target is a triangle around its time, so that its centre is known to a fraction of a frame; the others
    are those of the nearest stroke.
    """
    merged = sequence.merged(MERGED_SECONDS)
    target = np.zeros((4, frames), np.uint8)
    for time, velocity, grace, buzz in zip(merged.times, merged.velocities, merged.grace, merged.buzz, strict=True):
        centre = time * RATE / HOP
        for frame in range(max(0, round(centre) - 2), min(frames, round(centre) + 3)):
            height = round(127 * max(0.0, 1 - abs(frame - centre) / _WIDTH))
            if height > target[0, frame]:
                target[:, frame] = height, round(velocity), 127 * grace, 127 * buzz
    return target


def make_clips(folder: Path, count: int, workers: int) -> tuple[np.ndarray, np.ndarray]:
    """Render `count` clips unless they exist; return memory maps int16 [N, T] and uint8 [N, 4, F]."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"waves_{count}.npy", folder / f"targets_{count}.npy"
    if not paths[1].is_file():
        temporary = folder / "unfinished.npy"
        waves = np.lib.format.open_memmap(temporary, "w+", np.int16, (count, _LENGTH))
        marks = np.zeros((count, 4, _FRAMES), np.uint8)
        with multiprocessing.get_context("spawn").Pool(workers, torch.set_num_threads, (1,)) as pool:
            for index, (wave, target) in enumerate(pool.imap(render, range(count), chunksize=32)):
                waves[index], marks[index] = wave, target
                if index % 500 == 499:
                    print(f"{index + 1} of {count} clips rendered", flush=True)
        waves.flush()
        temporary.replace(paths[0])
        np.save(paths[1], marks)
    return np.load(paths[0], mmap_mode="r"), np.load(paths[1])
