"""Random stroke patterns in the rudiments' notation, none of them similar to a rudiment or to each other."""

from __future__ import annotations

import functools

import numpy as np

from sousaphone.rudiments import RUDIMENTS, Rudiment

# Mean frequency of each figure; every motif draws its own frequencies around these.
_FIGURES = {"tap": 0.42, "diddle": 0.2, "flam": 0.16, "drag": 0.12, "ruff": 0.04, "buzz": 0.06}
_GRACES = {"flam": 1, "drag": 2, "ruff": 4}
SHORTEST, LONGEST = 3, 18  # strokes in a cycle
_OTHER = {"R": "L", "L": "R"}

Form = tuple[tuple[str, str], ...]  # the hand and the kind of each stroke


@functools.cache
def make_motifs(count: int, seed: int) -> tuple[Rudiment, ...]:
    """Draw `count` patterns from a seed. A smaller count gives a prefix of a larger one.

    All strokes of a cycle have equal lengths, as in the rudiments.
    """
    rng = np.random.default_rng((seed, 3))
    taken = [form(rudiment) for rudiment in RUDIMENTS.values()]
    motifs: list[Rudiment] = []
    while len(motifs) < count:
        drawn = Rudiment(f"motif_{len(motifs):03d}", "motifs", 1.0, _notation(rng))
        own = form(drawn)
        if not SHORTEST <= len(own) <= LONGEST or any(similar(own, other) for other in taken):
            continue
        taken.append(own)
        motifs.append(Rudiment(drawn.slug, drawn.family, len(drawn.strokes) / 4, drawn.notation))
    return tuple(motifs)


def form(rudiment: Rudiment) -> Form:
    """Hands and kinds of the strokes of a cycle, reduced to its shortest period. A diddle counts as two taps."""
    strokes = tuple((each.hand, "tap" if each.kind == "diddle" else each.kind) for each in rudiment.strokes)
    count = len(strokes)
    period = next(n for n in range(1, count + 1) if strokes == strokes[:n] * (count // n))
    return strokes[:period]


def similar(one: Form, other: Form) -> bool:
    """Whether two patterns differ in at most one stroke from any start and with either leading hand."""
    if len(one) != len(other):
        return False
    allowed = 1 if len(one) > SHORTEST else 0
    return any(sum(a != b for a, b in zip(variant, other, strict=True)) <= allowed for variant in _variants(one))


@functools.lru_cache(maxsize=4096)
def _variants(one: Form) -> tuple[Form, ...]:
    """The rotations of a pattern, led by either hand."""
    swapped = tuple((_OTHER[hand], kind) for hand, kind in one)
    return tuple(f[at:] + f[:at] for f in (one, swapped) for at in range(len(one)))


def _notation(rng: np.random.Generator) -> str:
    """Draw a cycle; as with rudiments, often a phrase followed by the same with hands swapped."""
    mirrored = rng.random() < 0.5
    length = int(rng.integers(2, 7)) if mirrored else int(rng.integers(2, 10))
    frequencies = np.array(list(_FIGURES.values())) * rng.gamma(0.6, size=len(_FIGURES))
    frequencies /= frequencies.sum()
    alternating, accented = rng.choice([1.0, 0.85, 0.6]), rng.choice([0.0, 0.15, 0.35])
    opens_with_accent = rng.random() < 0.5
    hand, tokens = "R", []
    for place in range(length):
        figure = str(rng.choice(list(_FIGURES), p=frequencies))
        accent = (place == 0 and opens_with_accent) or rng.random() < accented
        tokens.append(_token(figure, hand, accent))
        hand = _OTHER[hand] if rng.random() < alternating else hand
    phrase = " ".join(tokens)
    if not mirrored:
        return phrase
    return f"{phrase} {phrase.translate(str.maketrans('RLrl', 'LRlr'))}"


def _token(figure: str, hand: str, accent: bool) -> str:
    """One figure in the rudiments' notation; the other hand plays the grace notes."""
    if figure == "diddle":
        return 2 * hand
    if figure == "buzz":
        return f"z{hand}"
    return _GRACES.get(figure, 0) * _OTHER[hand].lower() + (">" if accent else "") + hand
