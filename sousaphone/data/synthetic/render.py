"""Rendering of strokes: a snare drum of a SoundFont, two different hands, a room and a microphone, a FLAC file.

Each hand has its own tuning and brightness; otherwise rudiments that differ only in sticking would sound the same. A
kit gives a single stroke, whose loudness and brightness then follow the velocity.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pedalboard
import soundfile

from sousaphone.data.synthetic.players import Clip, Performance, Task, perform
from sousaphone.data.synthetic.soundfonts import SAMPLE_RATE, snare
from sousaphone.files import atomic_write

# The noise re the peak is SOUSA's label minus an offset (measured on its clips), in dB; without a label, -_NO_NOISE_DB.
_NOISE_OFFSET_DB, _NO_NOISE_DB = 18, 84


@dataclass(frozen=True)
class Room:
    """A room and its microphone: reverb (0 to 1), equaliser in Hz and dB, compression ratio, noise in dB.

    Names, kinds, wet levels, microphones, ratios and noise are those of SOUSA's presets.
    """

    name: str
    kind: str
    size: float
    damping: float
    wet: float
    mic: str
    distance_m: float
    low_cut_hz: float
    presence_db: float
    air_db: float
    ratio: float
    noise_db: float | None


ROOMS = (
    Room("clean_studio", "studio", 0.15, 0.7, 0.2, "condenser", 0.4, 60, 1.5, 1.5, 2.0, None),
    Room("practice_room", "practice_room", 0.25, 0.6, 0.15, "dynamic", 0.5, 90, 2.5, -2.0, 2.0, -45),
    Room("garage", "garage", 0.4, 0.3, 0.3, "dynamic", 0.8, 110, -2.0, -3.0, 2.5, -35),
    Room("concert_hall", "concert_hall", 0.75, 0.5, 0.4, "condenser", 3.0, 50, 0.0, -1.0, 1.0, None),
    Room("gym", "gym", 0.55, 0.35, 0.35, "dynamic", 2.0, 120, -1.0, 2.0, 2.5, -40),
    Room("marching_field", "outdoor", 0.05, 0.9, 0.05, "dynamic", 5.0, 150, 0.5, -4.0, 1.0, -35),
)


@dataclass(frozen=True)
class Voice:
    """The sound of one hand on one drum: its hardest stroke and a dull version of it, both float [T]."""

    bright: np.ndarray
    dull: np.ndarray

    def stroke(self, velocity: int) -> np.ndarray:
        """Return a stroke of a MIDI velocity: 40 dB per decade as in the SoundFont standard; softer is duller."""
        force = velocity / 127
        return force**2 * (force * self.bright + (1 - force) * self.dull)


def make_voice(drum: np.ndarray, cents: float, shelf_db: float) -> Voice:
    """Tune a drum's stroke [T] by `cents` and shift its treble by `shelf_db`, at unit energy."""
    positions = np.arange(0, len(drum), 2 ** (cents / 1200))
    tuned = np.interp(positions, np.arange(len(drum)), drum).astype(np.float32)
    coloured = pedalboard.HighShelfFilter(2500, shelf_db, 0.7)(tuned, SAMPLE_RATE)
    bright = coloured / np.sqrt(np.sum(coloured**2))
    return Voice(bright, pedalboard.LowpassFilter(1500)(bright, SAMPLE_RATE))


def render(clip: Clip, performance: Performance) -> np.ndarray:
    """Render a clip: int16 [T] at 44.1 kHz."""
    return record(clip, performance, snare(clip.kit), ROOMS[clip.room])


def record(task: Task, performance: Performance, drum: np.ndarray, room: Room) -> np.ndarray:
    """Render a performance on a drum, given by one stroke [T], in a room: int16 [T] at 44.1 kHz."""
    player = task.player
    rng = np.random.default_rng((*task.seed, 2))
    strokes = performance.columns
    mix = np.zeros(round(task.duration * SAMPLE_RATE), np.float32)
    for hand in ("R", "L"):
        weak = hand != player.dominant
        voice = make_voice(drum, task.tuning_cents + player.weak_cents * weak, player.weak_shelf_db * weak)
        wave = np.zeros_like(mix)
        columns = (strokes[name] for name in ("hand", "actual_time_ms", "actual_velocity"))
        for _, time, velocity in (stroke for stroke in zip(*columns, strict=True) if stroke[0] == hand):
            start = round(time / 1000 * SAMPLE_RATE)
            window = wave[start : start + len(voice.bright)]
            window += voice.stroke(velocity)[: len(window)]
        mix += wave
    mix /= max(float(np.abs(mix).max()), 1e-6)
    chain = pedalboard.Pedalboard(
        [
            pedalboard.HighpassFilter(room.low_cut_hz),
            pedalboard.PeakFilter(3000, room.presence_db, 0.8),
            pedalboard.HighShelfFilter(8000, room.air_db, 0.7),
            pedalboard.Reverb(room.size, room.damping, room.wet, 1 - room.wet),
        ]
    )
    if room.ratio > 1:
        chain.append(pedalboard.Compressor(threshold_db=-18, ratio=room.ratio, attack_ms=5, release_ms=80))
    mix = chain(mix, SAMPLE_RATE)
    mix /= max(float(np.abs(mix).max()), 1e-6)
    noise_db = -_NO_NOISE_DB if room.noise_db is None else room.noise_db - _NOISE_OFFSET_DB
    mix += 10 ** (noise_db / 20) * rng.standard_normal(len(mix), np.float32)
    peak = 10 ** (rng.uniform(-12, -1) / 20)
    return np.round(mix * (peak / np.abs(mix).max()) * 32767).astype(np.int16)


def make_clip(job: tuple[Clip, Path]) -> Performance:
    """Play, render and write one clip unless its file exists, and return its strokes.

    A file is renamed when it is complete, but may be empty after a power cut, so an existing one is opened.
    """
    clip, path = job
    performance = perform(clip)
    with suppress(soundfile.SoundFileError):
        if soundfile.info(path).frames == round(clip.duration * SAMPLE_RATE):
            return performance
    audio = render(clip, performance)
    # 24 bits as in SOUSA, but only the upper 16 are used: FLAC then stores 16, so the set is a third smaller.
    encoded = io.BytesIO()  # libsndfile does not report a full disk
    soundfile.write(
        encoded, audio.astype(np.int32) << 16, SAMPLE_RATE, format="FLAC", subtype="PCM_24", compression_level=0.2
    )
    with atomic_write(path, durable=False) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return performance
