"""The clips of the pretraining corpus: player, motif, drum and room of each; none of them is in the built-in set.

Players come from the built-in set's generator with another seed. Drums are other percussion of the SoundFont, or
synthesised from noise and two partials. Every clip has its own room.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from scripts.pretrain_nano.motifs import make_motifs
from sousaphone.data.synthetic.players import Player, Task, draw_tempo, make_players
from sousaphone.data.synthetic.render import Room
from sousaphone.data.synthetic.soundfonts import SAMPLE_RATE, SNARE, builtin_kits, recordings, strike

CLIP_SECONDS = 3.2  # training uses windows of 2.5
PLAYERS_SEED = 1_000_003  # the built-in set uses 0
NOTES = range(27, 88)  # General MIDI percussion
DRUM_SECONDS = (0.05, 0.6)  # shorter sounds are clicks, longer ones cymbals
SYNTHETIC = 0.5  # fraction of synthesised drums


@dataclass(frozen=True)
class Corpus:
    """The parameters of the corpus: motifs, and clips per motif for training and held out (by other players)."""

    motifs: int = 200
    takes: int = 80
    held_out: int = 5
    seed: int = 0

    @property
    def clips(self) -> int:
        return self.motifs * (self.takes + self.held_out)

    def split(self, index: int) -> str:
        """The split of a clip; training clips come first."""
        return "train" if index < self.motifs * self.takes else "validation"


@dataclass(frozen=True, kw_only=True)
class Take(Task):
    """One clip to render."""

    def sound(self) -> tuple[np.ndarray, Room]:
        """One stroke of the drum, float32 [T] of unit energy at 44.1 kHz, and the room."""
        rng = np.random.default_rng((*self.seed, 4))
        if rng.random() < SYNTHETIC:
            return synthesise(rng), _room(rng)
        drums = other_drums()
        return drums[rng.integers(len(drums))], _room(rng)


def take(corpus: Corpus, index: int) -> Take:
    """Clip `index`; motifs take turns, so that all have equally many takes."""
    seed = (corpus.seed, 5, index)
    rng = np.random.default_rng(seed)
    motif = make_motifs(corpus.motifs, corpus.seed)[index % corpus.motifs]
    tempo, stretch = draw_tempo(motif, rng)
    players = _players(corpus.split(index))
    return Take(
        seed=seed,
        player=players[rng.integers(len(players))],
        rudiment=motif,
        tempo_bpm=tempo,
        stretch=stretch,
        phase=float(rng.random()),
        duration=CLIP_SECONDS,
        tuning_cents=float(rng.uniform(-400, 400)),
    )


@functools.cache
def _players(split: str) -> tuple[Player, ...]:
    return tuple(p for p in make_players(PLAYERS_SEED) if (p.split == "train") == (split == "train"))


@functools.cache
def other_drums() -> tuple[np.ndarray, ...]:
    """One stroke of each percussion sound of the SoundFont that shares no recording with the snares."""
    snares = frozenset[int]().union(*(recordings(kit, SNARE) for kit in builtin_kits()))
    drums: dict[bytes, np.ndarray] = {}
    for kit in builtin_kits():
        for note in NOTES:
            own = recordings(kit, note)
            if not own or own & snares:
                continue
            wave = strike(kit, note)
            if DRUM_SECONDS[0] <= len(wave) / SAMPLE_RATE <= DRUM_SECONDS[1]:
                drums.setdefault(wave.tobytes(), wave)
    return tuple(drums.values())


def synthesise(rng: np.random.Generator) -> np.ndarray:
    """A drum stroke of decaying band noise and two decaying partials."""
    time = np.arange(round(0.4 * SAMPLE_RATE)) / SAMPLE_RATE
    low = np.exp(rng.uniform(np.log(100), np.log(2500)))
    high = low * np.exp(rng.uniform(np.log(2), np.log(12)))
    spectrum = np.fft.rfft(rng.standard_normal(len(time)))
    hertz = np.fft.rfftfreq(len(time), 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum * ((hertz > low) & (hertz < high)), len(time))
    noise /= np.abs(noise).max()
    wave = noise * np.exp(-time / np.exp(rng.uniform(np.log(0.008), np.log(0.09))))
    for _ in range(2):
        partial = np.exp(rng.uniform(np.log(120), np.log(1800)))
        decay = np.exp(rng.uniform(np.log(0.01), np.log(0.1)))
        wave += rng.uniform(0, 0.6) * np.sin(2 * np.pi * partial * time) * np.exp(-time / decay)
    length = np.flatnonzero(np.abs(wave) > 1e-3 * np.abs(wave).max())[-1] + 1
    wave = wave[:length] * np.minimum(1, np.arange(length, 0, -1) / 500)
    return (wave / np.sqrt(np.sum(wave**2))).astype(np.float32)


def _room(rng: np.random.Generator) -> Room:
    """A room and microphone with the parameters of the built-in set's six rooms, drawn from wider ranges."""
    ranges = {"size": (0.0, 0.8), "damping": (0.2, 0.95), "wet": (0.0, 0.45), "low_cut_hz": (30, 200)}
    ranges |= {"presence_db": (-4, 4), "air_db": (-6, 4), "ratio": (1, 4), "noise_db": (-60, -25)}
    drawn = {name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()}
    return Room(name="any", kind="any", mic="any", distance_m=1.0, **drawn)
