"""The built-in data set: SOUSA's layout, made on the spot for a machine without data.

    plan_clips -> players.perform -> render.make_clip (in worker processes) -> labels, splits.json

It shows that the tool works and lets it be tested; what is measured on it says nothing about real recordings. It has
no MIDI files and no exercise or measure scores, which nothing here reads. Equal seeds give equal bytes, whatever the
number of workers: every clip draws from a generator of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from sousaphone.config import DATASET_SIZES
from sousaphone.data.players import (
    DURATION_SECONDS,
    SPLIT_PLAYERS,
    Clip,
    Performance,
    Player,
    draw_tempo,
    make_players,
)
from sousaphone.data.render import KITS, ROOMS, SAMPLE_RATE, SOUNDFONT, make_clip
from sousaphone.errors import UserError
from sousaphone.rudiments import RUDIMENTS, SLUGS

VERSION = 1  # raise it whenever the same seed would give other bytes
FULL_CLIPS = 100_000
MIN_CLIPS = 10  # below that a split would be empty

_SKILL = {"novice": ("beginner", "intermediate"), "skilled": ("advanced", "professional")}


def plan_clips(clips: int, seed: int) -> list[Clip]:
    """What each clip will be, without playing any: 80/10/10 by player, rudiments and players evenly within a split.

    Raises:
        UserError: too few clips for three splits, or a negative seed.
    """
    if clips < MIN_CLIPS:
        raise UserError(f"clips={clips} is too few for three splits; give {MIN_CLIPS} or more")
    if seed < 0:
        raise UserError(f"seed={seed} is negative; give 0 or more")
    held_out = round(clips / 10)
    quotas = {"train": clips - 2 * held_out, "val": held_out, "test": held_out}
    players = make_players(seed)
    plan: list[Clip] = []
    for number, split in enumerate(SPLIT_PLAYERS):
        rng = np.random.default_rng((seed, 1, number))
        own = [player for player in players if player.split == split]
        pairs = zip(_in_turn(SLUGS, quotas[split], rng), _in_turn(own, quotas[split], rng), strict=True)
        plan += [_draw_clip(len(plan) + place, seed, player, slug) for place, (slug, player) in enumerate(pairs)]
    return plan


def _in_turn(items: Iterable, count: int, rng: np.random.Generator) -> list:
    """`count` items: each once, in random order, then each once more, and so on."""
    pool = list(items)
    return [pool[i] for _ in range(-(-count // len(pool))) for i in rng.permutation(len(pool))][:count]


def _draw_clip(index: int, seed: int, player: Player, slug: str) -> Clip:
    rng = np.random.default_rng((seed, 2, index))
    tempo, stretch = draw_tempo(RUDIMENTS[slug], rng)
    return Clip(
        index=index,
        seed=(seed, 2, index),
        player=player,
        slug=slug,
        tempo_bpm=tempo,
        stretch=stretch,
        phase=float(rng.random()),
        duration=float(rng.uniform(*DURATION_SECONDS)),
        kit=int(rng.choice(list(KITS))),
        room=int(rng.integers(len(ROOMS))),
        tuning_cents=float(rng.uniform(-200, 200)),
    )


def sample_id(clip: Clip) -> str:
    room = ROOMS[clip.room].name.replace("_", "")
    return f"{clip.player.profile_id}_{clip.slug}_{clip.tempo_bpm}bpm_{KITS[clip.kit]}_{room}_{clip.index:06d}"


def audio_path(clip: Clip) -> str:
    return f"audio/{clip.slug}/{sample_id(clip)}.flac"


def generate(root: Path, clips: int, seed: int, workers: int | None = None, progress: bool = True) -> None:
    """Write a SOUSA directory of `clips` clips at `root`; its labels come last, so that half a set is never read.

    Args:
        workers: processes, by default one for each available CPU core. The result does not depend on it.
        progress: a bar on a terminal, elsewhere one line at the start and one at the end.

    Raises:
        UserError: `root` has files already, or clips, seed or workers are out of range.
    """
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers={workers} is below its limit; give 1 or more")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{str(root)!r} is not an empty directory; give a new one or remove it")
    plan = plan_clips(clips, seed)
    for slug in SLUGS:
        (root / "audio" / slug).mkdir(parents=True, exist_ok=True)
    jobs = [(clip, root / audio_path(clip)) for clip in plan]
    performances = list(_watched(_made(jobs, workers), len(jobs), progress))

    labels = root / "labels"
    labels.mkdir()
    _strokes_table(plan, performances).to_parquet(labels / "strokes.parquet", index=False)
    (root / "splits.json").write_text(json.dumps(_splits(plan), indent=2) + "\n")
    partial = labels / "samples.parquet.partial"
    _samples_table(plan, performances).to_parquet(partial, index=False)
    partial.replace(labels / "samples.parquet")


def builtin_dataset(cache_dir: Path, size: str, progress: bool = True) -> Path:
    """The root of the built-in set of this size, generated on first use and by one process only.

    Raises:
        UserError: no such size.
    """
    if size not in DATASET_SIZES:
        raise UserError(f"dataset {size!r} is unknown; choose one of: {', '.join(DATASET_SIZES)}")
    name = f"builtin-{VERSION}-{size}"
    root, partial = cache_dir / name, cache_dir / f"{name}.partial"
    if root.is_dir():
        return root
    cache_dir.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache_dir / f"{name}.lock"):
        if not root.is_dir():  # another process may have made it while this one waited
            if partial.exists():  # left by one that was killed: the lock is ours, so nobody writes there
                shutil.rmtree(partial)
            generate(partial, DATASET_SIZES[size] or FULL_CLIPS, seed=0, progress=progress)
            partial.replace(root)
    return root


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(jobs: list[tuple[Clip, Path]], workers: int) -> Iterator[Performance]:
    if workers == 1:
        yield from map(make_clip, jobs)
        return
    # A forked child would inherit the threads' locks of whatever is loaded here (torch, Ray).
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make_clip, jobs, chunksize=8)


def _watched(performances: Iterator[Performance], total: int, progress: bool) -> Iterator[Performance]:
    console = Console(stderr=True)
    if progress and console.is_terminal:
        yield from track(performances, f"Generating {total:,} clips", total=total, console=console)
        return
    if progress:
        console.print(f"Generating {total:,} clips of the built-in set, once", highlight=False)
    yield from performances
    if progress:
        console.print(f"Generated {total:,} clips", highlight=False)


def _samples_table(plan: list[Clip], performances: list[Performance]) -> pd.DataFrame:
    """SOUSA's samples.parquet, one row a clip."""
    rows = []
    for clip, performance in zip(plan, performances, strict=True):
        room, tier = ROOMS[clip.room], clip.player.tier
        rows.append(
            {
                "sample_id": sample_id(clip),
                "profile_id": clip.player.profile_id,
                "rudiment_slug": clip.slug,
                "tempo_bpm": clip.tempo_bpm,
                "duration_sec": round(clip.duration * SAMPLE_RATE) / SAMPLE_RATE,
                "num_cycles": performance.cycles,
                "skill_tier": tier,
                "skill_tier_binary": next(name for name, tiers in _SKILL.items() if tier in tiers),
                "dominant_hand": {"R": "right", "L": "left"}[clip.player.dominant],
                "midi_path": None,
                "audio_path": audio_path(clip),
                "num_strokes": len(performance.columns["hand"]),
                "num_measures": performance.cycles,
                "soundfont": f"{SOUNDFONT}_{KITS[clip.kit]}",
                "augmentation_preset": room.name,
                "augmentation_group_id": f"{clip.player.profile_id}_{clip.slug}_{clip.index:06d}",
                "aug_soundfont": f"{SOUNDFONT}_{KITS[clip.kit]}",
                "aug_room_type": room.kind,
                "aug_room_wet_dry": room.wet,
                "aug_mic_distance": room.distance_m,
                "aug_mic_type": room.mic,
                "aug_compression_ratio": room.ratio if room.ratio > 1 else None,
                "aug_noise_level_db": float(room.noise_db),
                "aug_bit_depth": None,
                "aug_sample_rate": None,
            }
        )
    return pd.DataFrame(rows).astype({"midi_path": "str", "aug_compression_ratio": "float64"})


