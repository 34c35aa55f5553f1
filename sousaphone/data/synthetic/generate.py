"""Generation of the built-in data set, in SOUSA's layout.

    plan_clips -> players.perform -> render.make_clip (in worker processes) -> tables.write_tables

It demonstrates the tool; results on it do not apply to real recordings. Equal arguments give equal bytes, whatever the
number of workers and interruptions: every clip has its own random generator.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import filelock
import numpy as np

from sousaphone.config import DATASET_SIZES
from sousaphone.data.synthetic.players import (
    DURATION_SECONDS,
    SPLIT_PLAYERS,
    Clip,
    Performance,
    Player,
    draw_tempo,
    make_players,
)
from sousaphone.data.synthetic.render import ROOMS, make_clip
from sousaphone.data.synthetic.soundfonts import Kit, all_kits
from sousaphone.data.synthetic.tables import audio_path, write_tables
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.hardware import count_cpus
from sousaphone.rudiments import RUDIMENTS, SLUGS, Rudiment
from sousaphone.signals import STOPS, starts_process
from sousaphone.text import tracked

VERSION = 2  # increment when the same plan gives different bytes
FULL_CLIPS = 100_000
MIN_CLIPS = 10  # fewer would leave a split empty

PLAN = "generated.json"  # arguments of a complete or interrupted set
_LOCK = ".lock"
_CHUNK, _BATCH = 8, 256  # clips per job of a worker, and per worker and batch of jobs
_CLIP_BYTES = 215_000  # of disk, a little more than the mean (tests/benchmarks/generate.py)


def plan_clips(clips: int, seed: int, soundfonts: Sequence[Path | str] = ()) -> Iterator[Clip]:
    """Draw the clips without playing them: 80/10/10 by player, rudiments and players evenly within a split."""
    if clips < MIN_CLIPS:
        raise UserError(f"--clips {clips} is too few for three splits; give {MIN_CLIPS} or more")
    if seed < 0:
        raise UserError(f"--seed {seed} is negative; give 0 or more")
    return _clips(clips, seed, all_kits(soundfonts))


def _clips(clips: int, seed: int, fonts: tuple[tuple[Kit, ...], ...]) -> Iterator[Clip]:
    held_out = round(clips / 10)
    quotas = {"train": clips - 2 * held_out, "val": held_out, "test": held_out}
    players = make_players(seed)
    index = itertools.count()
    for number, split in enumerate(SPLIT_PLAYERS):
        rng = np.random.default_rng((seed, 1, number))
        own = [player for player in players if player.split == split]
        rudiments = _in_turn(RUDIMENTS.values(), quotas[split], rng)
        for rudiment, player in zip(rudiments, _in_turn(own, quotas[split], rng), strict=True):
            yield _draw_clip(next(index), seed, player, rudiment, fonts)


def _in_turn(items: Iterable, count: int, rng: np.random.Generator) -> list:
    """Draw `count` items: repeated random permutations of all items."""
    pool = list(items)
    return [pool[i] for _ in range(-(-count // len(pool))) for i in rng.permutation(len(pool))][:count]


def _draw_clip(index: int, seed: int, player: Player, rudiment: Rudiment, fonts: tuple[tuple[Kit, ...], ...]) -> Clip:
    """Draw a clip; SoundFonts are equally likely, and so are the kits of each."""
    rng = np.random.default_rng((seed, 2, index))
    tempo, stretch = draw_tempo(rudiment, rng)
    kits = fonts[rng.integers(len(fonts))]
    return Clip(
        index=index,
        seed=(seed, 2, index),
        player=player,
        rudiment=rudiment,
        tempo_bpm=tempo,
        stretch=stretch,
        phase=float(rng.random()),
        duration=float(rng.uniform(*DURATION_SECONDS)),
        kit=kits[rng.integers(len(kits))],
        room=int(rng.integers(len(ROOMS))),
        tuning_cents=float(rng.uniform(-200, 200)),
    )


def generate(
    root: Path, clips: int, seed: int, workers: int | None = None, soundfonts: Sequence[Path | str] = ()
) -> None:
    """Write a SOUSA directory of `clips` clips at `root`, or resume an interrupted generation.

    The plan is written to generated.json first and the labels last, so an incomplete set is never read.

    Args:
        workers: processes, by default one per available CPU core. The result does not depend on it.
        soundfonts: .sf2 files whose drum kits are used in addition to the built-in ones; a file's stem is its name in
            the labels.

    Raises:
        UserError: invalid arguments; `root` is in use or not empty; not enough disk space.
        OSError: the disk is full or not writable; the next call resumes.
    """
    workers = count_cpus() if workers is None else workers
    if workers < 1:
        raise UserError(f"--workers {workers} is out of range; give 1 or more")
    plan_clips(clips, seed, soundfonts)  # validates the arguments before anything is written
    plan = _plan(clips, seed, soundfonts)
    _check_directory(root, plan)
    root.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(root / _LOCK).acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"another process is generating into {str(root)!r}; wait for it or give another directory"
        ) from None
    with lock:
        if not (root / "labels" / "samples.parquet").is_file():
            _check_space(root, clips)
            with atomic_write(root / PLAN) as temporary:
                temporary.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")
            _make(root, clips, seed, workers, soundfonts)
        (root / _LOCK).unlink(missing_ok=True)


def _make(root: Path, clips: int, seed: int, workers: int, soundfonts: Sequence[Path | str]) -> None:
    for folder in ("labels", *(f"audio/{slug}" for slug in SLUGS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    jobs = ((clip, root / audio_path(clip)) for clip in plan_clips(clips, seed, soundfonts))
    title = f"Generating {clips:,} clips"
    start, end = f"{title} of the built-in set, once", f"Generated {clips:,} clips"
    write_tables(root, tracked(_make_clips(jobs, workers), title, clips, start, end))


def _check_space(root: Path, clips: int) -> None:
    """Raise a UserError if there is not enough space for the missing clips."""
    needed = _CLIP_BYTES * (clips - sum(1 for _ in root.glob("audio/*/*.flac")))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{clips:,} clips need {needed / 1e9:.2f} GB more and {root} has {free / 1e9:.2f} GB free; free space, or "
            "give another directory (SOUSAPHONE_CACHE for the built-in set) or fewer clips"
        )


def _plan(clips: int, seed: int, soundfonts: Sequence[Path | str]) -> dict:
    """Return all values that determine the bytes of a set, with SoundFonts by content."""
    fonts = [kits[0] for kits in all_kits(soundfonts)]
    hashes = {kit.font: hashlib.sha256(kit.path.read_bytes()).hexdigest()[:16] for kit in fonts}
    return {"version": VERSION, "clips": clips, "seed": seed, "soundfonts": hashes}


def _saved_plan(root: Path) -> dict | None:
    """Read the plan of a directory; None if it has no readable one."""
    try:
        return json.loads((root / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_directory(root: Path, plan: dict) -> None:
    saved = _saved_plan(root)
    if saved is None:
        own = (_LOCK, f".{PLAN}.*.tmp")  # of a run that was killed before it wrote the plan
        if root.exists() and not (root.is_dir() and all(any(map(p.match, own)) for p in root.iterdir())):
            raise UserError(f"{str(root)!r} is not an empty directory; give a new one or remove it")
    elif saved != plan:
        changed = "; ".join(f"{key} {saved.get(key)}, not {plan[key]}" for key in plan if saved.get(key) != plan[key])
        raise UserError(f"{str(root)!r} was started with {changed}; give the same values or another directory")


def builtin_root(cache_dir: Path, size: str) -> Path:
    """Return the directory of the built-in set of a size, whether or not it exists."""
    return cache_dir / f"builtin-{VERSION}-{size}"


def builtin_clips(size: str) -> int:
    """Return the number of clips of the built-in set of a size."""
    return DATASET_SIZES[size] or FULL_CLIPS


def builtin_dataset(cache_dir: Path, size: str) -> Path:
    """Return the directory of the built-in set of a size, generated on first use by one process."""
    if size not in DATASET_SIZES:
        raise UserError(f"--dataset {size!r} is unknown; choose one of: {', '.join(DATASET_SIZES)}")
    root = builtin_root(cache_dir, size)
    if root.is_dir():
        return root
    partial = cache_dir / f"{root.name}.partial"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache_dir / f"{root.name}.lock"):
        if not root.is_dir():  # unless another process generated it during the wait
            clips = builtin_clips(size)
            if partial.exists() and _saved_plan(partial) != _plan(clips, 0, ()):  # of an older version
                shutil.rmtree(partial)
            generate(partial, clips, seed=0)
            partial.replace(root)
    return root


def _make_clips(jobs: Iterator[tuple[Clip, Path]], workers: int) -> Iterator[tuple[Clip, Performance]]:
    """Make the clips in batches; yield each with its performance, in order."""
    if workers == 1:
        yield from ((job[0], make_clip(job)) for job in jobs)
        return
    # A forked child would inherit locks held by threads of this process (torch, Ray).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    try:
        while batch := list(itertools.islice(jobs, _BATCH * workers)):
            with starts_process():
                made = pool.map(make_clip, batch, chunksize=_CHUNK)
            yield from zip((clip for clip, _ in batch), made, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def follow_parent() -> None:
    """Exit when the parent exits, however it does, and leave Ctrl-C to it; a pool's workers would wait forever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # a broken pool ends its workers by SIGTERM
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
