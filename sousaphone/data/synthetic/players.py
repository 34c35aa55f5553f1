"""The players of the built-in set, their tasks, and the onset and velocity of each stroke.

Only the stroke pattern may distinguish the rudiments, so the duration of a clip, its rate of strokes and its first
position in the cycle are drawn independently of the class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sousaphone.rudiments import Rudiment

if TYPE_CHECKING:  # imports audio libraries, which are not needed here
    from sousaphone.data.synthetic.soundfonts import Kit

TIERS = ("beginner", "intermediate", "advanced", "professional")
SPLIT_PLAYERS = {"train": 80, "val": 10, "test": 10}
TEMPI_BPM = (60, 180)
RATE_PER_SECOND = (5.0, 12.0)  # positions in the cycle per second, equal for all rudiments
DURATION_SECONDS = (2.8, 5.2)
LEAD_IN_SECONDS = (0.08, 0.21)  # leaves time for grace notes before the first stroke
TAIL_SECONDS = 0.15

# SOUSA's intended velocities (MIDI). Bounces of a buzz start lower and decay.
VELOCITY = {"accent": 120, "tap": 65, "diddle": 75, "grace": 40, "buzz": 70}
BOUNCE_FALL = 0.85

# The columns of SOUSA's strokes.parquet that a performance gives; the others are derived.
COLUMNS = (
    *("hand", "stroke_type", "intended_time_ms", "actual_time_ms", "intended_velocity", "actual_velocity"),
    *("is_grace_note", "is_accent", "diddle_position", "flam_spacing_ms", "parent_stroke_index", "buzz_count"),
)


@dataclass(frozen=True)
class Player:
    """A player's habits: times in ms, levels as factors of the intended velocity, pitch in cents."""

    profile_id: str
    split: str
    tier: str
    dominant: str  # leading hand, "R" or "L": a left-handed player mirrors the sticking
    jitter_ms: float  # standard deviation of a stroke's onset
    weak_late_ms: float  # how late the weak hand is
    drift: float  # standard deviation of the slow tempo drift, relative
    weak_level: float  # of the weak hand
    spread: float  # standard deviation of the velocities, relative
    accent_level: float
    downbeat_level: float  # of the first stroke of each cycle
    grace_level: float
    grace_spread: float  # standard deviation of the width of flams and drags, relative
    flam_ms: float  # from grace note to main stroke
    drag_ms: float  # between the notes of a drag, and from the last one to the main stroke
    diddle_level: float  # of the second stroke of a diddle
    diddle_shift: float  # of its onset, early (-) or late (+), as a fraction of the step
    weak_cents: float  # pitch and brightness of the weak hand, which strikes another spot of the drum head
    weak_shelf_db: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """A performance to be played: the player, the rudiment, tempo, first position and duration."""

    seed: tuple[int, ...]
    player: Player
    rudiment: Rudiment
    tempo_bpm: int
    stretch: float  # played beats per notated beat: 2 is half time
    phase: float  # first position in the cycle, 0 to 1
    duration: float  # seconds
    tuning_cents: float


@dataclass(frozen=True, kw_only=True)
class Clip(Task):
    """One clip of the built-in set, with its sound."""

    index: int
    kit: Kit
    room: int


@dataclass
class Performance:
    """Strokes as columns (SOUSA's names; ms from the clip's first sample), and the number of cycles started."""

    columns: dict[str, list]
    cycles: int


def make_players(seed: int) -> list[Player]:
    """Draw 100 players; each split has every tier. Equal seeds give equal players."""
    slots = [(split, slot) for split, count in SPLIT_PLAYERS.items() for slot in range(count)]
    return [_make_player(number, split, slot % len(TIERS), seed) for number, (split, slot) in enumerate(slots)]


def _make_player(number: int, split: str, skill: int, seed: int) -> Player:
    rng = np.random.default_rng((seed, 0, number))
    # One skill determines all habits, also within a tier, so that they are correlated.
    clumsy = 1 - (skill + float(rng.random())) / len(TIERS)  # near 1 for a beginner, near 0 for a professional

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    return Player(
        profile_id=f"player-{number:03d}",
        split=split,
        tier=TIERS[skill],
        dominant="L" if rng.random() < 0.1 else "R",
        jitter_ms=between(3, 5) + 11 * clumsy,
        weak_late_ms=between(-1, 3) + between(0, 4) * clumsy,
        drift=0.005 + 0.015 * clumsy,
        weak_level=between(0.78, 0.88) - 0.12 * clumsy,
        spread=between(0.03, 0.05) + 0.06 * clumsy,
        accent_level=between(0.92, 1.05) - 0.1 * clumsy,
        downbeat_level=between(1.1, 1.25),
        grace_level=between(0.95, 1.4),
        grace_spread=between(0.03, 0.06) + 0.16 * clumsy,
        flam_ms=between(24, 38) + between(0, 14) * clumsy,
        drag_ms=between(24, 32) + between(0, 8) * clumsy,
        diddle_level=between(0.88, 1.0) - 0.15 * clumsy,
        diddle_shift=between(-0.06, 0.06) * (1 + clumsy),
        weak_cents=float(rng.choice([-1, 1])) * between(60, 160),
        weak_shelf_db=float(rng.choice([-1, 1])) * between(3, 6),
    )


