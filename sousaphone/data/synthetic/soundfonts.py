"""Snare drums of SoundFonts (.sf2): the kits of a file, and one stroke of each.

A kit is a preset of the drum bank; its snare is note 38 at full velocity. Implemented from the SoundFont specification
2.04: samples, tuning, envelopes, the low-pass and its sweep; not vibrato, chorus and reverb. (symusic's synthesizer
rendered five of TimGM6mb's seven snares as clicks of 5 ms.)
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pedalboard

from sousaphone.errors import UserError
from sousaphone.files import expanded

SAMPLE_RATE = 44_100  # Hz
SNARE = 38  # General MIDI: acoustic snare
DRUM_BANK = 128
STROKE_SECONDS = 1.0  # at most
HELD_SECONDS = 0.5  # from note on to note off

# Numbers of the generators (specification, section 8.1.2) and their defaults.
_BEND, _FILTER, _SWEEP, _INSTRUMENT, _KEYS, _FORCES, _KEY, _SOFTER, _SEMITONES = 7, 8, 11, 41, 43, 44, 46, 48, 51
_CENTS, _SAMPLE, _LOOP, _SCALE, _ROOT = 52, 53, 54, 56, 58
_SWEEP_ENVELOPE, _ENVELOPE = 25, 33  # the first of six each: delay, attack, hold, decay, sustain, release
_DEFAULT = {_FILTER: 13_500, _SCALE: 100, **dict.fromkeys([25, 26, 27, 28, 30, 33, 34, 35, 36, 38], -12_000)}
_FULL_RANGE = 0x7F00  # from 0 to 127
_COMPRESSED = 0x10  # a sample of an .sf3


@dataclass(frozen=True)
class Kit:
    """A drum preset with a snare: name of the SoundFont (the file's stem), name and program of the preset, file."""

    font: str
    name: str
    program: int
    path: Path


@functools.cache
def builtin_kits() -> tuple[Kit, ...]:
    """Return the kits of the SoundFont in pretty_midi."""
    return read_kits(Path(str(importlib.resources.files("pretty_midi") / "TimGM6mb.sf2")))


def all_kits(soundfonts: Sequence[Path | str]) -> tuple[tuple[Kit, ...], ...]:
    """Return the kits of the built-in SoundFont and of the given files, by SoundFont."""
    fonts = [builtin_kits()]
    for path in soundfonts:
        kits = read_kits(expanded(path).absolute())
        if any(kits[0].font == other[0].font for other in fonts):
            raise UserError(f"SoundFont {str(path)!r}: the name {kits[0].font!r} is already used; rename the file")
        fonts.append(kits)
    return tuple(fonts)


def read_kits(path: Path) -> tuple[Kit, ...]:
    """Return the drum presets of an .sf2 file with audible and distinct snares, by program."""
    kits: dict[bytes, Kit] = {}
    for program, name in sorted(_open(path).drum_presets()):
        plain = re.sub(r"[^a-z0-9]", "", name.lower()) or "kit"
        plain = f"{plain}{program}" if any(plain == kit.name for kit in kits.values()) else plain
        kit = Kit(path.stem, plain, program, path)
        try:
            wave = snare(kit)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise UserError(f"SoundFont {str(path)!r} is not supported ({error}); give another .sf2 file") from None
        if len(wave):
            kits.setdefault(hashlib.sha256(wave.tobytes()).digest(), kit)
    if not kits:
        raise UserError(
            f"SoundFont {str(path)!r} has no snare: no preset of its drum bank ({DRUM_BANK}) has a sound at note "
            f"{SNARE}; give one with a General MIDI drum kit"
        )
    return tuple(kits.values())


@functools.lru_cache(maxsize=256)
def snare(kit: Kit) -> np.ndarray:
    """Return one stroke of a kit's snare; see `strike`."""
    return strike(kit, SNARE)


def strike(kit: Kit, note: int) -> np.ndarray:
    """Return one stroke of a kit's MIDI note, float32 [T] at 44.1 kHz, of unit energy; empty if silent."""
    font = _open(kit.path)
    wave = np.zeros(round(STROKE_SECONDS * SAMPLE_RATE))
    for zone in font.zones(kit.program, note):
        sound = font.play(zone, len(wave), note)
        wave[: len(sound)] += sound
    peak = np.abs(wave).max()
    if peak < 1e-5:
        return np.zeros(0, np.float32)
    audible = np.flatnonzero(np.abs(wave) > 1e-3 * peak)
    wave = wave[audible[0] : audible[-1] + 1]
    wave = wave * np.minimum(1, np.arange(len(wave), 0, -1) / 500)  # fade out, to avoid a click
    return (wave / np.sqrt(np.sum(wave**2))).astype(np.float32)


def recordings(kit: Kit, note: int) -> frozenset[int]:
    """Return the indices of the SoundFont's samples for a kit's note."""
    return frozenset(zone[_SAMPLE] for zone in _open(kit.path).zones(kit.program, note))


@functools.lru_cache(maxsize=16)
def _open(path: Path) -> _Font:
    try:
        return _Font(path)
    except OSError as error:
        raise UserError(
            f"SoundFont {str(path)!r} cannot be read ({error.strerror or error}); give an .sf2 file"
        ) from None
    except (struct.error, KeyError, IndexError, ValueError):
        raise UserError(f"{str(path)!r} is not a SoundFont; give an .sf2 file") from None


class _Font:
    """The tables of an .sf2 file and its memory-mapped samples."""

    def __init__(self, path: Path) -> None:
        data = np.memmap(path, np.uint8, mode="r")
        if bytes(data[:4]) != b"RIFF" or bytes(data[8:12]) != b"sfbk":
            raise ValueError("not RIFF sfbk")
        chunks = dict(_chunks(data[12:]))
        smpl = chunks["smpl"]
        self.samples: np.ndarray = smpl[: len(smpl) // 2 * 2].view("<i2")

        def table(name: str, form: str) -> list[tuple]:
            return list(struct.iter_unpack(form, chunks[name].tobytes()))

        self.presets, self.instruments = table("phdr", "<20sHHHIII"), table("inst", "<20sH")
        # Of samples: name, start, end, loop start, loop end, rate, key, cents, ...
        self.headers = table("shdr", "<20sIIIIIBbHH")
        self._preset = [tag for tag, _ in table("pbag", "<HH")], table("pgen", "<HH")
        self._instrument = [tag for tag, _ in table("ibag", "<HH")], table("igen", "<HH")

    def drum_presets(self) -> list[tuple[int, str]]:
        """Return (program, name) of each."""
        own = (preset for preset in self.presets[:-1] if preset[2] == DRUM_BANK)
        return [(program, name.split(b"\0")[0].decode("latin-1")) for name, program, *_ in own]

    def zones(self, program: int, note: int) -> Iterator[dict[int, int]]:
        """Yield the generators, with defaults, of every sample for a note at full velocity."""
        for index, (_, number, bank, first, *_) in enumerate(self.presets[:-1]):
            if (number, bank) != (program, DRUM_BANK):
                continue
            for outer in _struck(*self._preset, first, self.presets[index + 1][3], _INSTRUMENT, note):
                which = outer[_INSTRUMENT]
                begin, end = self.instruments[which][1], self.instruments[which + 1][1]
                for inner in _struck(*self._instrument, begin, end, _SAMPLE, note):
                    zone = _DEFAULT | inner
                    for generator, value in outer.items():  # a preset's values are added to the instrument's
                        if generator not in (_INSTRUMENT, _KEYS, _FORCES):
                            zone[generator] = zone.get(generator, 0) + value
                    yield zone

    def play(self, zone: dict[int, int], most: int, note: int) -> np.ndarray:
        """Render one sample with the generators of its zone, float [T], T at most `most`."""
        _, start, end, loop, loop_end, rate, key, cents, _, kind = self.headers[zone[_SAMPLE]]
        if kind & _COMPRESSED:
            raise ValueError("compressed samples, as in an .sf3")
        start, end, loop, loop_end = (
            address + zone.get(fine, 0) + 32_768 * zone.get(coarse, 0)
            for address, fine, coarse in ((start, 0, 4), (end, 1, 12), (loop, 2, 45), (loop_end, 3, 50))
        )
        if not 0 <= start < end <= len(self.samples):
            raise ValueError("a sample is outside the file")
        root = zone.get(_ROOT, key)
        tuning = (zone.get(_KEY, note) - root) * zone[_SCALE] + 100 * zone.get(_SEMITONES, 0) + zone.get(_CENTS, 0)
        time = np.arange(most) / SAMPLE_RATE  # since note on
        sweep = _sweep(zone, time)
        steps = 2 ** ((tuning + cents + zone.get(_BEND, 0) * sweep) / 1200) * rate / SAMPLE_RATE
        places = np.cumsum(steps) - steps[0]
        if zone.get(_LOOP, 0) in (1, 3) and start <= loop < loop_end <= end:
            past = places >= loop_end - start
            places[past] = loop - start + (places[past] - (loop - start)) % (loop_end - loop)
        places = places[places < end - start]
        wave = np.interp(places, np.arange(end - start), self.samples[start:end] / 32_768)
        gain = 10 ** (-zone.get(_SOFTER, 0) / 200) * _loudness(zone, time[: len(wave)])
        filtered = _low_pass(wave, zone[_FILTER])
        if zone.get(_SWEEP, 0):  # approximated by a mixture of its two ends
            sweep = sweep[: len(wave)]
            filtered = sweep * _low_pass(wave, zone[_FILTER] + zone[_SWEEP]) + (1 - sweep) * filtered
        return filtered * gain


def _chunks(data: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and content of every chunk, also within LISTs."""
    while len(data) >= 8:
        name, size = bytes(data[:4]), int(data[4:8].view("<u4")[0])
        if name == b"LIST":
            yield from _chunks(data[12 : 8 + size])
        else:
            yield name.decode("latin-1"), data[8 : 8 + size]
        data = data[8 + size + size % 2 :]


def _struck(
    bags: list[int], generators: list[tuple], first: int, last: int, target: int, note: int
) -> Iterator[dict[int, int]]:
    """Yield the zones from `first` to `last` with a `target` whose ranges contain the note and full velocity."""
    general: dict[int, int] = {}
    for index in range(first, last):
        zone = {}
        for number, value in generators[bags[index] : bags[index + 1]]:
            unsigned = number in (_KEYS, _FORCES, _INSTRUMENT, _SAMPLE)
            zone[number] = value if unsigned or value < 0x8000 else value - 0x10000
        if target not in zone:
            general = zone if index == first else general
            continue
        zone = general | zone
        keys, forces = zone.get(_KEYS, _FULL_RANGE), zone.get(_FORCES, _FULL_RANGE)
        if keys & 0xFF <= note <= keys >> 8 and forces & 0xFF <= 127 <= forces >> 8:
            yield zone


def _envelope(zone: dict[int, int], first: int, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an envelope's attack, 0 to 1, and the time since its hold, in units of its decay time."""
    delay, attack, hold, decay = (2 ** (zone[first + stage] / 1200) for stage in range(4))
    return np.clip((time - delay) / attack, 0, 1), (time - delay - attack - hold) / decay


def _loudness(zone: dict[int, int], time: np.ndarray) -> np.ndarray:
    """Return the volume envelope as a factor: it falls linearly in decibels, by 100 dB in its decay time."""
    attack, decay = _envelope(zone, _ENVELOPE, time)
    fallen = np.clip(decay * 100, 0, np.clip(zone.get(_ENVELOPE + 4, 0) / 10, 0, 144))  # dB below the peak
    fallen += np.maximum(0, (time - HELD_SECONDS) / 2 ** (zone[_ENVELOPE + 5] / 1200) * 100)  # release
    return attack * 10 ** (-fallen / 20)


def _sweep(zone: dict[int, int], time: np.ndarray) -> np.ndarray:
    """Return the modulation envelope, 0 to 1, for pitch and low-pass: it falls linearly."""
    attack, decay = _envelope(zone, _SWEEP_ENVELOPE, time)
    return np.clip(1 - decay, 1 - np.clip(zone.get(_SWEEP_ENVELOPE + 4, 0) / 1000, 0, 1), 1) * attack


def _low_pass(wave: np.ndarray, cents: int) -> np.ndarray:
    hertz = 8.176 * 2 ** (cents / 1200)
    if hertz > 18_000:
        return wave
    poles = [pedalboard.LowpassFilter(min(hertz / 0.644, 20_000)) for _ in range(2)]  # together 3 dB down at hertz
    return pedalboard.Pedalboard(poles)(wave.astype(np.float32), SAMPLE_RATE)
