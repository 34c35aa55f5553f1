"""The label tables of the built-in set, with SOUSA's columns, in row groups of CLIPS_PER_GROUP clips.

Clips are discarded when their group is written, so memory does not grow with the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
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
    return f"{clip.player.profile_id}_{clip.slug}_{clip.tempo_bpm}bpm_{clip.kit.name}_{room}_{clip.index:06d}"


def audio_path(clip: Clip) -> str:
    return f"audio/{clip.slug}/{sample_id(clip)}.flac"


class Tables:
    """Writer of samples.parquet and strokes.parquet, which are renamed from temporary files in `close`."""

    def __init__(self, labels: Path) -> None:
        remove_temporary_files(labels)  # of a killed run
        self._labels = labels
        # The first file to be opened is the last to be renamed.
        self._tables: dict[str, Callable] = {"samples": _samples_table, "strokes": _strokes_table}
        self._files = ExitStack()
        self._writers: dict[str, pyarrow.parquet.ParquetWriter] = {}
        self._pending: list[tuple[Clip, Performance]] = []

    def add(self, clip: Clip, performance: Performance) -> None:
        self._pending.append((clip, performance))
        if len(self._pending) == CLIPS_PER_GROUP:
            self._write()

    def close(self) -> None:
        """Write the remaining clips and rename the files, samples.parquet last: it marks a complete set."""
        if self._pending:
            self._write()
        for writer in self._writers.values():
            writer.close()
        self._files.close()

    def _write(self) -> None:
        clips, performances = zip(*self._pending, strict=True)
        for name, make in self._tables.items():
            table = pyarrow.Table.from_pandas(make(clips, performances), preserve_index=False)
            if name not in self._writers:
                temporary = self._files.enter_context(atomic_write(self._labels / f"{name}.parquet"))
                self._writers[name] = pyarrow.parquet.ParquetWriter(temporary, table.schema)
            self._writers[name].write_table(table)
        self._pending = []


def _samples_table(clips: Sequence[Clip], performances: Sequence[Performance]) -> pd.DataFrame:
    """Return SOUSA's samples.parquet, one row per clip."""
    rows = []
    for clip, performance in zip(clips, performances, strict=True):
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
                "skill_tier_binary": "novice" if tier in ("beginner", "intermediate") else "skilled",
                "dominant_hand": {"R": "right", "L": "left"}[clip.player.dominant],
                "midi_path": None,
                "audio_path": audio_path(clip),
                "num_strokes": len(performance.columns["hand"]),
                "num_measures": performance.cycles,
                "soundfont": f"{clip.kit.font}_{clip.kit.name}",
                "augmentation_preset": room.name,
                "augmentation_group_id": f"{clip.player.profile_id}_{clip.slug}_{clip.index:06d}",
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


def splits_table(players: Sequence[Player]) -> dict:
    """Return SOUSA's splits.json for these players."""
    splits = {split: [p for p in players if p.split == split] for split in SPLIT_PLAYERS}
    stats: dict = {"total_profiles": len(players)}
    stats |= {f"{split}_profiles": len(own) for split, own in splits.items()}
    stats |= {f"{split}_skill_distribution": Counter(p.tier for p in own) for split, own in splits.items()}
    lists = {f"{split}_profile_ids": sorted(p.profile_id for p in own) for split, own in splits.items()}
    return {**lists, "stats": stats}
