"""The built-in data set: SOUSA's layout, made on the spot for a machine without data.

    plan_clips -> players.perform -> render.make_clip (in worker processes) -> tables.Tables, splits.json

It shows that the tool works; what is measured on it says nothing about real recordings. Equal arguments give equal
bytes, whatever the number of workers and interruptions: every clip draws from a generator of its own.
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
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
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
from sousaphone.data.synthetic.tables import Tables, audio_path, splits_table
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, remove_temporary_files
from sousaphone.hardware import count_cpus
from sousaphone.rudiments import RUDIMENTS, SLUGS
from sousaphone.text import tracked

VERSION = 2  # raise it whenever the same plan would give other bytes
FULL_CLIPS = 100_000
MIN_CLIPS = 10  # below that a split would be empty

PLAN = "generated.json"  # what a directory holds or is to hold
_LOCK = ".lock"
_CHUNK = 8  # clips that a worker gets at a time
_CLIP_BYTES = 215_000  # of disk, a little more than the mean (tests/benchmarks/generate.py)
_AHEAD = 4  # chunks a worker that wait to be made or to be written down


def plan_clips(clips: int, seed: int, soundfonts: Sequence[Path | str] = ()) -> Iterator[Clip]:
    """What each clip will be, without playing any: 80/10/10 by player, rudiments and players evenly within a split.

    Every SoundFont is as likely as any other, and so is every kit of one.

    Raises:
        UserError: too few clips for three splits, a negative seed, a file that is no SoundFont.
    """
    if clips < MIN_CLIPS:
        raise UserError(f"clips={clips} is too few for three splits; give {MIN_CLIPS} or more")
    if seed < 0:
        raise UserError(f"seed={seed} is negative; give 0 or more")
    return _clips(clips, seed, all_kits(soundfonts))


def _clips(clips: int, seed: int, fonts: tuple[tuple[Kit, ...], ...]) -> Iterator[Clip]:
    held_out = round(clips / 10)
    quotas = {"train": clips - 2 * held_out, "val": held_out, "test": held_out}
    players = make_players(seed)
    index = itertools.count()
    for number, split in enumerate(SPLIT_PLAYERS):
        rng = np.random.default_rng((seed, 1, number))
        own = [player for player in players if player.split == split]
        for slug, player in zip(_in_turn(SLUGS, quotas[split], rng), _in_turn(own, quotas[split], rng), strict=True):
            yield _draw_clip(next(index), seed, player, slug, fonts)


def _in_turn(items: Iterable, count: int, rng: np.random.Generator) -> list:
    """`count` items: each once, in random order, then each once more, and so on."""
    pool = list(items)
    return [pool[i] for _ in range(-(-count // len(pool))) for i in rng.permutation(len(pool))][:count]


def _draw_clip(index: int, seed: int, player: Player, slug: str, fonts: tuple[tuple[Kit, ...], ...]) -> Clip:
    rng = np.random.default_rng((seed, 2, index))
    tempo, stretch = draw_tempo(RUDIMENTS[slug], rng)
    kits = fonts[rng.integers(len(fonts))]
    return Clip(
        index=index,
        seed=(seed, 2, index),
        player=player,
        slug=slug,
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
    """Write a SOUSA directory of `clips` clips at `root`, or go on with one that was begun and interrupted.

    The plan stands in generated.json from the start, the labels come last: half a set is never read.

    Args:
        workers: processes, by default one for each available CPU core. The result does not depend on it.
        soundfonts: .sf2 files whose drum kits are used beside the built-in ones; a file's stem is its name in the
            labels.

    Raises:
        UserError: `root` has other files or another plan, another process is at it; arguments out of range; no
            SoundFont; no room on the disk.
        OSError: the disk is full all the same, or cannot be written; what is there is gone on with next time.
    """
    workers = count_cpus() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers={workers} is below its limit; give 1 or more")
    plan_clips(clips, seed, soundfonts)  # refuses before anything is written
    _check_directory(root, _plan(clips, seed, soundfonts))
    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(root / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process is generating into {str(root)!r}; wait for it or give another one") from None
    with lock:
        if not _is_whole(root):
            _check_space(root, clips)
            with atomic_write(root / PLAN) as temporary:
                temporary.write_text(json.dumps(_plan(clips, seed, soundfonts), indent=2) + "\n", encoding="utf-8")
            _make(root, clips, seed, workers, soundfonts)
        (root / _LOCK).unlink(missing_ok=True)


def _make(root: Path, clips: int, seed: int, workers: int, soundfonts: Sequence[Path | str]) -> None:
    for folder in ("labels", *(f"audio/{slug}" for slug in SLUGS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    players: dict[str, Player] = {}
    tables = Tables(root / "labels")
    jobs = ((clip, root / audio_path(clip)) for clip in plan_clips(clips, seed, soundfonts))
    begun, ended = f"Generating {clips:,} clips", f"Generated {clips:,} clips"
    made = tracked(_made(jobs, workers), begun, clips, f"{begun} of the built-in set, once", ended)
    for clip, performance in made:
        players.setdefault(clip.player.profile_id, clip.player)
        tables.add(clip, performance)
    remove_temporary_files(root / "audio")  # of a killed run
    (root / "splits.json").write_text(
        json.dumps(splits_table(list(players.values())), indent=2) + "\n", encoding="utf-8"
    )
    tables.close()


def _check_space(root: Path, clips: int) -> None:
    """Raise a UserError where the disk has no room for the clips that are not there yet."""
    needed = _CLIP_BYTES * (clips - sum(1 for _ in root.glob("audio/*/*.flac")))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{clips:,} clips need {needed / 1e9:.2f} GB more and {root} has {free / 1e9:.2f} GB free; free some space "
            "there, choose another directory (SOUSAPHONE_CACHE for the built-in set), or fewer clips"
        )


def _plan(clips: int, seed: int, soundfonts: Sequence[Path | str]) -> dict:
    """What decides the bytes of a set; a SoundFont by its content."""
    files = {kits[0].font: kits[0].path for kits in all_kits(soundfonts)}
    hashes = {}
    for name, path in files.items():
        with path.open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return {"version": VERSION, "clips": clips, "seed": seed, "soundfonts": hashes}


def _recorded(root: Path) -> dict | None:
    """The plan of a directory; None where there is none that can be read."""
    try:
        return json.loads((root / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _check_directory(root: Path, plan: dict) -> None:
    recorded = _recorded(root)
    if recorded is None:
        others = root.exists() and (
            not root.is_dir() or any(p.name != _LOCK and not p.match(f".{PLAN}.*.tmp") for p in root.iterdir())
        )
        if others:
            raise UserError(f"{str(root)!r} is not an empty directory; give a new one or remove it")
    elif recorded != plan:
        differences = [f"{key} {recorded.get(key)}, not {plan[key]}" for key in plan if recorded.get(key) != plan[key]]
        raise UserError(f"{str(root)!r} was begun with {'; '.join(differences)}; give the same or another directory")


def _is_whole(root: Path) -> bool:
    return (root / "labels" / "samples.parquet").is_file()


def builtin_root(cache_dir: Path, size: str) -> Path:
    """Where the built-in set of this size is, once it has been generated."""
    return cache_dir / f"builtin-{VERSION}-{size}"


def builtin_clips(size: str) -> int:
    """How many clips it has."""
    return DATASET_SIZES[size] or FULL_CLIPS


def builtin_dataset(cache_dir: Path, size: str) -> Path:
    """The root of the built-in set of this size, generated on first use and by one process only.

    Raises:
        UserError: no such size.
    """
    if size not in DATASET_SIZES:
        raise UserError(f"dataset {size!r} is unknown; choose one of: {', '.join(DATASET_SIZES)}")
    root = builtin_root(cache_dir, size)
    partial = cache_dir / f"{root.name}.partial"
    if root.is_dir():
        return root
    cache_dir.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache_dir / f"{root.name}.lock"):
        if not root.is_dir():  # another process may have made it while this one waited
            clips = builtin_clips(size)
            if partial.exists() and _recorded(partial) != _plan(clips, 0, ()):  # of no use any more
                shutil.rmtree(partial)
            generate(partial, clips, seed=0)
            partial.replace(root)
    return root


def _made(jobs: Iterator[tuple[Clip, Path]], workers: int) -> Iterator[tuple[Clip, Performance]]:
    """Each clip and its performance, in order, a few chunks ahead of who takes them."""
    if workers == 1:
        yield from ((job[0], make_clip(job)) for job in jobs)
        return
    # A forked child would inherit the threads' locks of whatever is loaded here (torch, Ray).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent)
    ahead: deque[tuple[list, Future[list[Performance]]]] = deque()
    try:
        while True:
            while len(ahead) < _AHEAD * workers and (chunk := list(itertools.islice(jobs, _CHUNK))):
                ahead.append((chunk, pool.submit(_make_chunk, chunk)))
            if not ahead:
                return
            chunk, made = ahead.popleft()
            yield from zip((clip for clip, _ in chunk), made.result(), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _make_chunk(jobs: list[tuple[Clip, Path]]) -> list[Performance]:
    return [make_clip(job) for job in jobs]


def follow_parent() -> None:
    """End with the parent however it ends, and leave Ctrl-C to it: a pool's workers would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
