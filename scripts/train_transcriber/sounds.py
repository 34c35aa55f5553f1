"""Drums, rooms and microphones of the training clips, rendered at 16 kHz."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal

from scripts.pretrain_nano.sounds import other_drums, synthesise
from scripts.train_transcriber.sequences import Sequence
from sousaphone.data.synthetic.render import make_voice
from sousaphone.data.synthetic.soundfonts import SAMPLE_RATE, builtin_kits, snare

RATE = 16_000  # Hz
HELD_OUT_KITS = ("power", "orchestra")


@dataclass(frozen=True)
class Room:
    """A room of SOUSA's kind: the wet part, and the delays and decay of its impulse response.

    The impulse response is the direct sound, six reflections from `pre_ms` until `early_ms` later, and from there on
    noise that decays by 60 dB in `decay` seconds.
    """

    wet: float
    pre_ms: float
    early_ms: float
    decay: float


# The rooms that SOUSA's generator names. As published, it uses the delays and the decay of "any" in all of them.
ROOMS = {
    "clean_close": Room(0, 1, 5, 0.25),
    "clean_studio": Room(0.2, 5, 15, 0.5),
    "practice_room": Room(0.15, 2, 8, 0.3),
    "concert_hall": Room(0.4, 20, 40, 2.0),
    "gym": Room(0.35, 15, 50, 1.5),
    "garage": Room(0.3, 8, 25, 0.8),
    "phone_recording": Room(0.15, 1, 5, 0.25),
    "marching_field": Room(0.05, 0, 100, 0.1),
    "any": Room(0.25, 10, 20, 0.5),
}
ANY_WET = (0.05, 0.4)  # of the published presets
HELD_OUT_ROOMS = ("practice_room", "any")
HELD_OUT_FACTOR = 1.3  # training rooms differ by more than this in the reflections' or in the decay's length


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room that is not one of the kinds held out."""
    while True:
        early, decay = np.exp(rng.uniform(np.log(4), np.log(110))), np.exp(rng.uniform(np.log(0.1), np.log(1.8)))
        room = Room(rng.uniform(0.0, 0.45), rng.uniform(0, 25), float(early), float(decay))
        ratios = [(early / ROOMS[name].early_ms, decay / ROOMS[name].decay) for name in HELD_OUT_ROOMS]
        if all(np.abs(np.log(ratio)).max() > np.log(HELD_OUT_FACTOR) for ratio in ratios):
            return room


def similar_room(name: str, rng: np.random.Generator) -> Room:
    """Draw a room of the kind of a preset: its parameters vary by up to 10 %."""
    room = ROOMS[name]
    a, b, c, d = rng.uniform(0.9, 1.1, 4)
    wet = rng.uniform(*ANY_WET) if name == "any" else room.wet * a
    return Room(wet, room.pre_ms * b, room.early_ms * c, room.decay * d)


def impulse_response(room: Room, rng: np.random.Generator) -> np.ndarray:
    """Return the dry and wet impulse response, float [T] at 16 kHz."""
    length = round((room.pre_ms + room.early_ms) / 1000 * RATE) + round(1.2 * room.decay * RATE) + 1
    wet = np.zeros(length)
    pre, early = round(room.pre_ms / 1000 * RATE), room.early_ms / 1000 * RATE
    wet[pre * int(rng.random() < 0.3)] = 0.8  # earlier versions of the generator delay the direct sound as well
    for i in range(6):
        place = min(pre + int((i + 1) * early / 6), length - 1)
        wet[place] += 0.5 * (1 - i / 6) * rng.uniform(0.8, 1) * rng.choice([-1, 1])
    start = min(pre + int(early), length - 1)
    time = np.arange(start, length) / RATE
    # At SOUSA's 44.1 kHz the noise has a standard deviation of 0.3; here it has the same spectrum.
    decay = np.exp(-6.91 / room.decay * time)
    wet[start:] += 0.3 * np.sqrt(44_100 / RATE) * rng.standard_normal(length - start) * decay
    # The peak of SOUSA's response, low-passed at 8 kHz, is 1: impulses keep about a third of their height there.
    noise = np.abs(wet[start:] * np.sqrt(RATE / 44_100) * 0.55).max()
    response = room.wet * wet / max(0.27, noise)
    response[0] += 1 - room.wet
    return response


@functools.cache
def kit_drums(held_out: bool) -> tuple[np.ndarray, ...]:
    """Return one stroke of each snare at 44.1 kHz, either of the kits held out of training or of the others."""
    return tuple(snare(kit) for kit in builtin_kits() if (kit.name in HELD_OUT_KITS) == held_out)


