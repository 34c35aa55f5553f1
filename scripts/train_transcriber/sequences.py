"""Random stroke sequences without rudiments: a pulse with random subdivisions, grace notes, doubles and buzzes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEPS = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 1, 1, 1, 3 / 2, 2, 3)  # intervals between main strokes, in pulses
PULSE_SECONDS = (0.06, 0.35)
FIGURES = ("tap", "accent", "flam", "drag", "ruff", "double", "buzz")


@dataclass(frozen=True)
class Sequence:
    """Strokes by time, [N] each: seconds, MIDI velocity, hand (0 or 1), and whether grace note or part of a buzz."""

    times: np.ndarray
    velocities: np.ndarray
    hands: np.ndarray
    grace: np.ndarray
    buzz: np.ndarray

    def merged(self, seconds: float) -> Sequence:
        """Join strokes closer than `seconds` to their predecessor with it: the first time, the greatest velocity."""
        first = np.flatnonzero(np.diff(self.times, prepend=-np.inf) >= seconds)
        if not len(first):
            return self
        grace = np.minimum.reduceat(self.grace, first)
        return Sequence(
            self.times[first],
            np.maximum.reduceat(self.velocities, first),
            self.hands[first],
            grace,
            np.maximum.reduceat(self.buzz, first),
        )


def draw_sequence(rng: np.random.Generator, duration: float) -> Sequence:
    """Draw the strokes of a clip of `duration` seconds."""
    pulse = float(np.exp(rng.uniform(*np.log(PULSE_SECONDS))))
    jitter = float(rng.uniform(0, 0.12)) * pulse
    likely = rng.dirichlet(np.full(len(FIGURES), 0.4))
    steps = rng.dirichlet(np.full(len(STEPS), 0.3))
    loud, soft, quiet = rng.uniform(80, 124), rng.uniform(40, 90), rng.uniform(15, 65)
    spread, alternates = rng.uniform(0.03, 0.25), rng.uniform(0, 1)
    grace_ms, double = float(np.exp(rng.uniform(*np.log((14, 65))))), float(rng.uniform(0.3, 0.7))
    bounce_ms, fall = float(np.exp(rng.uniform(*np.log((2.5, 40))))), float(rng.uniform(0.75, 0.95))
    strokes: list[tuple[float, float, int, bool, bool]] = []
    time, hand = float(rng.uniform(0.0, 0.4)), int(rng.integers(2))

    def add(at: float, velocity: float, by: int, grace: bool = False, buzz: bool = False) -> None:
        if 0 <= at < duration:
            strokes.append((at, float(np.clip(velocity * rng.normal(1, spread), 2, 127)), by, grace, buzz))

    while time < duration:
        figure = FIGURES[rng.choice(len(FIGURES), p=likely)]
        step = pulse * STEPS[rng.choice(len(STEPS), p=steps)]
        at = time + rng.normal(0, min(jitter, 0.25 * step))
        level = loud if figure == "accent" or rng.random() < 0.3 else soft
        for before in range({"flam": 1, "drag": 2, "ruff": 3}.get(figure, 0), 0, -1):
            gap = before * grace_ms / 1000 * np.clip(rng.normal(1, 0.25), 0.3, 2)
            add(at - min(gap, 0.8 * step * before), quiet, 1 - hand, grace=True)
        if figure == "buzz":
            for bounce in range(rng.integers(3, 10)):
                offset = bounce * bounce_ms / 1000
                if offset > 1.1 * step:
                    break
                add(at + offset, level * fall**bounce, hand, buzz=True)
        else:
            add(at, level, hand)
        if figure == "double":
            add(at + double * step * np.clip(rng.normal(1, 0.1), 0.5, 1.5), soft, hand)
        hand = 1 - hand if rng.random() < alternates else hand
        time += max(step, 0.04) + (rng.uniform(0, 0.6) if rng.random() < 0.02 else 0)
    columns = sorted(strokes)
    times, velocities, hands, grace, buzz = map(np.array, zip(*columns, strict=True)) if columns else [np.zeros(0)] * 5
    return Sequence(
        times.astype(float), velocities.astype(float), hands.astype(int), grace.astype(bool), buzz.astype(bool)
    )