def draw_tempo(rudiment: Rudiment, rng: np.random.Generator) -> tuple[int, float]:
    """Draw a tempo in BPM and the stretch.

    SOUSA notates some rudiments in sixteenths and some in sextuplets; at equal tempo their stroke rates would
    distinguish them. So the rate is drawn independently of the rudiment, and the tempo follows from it, in half or
    double time outside of the limits.
    """
    low, high = TEMPI_BPM
    rate = float(np.exp(rng.uniform(*np.log(RATE_PER_SECOND))))
    tempo, stretch = 60 * rate * rudiment.beats / len(rudiment.strokes), 1.0
    if tempo < low:
        tempo, stretch = 2 * tempo, 2.0
    elif tempo > high:
        tempo, stretch = tempo / 2, 0.5
    return min(max(round(tempo), low), high), stretch


def perform(clip: Task) -> Performance:
    """Play the clip's rudiment from its phase to the end of the clip; bounces of buzzes follow all other strokes."""
    rng = np.random.default_rng((*clip.seed, 1))
    player, cycle = clip.player, clip.rudiment.strokes
    step_ms = _step_ms(clip)
    figures = _figures(clip, rng)
    drift = _drift(player.drift, rng)
    strokes: list[tuple] = []
    bounces: list[tuple] = []
    for start_ms, places in figures:
        main_index, main_ms = len(strokes) + len(places) - 1, 0.0
        width = float(np.clip(rng.normal(1, player.grace_spread), 0.6, 1.6))
        figure: list[tuple] = []
        for place in reversed(places):  # the main stroke first: its grace notes depend on it
            stroke, before = cycle[place], places[-1] - place
            intended = start_ms + stroke.onset * step_ms * len(cycle) / clip.rudiment.beats
            weak = stroke.hand == "L"
            time = intended + drift(intended) + rng.normal(0, min(player.jitter_ms, 0.12 * step_ms))
            time += player.weak_late_ms * weak
            level = player.weak_level if weak else 1.0
            if stroke.kind == "grace":
                level *= player.grace_level
                if before <= 2:  # the earlier notes of a group of four stay in rhythm, as in SOUSA's recordings
                    gap = player.flam_ms if len(places) == 2 else before * player.drag_ms
                    time = main_ms - min(gap * width, 0.7 * step_ms * before)
            else:
                level *= player.downbeat_level if places[0] == 0 else 1.0
                level *= player.accent_level if stroke.accent else 1.0
            if stroke.diddle == 2:
                level *= player.diddle_level
                time += player.diddle_shift * step_ms
            time = max(time, 5.0)
            main_ms = time if before == 0 else main_ms
            velocity = _midi(VELOCITY[stroke.kind] * level * rng.normal(1, player.spread))
            count = int(rng.integers(5, 8)) if stroke.kind == "buzz" else 0
            hand = stroke.hand if player.dominant == "R" else {"R": "L", "L": "R"}[stroke.hand]
            figure.append(
                (
                    *(hand, stroke.kind, intended, time, VELOCITY[stroke.kind], velocity, before > 0, stroke.accent),
                    *(stroke.diddle, main_ms - time if before else None, main_index if before else None, count or None),
                )
            )
            for bounce in range(1, count):  # faster and softer, until the next stroke
                gap = 0.85 * step_ms * (1 - 0.9**bounce) / (1 - 0.9**count)
                soft = BOUNCE_FALL**bounce
                levels = _midi(VELOCITY["buzz"] * soft), _midi(velocity * soft)
                bounces.append(
                    (hand, "buzz", intended + gap, time + gap, *levels, True, False, None, -gap, main_index, None)
                )
        strokes += reversed(figure)
    columns = zip(*strokes, *bounces, strict=True)
    cycles = len({start_ms for start_ms, _ in figures})
    return Performance(dict(zip(COLUMNS, map(list, columns), strict=True)), cycles)


def _step_ms(clip: Task) -> float:
    """Time from one position in the cycle to the next."""
    rudiment = clip.rudiment
    return 60_000 / clip.tempo_bpm * clip.stretch * rudiment.beats / len(rudiment.strokes)


def _figures(clip: Task, rng: np.random.Generator) -> list[tuple[float, range]]:
    """Return the figures (a stroke with its grace notes) of the clip: start of the cycle in ms, positions in the cycle.

    The first figure is the first complete one at or after the clip's phase.
    """
    cycle, step_ms = clip.rudiment.strokes, _step_ms(clip)
    mains = [place for place, stroke in enumerate(cycle) if stroke.parent is None]
    figures = [range(start, main + 1) for start, main in zip([0, *(m + 1 for m in mains)], mains, strict=False)]
    first = next((f.start for f in figures if f.start >= clip.phase * len(cycle)), 0)
    start_ms = 1000 * rng.uniform(*LEAD_IN_SECONDS) - first * step_ms
    end_ms = 1000 * (clip.duration - TAIL_SECONDS)
    played = []
    while start_ms <= end_ms:
        played += [(start_ms, f) for f in figures if f.start >= first and start_ms + f[-1] * step_ms <= end_ms]
        start_ms, first = start_ms + len(cycle) * step_ms, 0
    return played


def _midi(velocity: float) -> int:
    return int(np.clip(round(velocity), 8, 127))


def _drift(deviation: float, rng: np.random.Generator) -> Callable[[float], float]:
    """Draw a slow drift of the beat, the sum of two sinusoids: a function from a time in ms to its shift in ms."""
    periods, phases = rng.uniform(1500, 4000, 2), rng.uniform(0, 2 * np.pi, 2)

    def shift(time_ms: float) -> float:
        waves = np.sin(2 * np.pi * time_ms / periods + phases) - np.sin(phases)
        return float(np.sum(deviation * periods / (2 * np.pi) * waves) / 2)

    return shift