def _strokes_table(plan: list[Clip], performances: list[Performance]) -> pd.DataFrame:
    """SOUSA's strokes.parquet, one row a stroke: times in ms from the clip's first sample, MIDI velocities."""
    counts = [len(performance.columns["hand"]) for performance in performances]
    columns = {name: [v for p in performances for v in p.columns[name]] for name in performances[0].columns}
    table = pd.DataFrame({"index": np.concatenate([np.arange(count) for count in counts]), **columns})
    table.insert(5, "timing_error_ms", table["actual_time_ms"] - table["intended_time_ms"])
    table.insert(8, "velocity_error", table["actual_velocity"] - table["intended_velocity"])
    table["sample_id"] = np.repeat([sample_id(clip) for clip in plan], counts)
    numbers = ["diddle_position", "flam_spacing_ms", "parent_stroke_index", "buzz_count"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _splits(plan: list[Clip]) -> dict:
    """SOUSA's splits.json: the players of each split, those with clips only."""
    players = {clip.player.profile_id: clip.player for clip in plan}
    splits = {split: [p for p in players.values() if p.split == split] for split in SPLIT_PLAYERS}
    stats: dict = {"total_profiles": len(players)}
    stats |= {f"{split}_profiles": len(own) for split, own in splits.items()}
    stats |= {f"{split}_skill_distribution": Counter(p.tier for p in own) for split, own in splits.items()}
    return {
        **{f"{split}_profile_ids": sorted(p.profile_id for p in own) for split, own in splits.items()},
        "stats": stats,
    }
