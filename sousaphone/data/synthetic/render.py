"""Strokes to sound: a SoundFont's snare drums, two hands that differ, a room and a microphone, a FLAC file.

Each hand has a voice of its own, tuned and coloured as its player's hand: without that, rudiments which differ only in
sticking would sound the same. A kit gives one stroke; loudness and brightness follow velocity here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pedalboard
import soundfile

from sousaphone.data.synthetic.players import Clip, Performance, Task, perform
from sousaphone.data.synthetic.soundfonts import SAMPLE_RATE, snare
from sousaphone.files import atomic_write

# A recording's noise lies so much below its peak, in dB, beyond what SOUSA's label says (measured on its clips); where
# the label says nothing, NO_NOISE_DB below it.
NOISE_OFFSET_DB = 18
NO_NOISE_DB = 84


@dataclass(frozen=True)
class Room:
    """A room and its microphone: reverb (0 to 1), equaliser in Hz and dB, compression ratio, noise in dB.

    Names, kinds, wet shares, microphones, ratios and noise are those of SOUSA's presets.
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
    """What one hand sounds like on one drum: its hardest stroke and a dull version of it, both float [T]."""

    bright: np.ndarray
    dull: np.ndarray

    def stroke(self, velocity: int) -> np.ndarray:
        """A stroke of this MIDI velocity: 40 dB a decade, the SoundFont standard's curve; softer is duller."""
        force = velocity / 127
        return force**2 * (force * self.bright + (1 - force) * self.dull)


def make_voice(drum: np.ndarray, cents: float, shelf_db: float) -> Voice:
    """A drum's stroke [T] tuned by `cents` and with its treble turned by `shelf_db`, at unit energy."""
    places = np.arange(0, len(drum), 2 ** (cents / 1200))  # read faster, a recording sounds higher
    tuned = np.interp(places, np.arange(len(drum)), drum).astype(np.float32)
    coloured = pedalboard.HighShelfFilter(2500, shelf_db, 0.7)(tuned, SAMPLE_RATE)
    bright = coloured / np.sqrt(np.sum(coloured**2))
    return Voice(bright, pedalboard.LowpassFilter(1500)(bright, SAMPLE_RATE))


def render_hand(voice: Voice, times_ms: list[float], velocities: list[int], seconds: float) -> np.ndarray:
    """One hand's strokes as audio, float [T]."""
    wave = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    for time, velocity in zip(times_ms, velocities, strict=True):
        start = round(time / 1000 * SAMPLE_RATE)
        room = wave[start : start + len(voice.bright)]
        room += voice.stroke(velocity)[: len(room)]
    return wave


def render(clip: Clip, performance: Performance) -> np.ndarray:
    """The clip as recorded in its room: int16 [T] at 44.1 kHz."""
    return record(clip, performance, snare(clip.kit), ROOMS[clip.room])


def record(task: Task, performance: Performance, drum: np.ndarray, room: Room) -> np.ndarray:
    """A performance on a drum, given by one stroke [T], in a room: int16 [T] at 44.1 kHz."""
    player = task.player
    rng = np.random.default_rng((*task.seed, 2))
    strokes = performance.columns
    mix = np.zeros(round(task.duration * SAMPLE_RATE), np.float32)
    for hand in ("R", "L"):
        mine = [i for i, which in enumerate(strokes["hand"]) if which == hand]
        weak = hand != player.dominant
        voice = make_voice(drum, task.tuning_cents + player.weak_cents * weak, player.weak_shelf_db * weak)
        times = [strokes["actual_time_ms"][i] for i in mine]
        mix += render_hand(voice, times, [strokes["actual_velocity"][i] for i in mine], task.duration)
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
    noise_db = -NO_NOISE_DB if room.noise_db is None else room.noise_db - NOISE_OFFSET_DB
    mix += 10 ** (noise_db / 20) * rng.standard_normal(len(mix), np.float32)
    peak = 10 ** (rng.uniform(-12, -1) / 20)
    return np.round(mix * (peak / np.abs(mix).max()) * 32767).astype(np.int16)


def make_clip(job: tuple[Clip, Path]) -> Performance:
    """Play, render and write one clip, unless it is there, and return its strokes. A worker's whole task.

    A file gets its name when it is whole. What has the name is opened all the same: after a power cut it may be empty.
    """
    clip, path = job
    performance = perform(clip)
    if _is_whole(path, round(clip.duration * SAMPLE_RATE)):
        return performance
    audio = render(clip, performance)
    # 24 bits as in SOUSA, of which the upper 16 are used: FLAC then stores 16, and the set is a third smaller.
    encoded = io.BytesIO()  # libsndfile does not say that a disk is full
    soundfile.write(
        encoded, audio.astype(np.int32) << 16, SAMPLE_RATE, format="FLAC", subtype="PCM_24", compression_level=0.2
    )
    with atomic_write(path, durable=False) as temporary:
        temporary.write_bytes(encoded.getbuffer())
    return performance


def _is_whole(path: Path, frames: int) -> bool:
    try:
        return soundfile.info(path).frames == frames
    except soundfile.SoundFileError:
        return False