def draw_drum(rng: np.random.Generator) -> np.ndarray:
    """Draw a training drum: a snare, other percussion of the SoundFont, or a synthesised one."""
    kind = rng.random()
    if kind < 0.4:
        drums = kit_drums(held_out=False)
        return drums[rng.integers(len(drums))]
    if kind < 0.5:
        return other_drums()[rng.integers(len(other_drums()))]
    if kind < 0.75:
        return synthesise(rng)
    return _snare(rng)


def dry(sequence: Sequence, drum: np.ndarray, rng: np.random.Generator, duration: float) -> np.ndarray:
    """Return the strokes on a drum (one stroke at 44.1 kHz), without a room: float32 [T] at 16 kHz."""
    mix = np.zeros(round(duration * RATE), np.float32)
    cents, shelf = rng.uniform(-400, 400), rng.uniform(-6, 6)
    differs = rng.uniform(0, 120) * (rng.random() < 0.6)
    for hand in (0, 1):
        voice = make_voice(drum, cents + differs * hand, shelf + 3 * (differs > 0) * hand)
        bright, dull = (
            scipy.signal.resample_poly(each, 160, 441).astype(np.float32) for each in (voice.bright, voice.dull)
        )
        own = sequence.hands == hand
        for time, velocity in zip(sequence.times[own], sequence.velocities[own], strict=True):
            force, start = velocity / 127, round(time * RATE)
            window = mix[start : start + len(bright)]
            window += (force**2 * (force * bright + (1 - force) * dull))[: len(window)]
    return mix


def record(mix: np.ndarray, response: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Convolve [T] with a room's response; add a microphone, its noise and a compressor; peak between -12 and -1 dB."""
    size = scipy.fft.next_fast_len(len(mix) + len(response), real=True)
    spectrum = scipy.fft.rfft(mix, size) * scipy.fft.rfft(response.astype(np.float32), size)
    hertz = np.linspace(1, RATE / 2, len(spectrum))
    places = np.log([30, 100, 300, 1000, 3000, 6000, 8000])
    gain = np.interp(np.log(hertz), places, rng.uniform(-4, 4, len(places)))
    if rng.random() < 0.4:
        gain -= 20 * np.log10(1 + (hertz / rng.uniform(2000, 8000)) ** rng.choice([1, 2, 4]))
    if rng.random() < 0.4:
        gain -= 20 * np.log10(1 + (rng.uniform(40, 300) / hertz) ** 2)
    wave = scipy.fft.irfft(spectrum * 10 ** (gain / 20), size)[: len(mix)].astype(np.float32)
    peak = float(np.abs(wave).max()) or 1.0
    wave /= peak
    if rng.random() < 0.4:  # a compressor or saturation
        drive = rng.uniform(0.5, 4)
        wave = np.tanh(drive * wave) / np.tanh(drive)
    noise = rng.standard_normal(len(wave), np.float32)
    tilt = rng.uniform(0, 1)
    noise = scipy.signal.lfilter([1 - tilt * 0.95], [1, -tilt * 0.95], noise).astype(np.float32)
    level = np.sqrt(np.mean(wave**2)) * 10 ** (rng.uniform(-70, -15) / 20)
    wave += level * noise / max(float(noise.std()), 1e-6)
    return (wave * (10 ** (rng.uniform(-12, -1) / 20) / np.abs(wave).max())).astype(np.float32)


def _snare(rng: np.random.Generator) -> np.ndarray:
    """A snare drum at 44.1 kHz: a click, two partials of the head, and wires whose noise rises and decays slowly."""
    time = np.arange(round(0.6 * SAMPLE_RATE)) / SAMPLE_RATE
    wires = rng.standard_normal(len(time))
    low, high = rng.uniform(200, 1500), rng.uniform(3000, 14_000)
    wires = scipy.signal.sosfilt(scipy.signal.butter(2, (low, high), "bandpass", fs=SAMPLE_RATE, output="sos"), wires)
    fast, slow = rng.uniform(0.004, 0.03), rng.uniform(0.03, 0.14)
    mixed = rng.uniform(0.1, 1)
    envelope = (1 - mixed) * np.exp(-time / fast) + mixed * np.exp(-time / slow)
    envelope *= 1 - np.exp(-time / rng.uniform(0.0003, 0.004))
    wave = wires / wires.std() * envelope
    for _ in range(2):
        partial, decay = np.exp(rng.uniform(np.log(130), np.log(600))), rng.uniform(0.02, 0.12)
        wave += rng.uniform(0, 2) * np.sin(2 * np.pi * partial * time) * np.exp(-time / decay)
    wave += rng.uniform(0, 3) * rng.standard_normal(len(time)) * np.exp(-time / rng.uniform(0.0005, 0.003))
    length = np.flatnonzero(np.abs(wave) > 1e-3 * np.abs(wave).max())[-1] + 1
    wave = wave[:length] * np.minimum(1, np.arange(length, 0, -1) / 500)
    return (wave / np.sqrt(np.sum(wave**2))).astype(np.float32)
