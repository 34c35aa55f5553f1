"""Render the corpus once, at every rate that a backbone wants, into waveform caches that training maps.

What a killed run leaves is gone on with, and ends in the same bytes, whatever the number of workers.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from scripts.pretrain_nano.sounds import CLIP_SECONDS, Corpus, take
from sousaphone.data.cache.build import OFFSETS, WAVE, WaveformCache
from sousaphone.data.cache.decode import resampler, to_int16
from sousaphone.data.synthetic.generate import follow_parent
from sousaphone.data.synthetic.players import perform
from sousaphone.data.synthetic.render import SAMPLE_RATE, record
from sousaphone.errors import UserError

VERSION = 1  # raise it whenever the same corpus would give other bytes
_PLAN, _DONE = "corpus.json", "done.txt"
_CHUNK = 50  # clips that a worker renders at a time


def render_corpus(
    corpus: Corpus, rates: tuple[int, ...], root: Path, workers: int, say: Callable[[str], None]
) -> dict[int, WaveformCache]:
    """The corpus at each rate (Hz), rendered below `root` where it is not there yet.

    Raises:
        UserError: `root` holds another corpus.
    """
    root.mkdir(parents=True, exist_ok=True)
    plan = {"version": VERSION, "rates": sorted(rates), **dataclasses.asdict(corpus)}
    noted = root / _PLAN
    if noted.is_file() and json.loads(noted.read_text(encoding="utf-8")) != plan:
        raise UserError(f"{root} holds another corpus ({noted.name} says which); give another directory or remove it")
    directories = {rate: root / f"{rate}hz" for rate in sorted(rates)}
    if not noted.is_file():
        for rate, directory in directories.items():
            directory.mkdir(exist_ok=True)
            samples = samples_at(rate)
            np.save(directory / OFFSETS, np.arange(corpus.clips + 1, dtype=np.int64) * samples)
            with (directory / WAVE).open("wb") as file:
                file.truncate(corpus.clips * samples * 2)
        noted.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    ledger = root / _DONE
    done = {int(line) for line in ledger.read_text(encoding="utf-8").split()} if ledger.is_file() else set()
    jobs = [(corpus, root, at) for at in range(0, corpus.clips, _CHUNK) if at not in done]
    if jobs:
        say(f"rendering {corpus.clips:,} clips of {CLIP_SECONDS} s, {len(jobs)} chunks of {_CHUNK} to go")
        # Spawned: a forked child would inherit the locks of torch's threads.
        with (
            ledger.open("a", encoding="utf-8") as book,
            multiprocessing.get_context("spawn").Pool(workers, _begin_worker) as pool,
        ):
            for count, at in enumerate(pool.imap_unordered(_render_chunk, jobs), start=1):
                book.write(f"{at}\n")
                book.flush()
                if count % 40 == 0:
                    say(f"{count} of {len(jobs)} chunks")
    return {rate: WaveformCache(directory, rate) for rate, directory in directories.items()}


def samples_at(rate: int) -> int:
    """Samples of one clip at a rate in Hz."""
    return round(CLIP_SECONDS * rate)


def _begin_worker() -> None:
    follow_parent()
    torch.set_num_threads(1)


def _render_chunk(job: tuple[Corpus, Path, int]) -> int:
    corpus, root, first = job
    rates = [int(path.name.removesuffix("hz")) for path in root.glob("*hz")]
    waves = {rate: np.memmap(root / f"{rate}hz" / WAVE, np.int16, "r+") for rate in rates}
    for index in range(first, min(first + _CHUNK, corpus.clips)):
        clip = take(corpus, index)
        drum, room = clip.sound()
        audio = record(clip, perform(clip), drum, room)
        wave = torch.from_numpy(audio).float() / 32768
        for rate, into in waves.items():
            samples = samples_at(rate)
            own = to_int16(resampler(SAMPLE_RATE, rate)(wave))
            into[index * samples : (index + 1) * samples] = own[:samples]
    for into in waves.values():
        into.flush()
    return first
