"""Random stroke patterns in the rudiments' notation, none of them a rudiment or nearly one, no two nearly alike."""

from __future__ import annotations

import functools

import numpy as np

from sousaphone.rudiments import RUDIMENTS, Rudiment

# How common a figure is on the whole; each motif then has leanings of its own, or all would sound alike.
_FIGURES = {"tap": 0.42, "diddle": 0.2, "flam": 0.16, "drag": 0.12, "ruff": 0.04, "buzz": 0.06}
_GRACES = {"flam": 1, "drag": 2, "ruff": 4}
SHORTEST, LONGEST = 3, 18  # strokes in a cycle
_OTHER = {"R": "L", "L": "R"}

Form = tuple[tuple[str, str], ...]  # the hand and the kind of each stroke


def make_motifs(count: int, seed: int) -> tuple[Rudiment, ...]:
    """`count` patterns; equal arguments give equal ones, and fewer are the first of more.

    Every stroke takes an equal share of the cycle, as in the rudiments.
    """
    rng = np.random.default_rng((seed, 3))
    taken = [form(rudiment) for rudiment in RUDIMENTS.values()]
    motifs: list[Rudiment] = []
    while len(motifs) < count:
        drawn = Rudiment(f"motif_{len(motifs):03d}", "motifs", 1.0, _notation(rng))
        own = form(drawn)
        if not SHORTEST <= len(own) <= LONGEST or any(alike(own, other) for other in taken):
            continue
        taken.append(own)
        motifs.append(Rudiment(drawn.slug, drawn.family, len(drawn.strokes) / 4, drawn.notation))
    return tuple(motifs)


def form(rudiment: Rudiment) -> Form:
    """What is heard of a cycle: hands and kinds of its strokes, as often as it takes to repeat itself.

    A diddle counts as two taps: struck apart they sound the same.
    """
    strokes = tuple((each.hand, "tap" if each.kind == "diddle" else each.kind) for each in rudiment.strokes)
    for period in range(1, len(strokes) + 1):
        if len(strokes) % period == 0 and strokes == strokes[:period] * (len(strokes) // period):
            return strokes[:period]
    raise AssertionError("a cycle repeats itself after its own length")


def alike(one: Form, other: Form) -> bool:
    """Whether two patterns differ in one stroke at most, wherever each begins and whichever hand leads."""
    if len(one) != len(other):
        return False
    allowed = 1 if len(one) > SHORTEST else 0  # of three strokes, one is a third
    return any(sum(a != b for a, b in zip(turned, other, strict=True)) <= allowed for turned in _turned(one))


@functools.lru_cache(maxsize=4096)
def _turned(one: Form) -> tuple[Form, ...]:
    """The pattern from each of its strokes, led by either hand."""
    swapped = tuple((_OTHER[hand], kind) for hand, kind in one)
    return tuple(f[at:] + f[:at] for f in (one, swapped) for at in range(len(one)))


def _notation(rng: np.random.Generator) -> str:
    """A cycle: as with rudiments, often a phrase and then the same led by the other hand."""
    mirrored = rng.random() < 0.5
    length = int(rng.integers(2, 7)) if mirrored else int(rng.integers(2, 10))
    leaning = np.array(list(_FIGURES.values())) * rng.gamma(0.6, size=len(_FIGURES))
    leaning /= leaning.sum()
    alternating, accented = rng.choice([1.0, 0.85, 0.6]), rng.choice([0.0, 0.15, 0.35])
    opens_with_accent = rng.random() < 0.5
    hand, tokens = "R", []
    for place in range(length):
        figure = str(rng.choice(list(_FIGURES), p=leaning))
        accent = (place == 0 and opens_with_accent) or rng.random() < accented
        tokens.append(_token(figure, hand, accent))
        hand = _OTHER[hand] if rng.random() < alternating else hand
    phrase = " ".join(tokens)
    if not mirrored:
        return phrase
    return f"{phrase} {phrase.translate(str.maketrans('RLrl', 'LRlr'))}"


def _token(figure: str, hand: str, accent: bool) -> str:
    """One figure in the rudiments' notation; grace notes are struck by the other hand."""
    if figure == "diddle":
        return 2 * hand
    if figure == "buzz":
        return f"z{hand}"
    return _GRACES.get(figure, 0) * _OTHER[hand].lower() + (">" if accent else "") + hand
