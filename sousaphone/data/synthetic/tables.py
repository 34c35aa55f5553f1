"""The label tables of the built-in set, with SOUSA's columns, in row groups of CLIPS_PER_GROUP clips.

Clips are discarded when their group is written, so memory does not grow with the set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from sousaphone.data.synthetic.players import SPLIT_PLAYERS, Clip, Performance, Player
from sousaphone.data.synthetic.render import ROOMS, SAMPLE_RATE
from sousaphone.files import atomic_write, remove_temporary_files

CLIPS_PER_GROUP = 1000


def sample_id(clip: Clip) -> str:
    room = ROOMS[clip.room].name.replace("_", "")
    return f"{clip.player.profile_id}_{clip.rudiment.slug}_{clip.tempo_bpm}bpm_{clip.kit.name}_{room}_{clip.index:06d}"


def audio_path(clip: Clip) -> str:
    return f"audio/{clip.rudiment.slug}/{sample_id(clip)}.flac"


def write_tables(root: Path, performed: Iterator[tuple[Clip, Performance]]) -> None:
    """Write strokes.parquet, splits.json and, last, samples.parquet: it marks a complete set."""
    remove_temporary_files(root / "labels")  # of a killed run
    players: dict[Player, None] = {}  # in the order of the clips
    writers: dict[str, pyarrow.parquet.ParquetWriter] = {}
    with ExitStack() as files:
        while group := list(islice(performed, CLIPS_PER_GROUP)):
            clips, performances = zip(*group, strict=True)
            players |= dict.fromkeys(clip.player for clip in clips)
            # The first file to be opened is the last to be closed and renamed.
            for name, make in (("samples", _samples_table), ("strokes", _strokes_table)):
                table = pyarrow.Table.from_pandas(make(clips, performances), preserve_index=False)
                if name not in writers:
                    temporary = files.enter_context(atomic_write(root / "labels" / f"{name}.parquet"))
                    writers[name] = files.enter_context(pyarrow.parquet.ParquetWriter(temporary, table.schema))
                writers[name].write_table(table)
        remove_temporary_files(root / "audio")
        splits = json.dumps(_splits_table(list(players)), indent=2)
        (root / "splits.json").write_text(splits + "\n", encoding="utf-8")


def _samples_table(clips: Sequence[Clip], performances: Sequence[Performance]) -> pd.DataFrame:
    """Return SOUSA's samples.parquet, one row per clip."""
    rows = []
    for clip, performance in zip(clips, performances, strict=True):
        room, tier = ROOMS[clip.room], clip.player.tier
        rows.append(
            {
                "sample_id": sample_id(clip),
                "profile_id": clip.player.profile_id,
                "rudiment_slug": clip.rudiment.slug,
                "tempo_bpm": clip.tempo_bpm,
                "duration_sec": round(clip.duration * SAMPLE_RATE) / SAMPLE_RATE,
                "num_cycles": performance.cycles,
                "skill_tier": tier,
                "skill_tier_binary": "novice" if tier in ("beginner", "intermediate") else "skilled",
                "dominant_hand": {"R": "right", "L": "left"}[clip.player.dominant],
                "midi_path": None,
                "audio_path": audio_path(clip),
                "num_strokes": len(performance.columns["hand"]),
                "num_measures": performance.cycles,
                "soundfont": f"{clip.kit.font}_{clip.kit.name}",
                "augmentation_preset": room.name,
                "augmentation_group_id": f"{clip.player.profile_id}_{clip.rudiment.slug}_{clip.index:06d}",
                "aug_soundfont": f"{clip.kit.font}_{clip.kit.name}",
                "aug_room_type": room.kind,
                "aug_room_wet_dry": room.wet,
                "aug_mic_distance": room.distance_m,
                "aug_mic_type": room.mic,
                "aug_compression_ratio": room.ratio if room.ratio > 1 else None,
                "aug_noise_level_db": room.noise_db,
                "aug_bit_depth": None,
                "aug_sample_rate": None,
            }
        )
    numbers = ["aug_compression_ratio", "aug_noise_level_db"]
    return pd.DataFrame(rows).astype({"midi_path": "str", **dict.fromkeys(numbers, "float64")})


def _strokes_table(clips: Sequence[Clip], performances: Sequence[Performance]) -> pd.DataFrame:
    """Return SOUSA's strokes.parquet, one row per stroke: ms from the clip's first sample, MIDI velocities."""
    counts = [len(performance.columns["hand"]) for performance in performances]
    columns = {name: [v for p in performances for v in p.columns[name]] for name in performances[0].columns}
    table = pd.DataFrame({"index": np.concatenate([np.arange(count) for count in counts]), **columns})
    table.insert(5, "timing_error_ms", table["actual_time_ms"] - table["intended_time_ms"])
    table.insert(8, "velocity_error", table["actual_velocity"] - table["intended_velocity"])
    table["sample_id"] = np.repeat([sample_id(clip) for clip in clips], counts)
    numbers = ["diddle_position", "flam_spacing_ms", "parent_stroke_index", "buzz_count"]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _splits_table(players: Sequence[Player]) -> dict:
    """Return SOUSA's splits.json for these players."""
    splits = {split: [p for p in players if p.split == split] for split in SPLIT_PLAYERS}
    lists = {f"{split}_profile_ids": sorted(p.profile_id for p in own) for split, own in splits.items()}
    stats: dict = {f"{split}_profiles": len(own) for split, own in splits.items()}
    stats |= {f"{split}_skill_distribution": Counter(p.tier for p in own) for split, own in splits.items()}
    return {**lists, "stats": {"total_profiles": len(players), **stats}}
