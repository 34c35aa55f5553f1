"""One cycle of a rudiment in notation, as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from sousaphone.rudiments import Rudiment, Stroke, spoken

_HEAD, _BEAM, _ACCENT, _LETTER, _HEIGHT = 66, 26, 15, 94, 104  # y
_STEP, _GRACE_STEP, _GROUP_GAP, _MARGIN = 30, 14, 12, 14  # x
_GRACE_BEAM = 42  # y


def notation(rudiment: Rudiment) -> str:
    """Draw a cycle: R and L, accents (>), grace notes (small, tied to their stroke) and buzzes (z on the stem).

    Beams join the halves of a cycle whose second half repeats or mirrors the first. They show no note values.
    """
    half = _repeated_half(rudiment)
    parts: list[str] = []
    x, graces, beamed = float(_MARGIN), list[float](), list[float]()
    for index, stroke in enumerate(rudiment.strokes):
        if index == half:
            parts += _beam(beamed)
            beamed, x = [], x + _GROUP_GAP
        if stroke.parent is not None:
            graces.append(x)
            parts.append(_letter(x, stroke, "grace"))
            x += _GRACE_STEP
            continue
        if graces:
            parts += _grace_notes(graces, x)
            graces = []
        parts += _main_note(x, stroke)
        beamed.append(x)
        x += _STEP
    parts += _beam(beamed)
    width = x - _STEP + _MARGIN
    staff = f'<path class="staff" d="M0 {_HEAD}H{width:g}"/>'
    return (
        f'<svg class="notation" role="img" aria-label="{escape(in_words(rudiment))}" '
        f'viewBox="0 0 {width:g} {_HEIGHT}" width="{width:g}" height="{_HEIGHT}">{staff}{"".join(parts)}</svg>'
    )


def in_words(rudiment: Rudiment) -> str:
    """A cycle in words: `single paradiddle: right accent, left, right, right, ...`."""
    hands, kinds = {"R": "right", "L": "left"}, {"accent": " accent", "grace": " grace note", "buzz": " buzz"}
    strokes = (hands[stroke.hand] + kinds.get(stroke.kind, "") for stroke in rudiment.strokes)
    return f"{spoken(rudiment.slug)}: {', '.join(strokes)}"


def _repeated_half(rudiment: Rudiment) -> int | None:
    """Index of the first stroke of the second half, if it repeats the first half with equal or exchanged hands."""
    tokens = rudiment.notation.split()
    first, second = tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]
    exchanged = [token.translate(str.maketrans("RLrl", "LRlr")) for token in first]
    return len(rudiment.strokes) // 2 if second in (first, exchanged) else None


def _main_note(x: float, stroke: Stroke) -> Iterator[str]:
    yield f'<ellipse cx="{x:g}" cy="{_HEAD}" rx="6.2" ry="4.6" transform="rotate(-20 {x:g} {_HEAD})"/>'
    yield f'<path class="stem" d="M{x + 5.6:g} {_HEAD - 2}V{_BEAM}"/>'
    if stroke.accent:
        yield f'<path class="accent" d="M{x - 4:g} {_ACCENT - 5}l13 4.5l-13 4.5"/>'
    if stroke.kind == "buzz":
        yield f'<path class="accent" d="M{x + 1:g} 40h9l-9 9h9"/>'
    yield _letter(x, stroke, "hand")


def _grace_notes(places: list[float], main: float) -> Iterator[str]:
    """Small notes with beams, or one with a slash, and a slur to the main note."""
    for x in places:
        yield f'<ellipse cx="{x:g}" cy="{_HEAD}" rx="4" ry="3" transform="rotate(-20 {x:g} {_HEAD})"/>'
        yield f'<path class="fine" d="M{x + 3.6:g} {_HEAD - 1}V{_GRACE_BEAM}"/>'
    first, last = places[0] + 3.6, places[-1] + 3.6
    if len(places) == 1:
        yield f'<path class="fine" d="M{first:g} {_GRACE_BEAM}q6 3 4.5 10M{first - 4.5:g} 56l11 -8"/>'
    else:
        yield "".join(f'<path class="thick" d="M{first:g} {_GRACE_BEAM + dy}H{last:g}"/>' for dy in (1, 5))
    yield f'<path class="fine" d="M{places[0]:g} 73Q{(places[0] + main) / 2:g} 80 {main - 2:g} 73"/>'


def _beam(stems: list[float]) -> list[str]:
    """A beam over the stems of a group; a single note has none."""
    ends = f"M{stems[0] + 4.9:g} {_BEAM}H{stems[-1] + 6.3:g}"
    return [f'<path class="beam" d="{ends}"/>'] if len(stems) > 1 else []


def _letter(x: float, stroke: Stroke, kind: str) -> str:
    return f'<text class="{kind} {stroke.hand}" x="{x:g}" y="{_LETTER}">{stroke.hand}</text>'
