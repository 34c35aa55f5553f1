"""Render the corpus once, at the sample rate of every backbone, into waveform caches that training maps.

Rendering resumes after an interruption. The result does not depend on interruptions or on the number of workers.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Collection
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
from sousaphone.text import Announce

VERSION = 1  # increase it when the same corpus gives other bytes
_CHUNK = 50  # clips per job of a worker


def render_corpus(
    corpus: Corpus, rates: Collection[int], root: Path, workers: int, announce: Announce
) -> dict[int, WaveformCache]:
    """Render the corpus at each rate (Hz) below `root`, or open it if it is complete; raises a UserError if `root`
    holds another corpus."""
    root.mkdir(parents=True, exist_ok=True)
    plan = {"version": VERSION, "rates": sorted(rates), **dataclasses.asdict(corpus)}
    plan_file = root / "corpus.json"
    if plan_file.is_file() and json.loads(plan_file.read_text(encoding="utf-8")) != plan:
        raise UserError(f"{root} holds another corpus (see {plan_file.name}); give another directory or remove it")
    directories = {rate: root / f"{rate}hz" for rate in sorted(rates)}
    if not plan_file.is_file():
        for rate, directory in directories.items():
            directory.mkdir(exist_ok=True)
            samples = round(CLIP_SECONDS * rate)
            np.save(directory / OFFSETS, np.arange(corpus.clips + 1, dtype=np.int64) * samples)
            with (directory / WAVE).open("wb") as file:
                file.truncate(corpus.clips * samples * 2)
        plan_file.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    done_file = root / "done.txt"
    done = set(map(int, done_file.read_text(encoding="utf-8").split())) if done_file.is_file() else set()
    jobs = [(corpus, root, at) for at in range(0, corpus.clips, _CHUNK) if at not in done]
    if jobs:
        announce(f"rendering {corpus.clips:,} clips of {CLIP_SECONDS} s, {len(jobs)} chunks of {_CHUNK} left")
        context = multiprocessing.get_context("spawn")  # a fork would copy locked locks of torch's threads
        with done_file.open("a", encoding="utf-8") as file, context.Pool(workers, _start_worker) as pool:
            for count, at in enumerate(pool.imap_unordered(_render_chunk, jobs), start=1):
                print(at, file=file, flush=True)
                if count % 40 == 0:
                    announce(f"{count} of {len(jobs)} chunks")
    return {rate: WaveformCache(directory, rate) for rate, directory in directories.items()}


def _start_worker() -> None:
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
            samples = round(CLIP_SECONDS * rate)
            into[index * samples : (index + 1) * samples] = to_int16(resampler(SAMPLE_RATE, rate)(wave))[:samples]
    for into in waves.values():
        into.flush()
    return first
