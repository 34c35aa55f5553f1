"""Asynchronous successive halving with equal steps: which trial of a backbone trains next, and up to which rung.

As in ASHA (Li et al., arXiv 1810.05934), a trial stops at each rung, and the best of those that have reached a rung are
promoted to the next one as soon as enough have reached it. The number of promotions is fixed in advance here. Ray's
AsyncHyperBandScheduler decides once, when a trial reaches a rung: how many continue, and thus the steps that a backbone
gets, depends on the order of the trials.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

GRACE_EPOCHS = 2  # no trial is compared before: the first epoch is the warm-up
_MOST_RUNGS = 3


@dataclass(frozen=True)
class Tried:
    """What the record of a configuration shows. The scores are (steps, best validation score so far) of its epochs."""

    number: int  # within its backbone; 0 is the untuned default
    scores: tuple[tuple[int, float], ...] = ()
    ended: bool = False  # whether it will not continue: complete, diverged or failed

    @property
    def steps(self) -> int:
        return self.scores[-1][0] if self.scores else 0

    def score_at(self, steps: int) -> float:
        """The best score up to so many steps."""
        return max((score for done, score in self.scores if done <= steps), default=-math.inf)


@dataclass(frozen=True)
class Segment:
    """The training of a configuration up to a rung. A new configuration has the next free number."""

    number: int
    rung: int  # index


@dataclass(frozen=True)
class Ladder:
    """The rungs of each backbone, in optimiser steps, and how many of its configurations train up to each."""

    rungs: tuple[int, ...]  # the first is the grace, the last the full length
    places: tuple[int, ...]

    @classmethod
    def plan(cls, rungs: Sequence[int], configurations: int, reduction: int, finalists: int) -> Ladder:
        """Keep one in `reduction` configurations at each rung, at least as many as there are finalists."""
        places = (max(finalists, math.ceil(configurations / reduction**rung)) for rung in range(len(rungs)))
        return cls(tuple(rungs), tuple(places))

    @property
    def steps(self) -> int:
        """Steps of a backbone, whatever its scores are: a trial that diverges or fails is not replaced."""
        return sum(count * (b - a) for count, (a, b) in zip(self.places, pairwise((0, *self.rungs)), strict=True))

    def reached(self, steps: int) -> int:
        """Return the number of rungs that a trial of so many steps has reached."""
        return bisect_right(self.rungs, steps)

    def next_segment(self, trials: Sequence[Tried], live: Mapping[int, int] | None = None) -> Segment | None:
        """Return what to train next; None if there is nothing to start until a live trial reaches its rung, or at all.

        Args:
            trials: the backbone's configurations by number, so that `trials[number].number == number`.
            live: the rung to which each trial that is training now is going, by number.
        """
        live = live or {}
        waiting = [trial for trial in trials if not trial.ended and trial.number not in live]
        for trial in waiting:
            rung = self.reached(trial.steps)
            if rung == 0 or trial.steps > self.rungs[rung - 1]:  # interrupted before a rung
                return Segment(trial.number, rung)
        for rung in reversed(range(len(self.rungs) - 1)):
            resting = [trial for trial in waiting if self.reached(trial.steps) == rung + 1]
            if resting and self._promoted(trials, live, rung) < self._promotions(trials, rung):
                # The untuned default always trains at full length, for comparison.
                best = min(resting, key=lambda t: (t.number > 0, -t.score_at(self.rungs[rung]), t.number))
                return Segment(best.number, rung + 1)
        return Segment(len(trials), 0) if len(trials) < self.places[0] else None

    def _promotions(self, trials: Sequence[Tried], rung: int) -> int:
        """How many trials continue beyond the rung, given how many have reached it or ended on the way to it."""
        arrived = sum(self.reached(trial.steps) + trial.ended > rung for trial in trials)
        return arrived * self.places[rung + 1] // self.places[rung]

    def _promoted(self, trials: Sequence[Tried], live: Mapping[int, int], rung: int) -> int:
        """How many trials have continued beyond the rung, those that ended on the way included."""
        passed = [t for t in trials if self.reached(t.steps) > rung]
        return sum(t.steps > self.rungs[rung] or t.ended or live.get(t.number, 0) > rung for t in passed)


def rung_epochs(epochs: int, reduction: int) -> list[int]:
    """Return the epochs after which trials are compared, the last of them the full length."""
    lengths = [round(epochs / reduction**rung) for rung in reversed(range(_MOST_RUNGS))]
    return [length for length in lengths[:-1] if length >= GRACE_EPOCHS] + [epochs]


def finalists(trials: Sequence[Tried], full: int, tuned: int) -> list[int]:
    """Return the numbers of the untuned default and of the best `tuned` others at full length, in steps; the best
    first, ties to the earlier."""
    complete = sorted((t for t in trials if t.steps >= full), key=lambda t: (-t.score_at(full), t.number))
    best = [t for t in complete if t.number > 0][:tuned]
    return [t.number for t in complete if t.number == 0 or t in best]
