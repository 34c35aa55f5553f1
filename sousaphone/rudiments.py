"""The 40 rudiments of the Percussive Arts Society (PAS): class order, families, aliases and one cycle of each.

A cycle is written in drummers' notation: `R` and `L` are taps, `>` before a stroke is an accent, `RR` is a diddle,
small letters are the grace notes of the stroke that follows (`l>R` a flam, `ll>R` a drag), and `zR` is a buzz. The
single paradiddle is thus `>R L RR >L R LL`.

SOUSA divides a cycle evenly among its strokes, grace notes included, and then moves each grace note forward by a
fixed part of a beat (GRACE_LEAD_BEATS). The cycles here are the same, so that a model trained on them transfers to
SOUSA; the tests compare each one with a table extracted from SOUSA. The built-in data set is played differently from
SOUSA's recordings, not from their cycles, in these points (see `data.synthetic.players`):

- A clip starts anywhere in the cycle, its length is independent of the rudiment, and its tempo is halved or doubled
  where this keeps the stroke rate in the common range; otherwise the number of strokes would reveal the class.
- Left-handed players mirror the sticking; SOUSA's sample has none.
- The first stroke of a cycle is 10 to 25 % louder, as metre makes drummers play. In a randomly cut window only this
  distinguishes the inverted flam tap from the flam tap.
- Grace notes precede their main stroke by 24 to 52 ms, depending on the player, not by a fixed part of a beat (nor do
  those in SOUSA's recordings), and vary more for less skilled players; of four, the first two keep the rhythm.
- The bounces of a buzz fill the length of the stroke and become quicker and softer, as a stick's do, so that they join
  into a roll; SOUSA packs them into 10 to 25 ms, one thick click.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from sousaphone.errors import UserError

# By the number of grace notes before a stroke: how far each is moved forward from its position in the cycle, in beats.
GRACE_LEAD_BEATS = {1: (0.05,), 2: (0.08, 0.04), 4: (0.12, 0.08, 0.06, 0.04)}

_TOKEN = re.compile(r"(?P<graces>[rl]*)(?P<mark>[>z]?)(?P<hands>RR|LL|R|L)")


@dataclass(frozen=True)
class Stroke:
    """One stroke of a cycle.

    `kind` is SOUSA's stroke_type: tap, accent, diddle, grace or buzz. `onset` is in beats from the start of the cycle,
    negative for a grace note that precedes it. `diddle` is 1 or 2 within a diddle; `parent` is the index of the stroke
    that a grace note leads to.
    """

    hand: str
    kind: str
    onset: float
    diddle: int | None = None
    parent: int | None = None

    @property
    def accent(self) -> bool:
        return self.kind == "accent"


@dataclass(frozen=True)
class Rudiment:
    """One class: its family and one cycle, given as `notation`, of `beats` quarter notes."""

    slug: str
    family: str
    beats: float
    notation: str

    @cached_property
    def strokes(self) -> tuple[Stroke, ...]:
        """The strokes of the cycle in order, with the hands of a right-handed player."""
        notes: list[Stroke] = []  # with onsets relative to their positions in the cycle
        for token in self.notation.split():
            match = _TOKEN.fullmatch(token)
            if match is None:
                raise ValueError(f"{self.slug}: {token!r} is not a stroke")
            graces, mark, hands = match["graces"], match["mark"], match["hands"]
            parent = len(notes) + len(graces)
            for grace, lead in zip(graces, GRACE_LEAD_BEATS.get(len(graces), ()), strict=True):
                notes.append(Stroke(grace.upper(), "grace", -lead, parent=parent))
            kind = "diddle" if len(hands) == 2 else {">": "accent", "z": "buzz", "": "tap"}[mark]
            for number, hand in enumerate(hands, start=1):
                notes.append(Stroke(hand, kind, 0.0, diddle=number if kind == "diddle" else None))
        step = self.beats / len(notes)
        return tuple(replace(note, onset=index * step + note.onset) for index, note in enumerate(notes))


# Slug, beats per cycle and cycle, in the order of the PAS sheet. The comment of a row gives the sheet's sticking or
# another difference of the sheet from SOUSA, whose recordings a model must recognise. E: the sheet holds the last note
# longer; SOUSA spaces all strokes evenly. A: the sheet alternates the leading hand between rolls; SOUSA leads with the
# right. All flams and drags differ: SOUSA counts grace notes when it divides a cycle, so main strokes are uneven.
_SHEET = {
    "rolls": """
        single_stroke_roll       2    R L R L R L R L
        single_stroke_four       1    >R L R L                               # E; the first stroke is accented
        single_stroke_seven      2    >R L R L R >L R                        # E, A; strokes 1 and 6 are accented
        multiple_bounce_roll     2    zR zL zR zL zR zL zR zL
        triple_stroke_roll       2    >R R R >L L L                          # R R R L L L
        double_stroke_open_roll  1    RR LL
        five_stroke_roll         1.5  RR LL >R                               # E, A
        six_stroke_roll          1.5  >R LL RR >L                            # E, of both accents
        seven_stroke_roll        2    RR LL RR >L                            # E
        nine_stroke_roll         2.5  RR LL RR LL >R                         # E, A
        ten_stroke_roll          2.5  >R LL RR LL RR >L                      # E; RR LL RR LL >R >L
        eleven_stroke_roll       3    RR LL RR LL RR >L                      # E
        thirteen_stroke_roll     3.5  RR LL RR LL RR LL >R                   # E, A
        fifteen_stroke_roll      4    RR LL RR LL RR LL RR >L                # E
        seventeen_stroke_roll    4.5  RR LL RR LL RR LL RR LL >R             # E, A
    """,
    "diddles": """
        single_paradiddle        2    >R L RR >L R LL
        double_paradiddle        3    >R L R L RR >L R L R LL
        triple_paradiddle        4    >R L R L R L RR >L R L R L R LL
        paradiddle_diddle        2    >R L RR LL >L R LL RR                  # >R L RR LL throughout
    """,
    "flams": """
        flam                     1    l>R r>L
        flam_accent              2    l>R L R r>L R L
        flam_tap                 1.5  l>R R r>L L
        flamacue                 3    l>R L R L >R r>L R L R >L              # the second note is accented, not the flam
        flam_paradiddle          2.5  l>R L RR r>L R LL
        single_flammed_mill      2    l>R LL r>L RR                          # l>RR L R r>LL R L
        flam_paradiddle_diddle   2    l>R L RR LL r>L R LL RR
        pataflafla               3    l>R L r>L R r>L R l>R L                # lR L R rL
        swiss_army_triplet       2    l>R L L r>L R R                        # lR R L throughout
        inverted_flam_tap        1.5  L l>R R r>L                            # lR L rL R; here it is a shifted flam tap
        flam_drag                3    l>R L ll>R r>L R rr>L                  # lR LL R rL RR L
    """,
    "drags": """
        drag                     1    ll>R rr>L
        single_drag_tap          2    ll>R L rr>L R                          # the tap is accented, not the drag
        double_drag_tap          2    llll>R L rrrr>L R                      # llR llR >L rrL rrL >R
        lesson_25                4    ll>R rr>L r>L rr>L ll>R l>R            # llR L >R throughout
        single_dragadiddle       3    ll>R L RR rr>L R LL                    # the first stroke is doubled: RR L RR
        drag_paradiddle_1        3.5  ll>R L R LL rr>L R L RR                # >R llR L RR >L rrL R LL
        drag_paradiddle_2        5    ll>R L rr>L R LL rr>L R ll>R L RR      # >R llR llR L RR
        single_ratamacue         2    llR L R >L rrL R L >R
        double_ratamacue         3    llR rrL R L >R rrL llR L R >L          # llR llR L R >L
        triple_ratamacue         4    llR rrL llR L R >L rrL llR rrL R L >R  # llR llR llR L R >L
    """,
}


def _parse_sheet() -> Iterator[Rudiment]:
    for family, text in _SHEET.items():
        for line in text.strip().splitlines():
            slug, beats, cycle = line.partition("#")[0].split(maxsplit=2)
            yield Rudiment(slug, family, float(beats), cycle.strip())


RUDIMENTS: dict[str, Rudiment] = {rudiment.slug: rudiment for rudiment in _parse_sheet()}
SLUGS: tuple[str, ...] = tuple(RUDIMENTS)  # the label of a class is its index here


def spoken(slug: str) -> str:
    """Return a rudiment's name as plain text."""
    return slug.replace("_", " ")


FAMILIES: dict[str, str] = {slug: rudiment.family for slug, rudiment in RUDIMENTS.items()}

_ALIASES = {
    "single_paradiddle_diddle": "paradiddle_diddle",
    "double_stroke_roll": "double_stroke_open_roll",
    "open_roll": "double_stroke_open_roll",
    "buzz_roll": "multiple_bounce_roll",
    "paradiddle": "single_paradiddle",
    "flammed_mill": "single_flammed_mill",
    "dragadiddle": "single_dragadiddle",
    "drag_tap": "single_drag_tap",
    "ratamacue": "single_ratamacue",
    "pata_fla_fla": "pataflafla",
    "flam_paradiddlediddle": "flam_paradiddle_diddle",
    "drag_paradiddle_no_1": "drag_paradiddle_1",
    "drag_paradiddle_no_2": "drag_paradiddle_2",
}
_WORDS = ("five", "six", "seven", "nine", "ten", "eleven", "thirteen", "fifteen", "seventeen")
for _number, _word in zip((5, 6, 7, 9, 10, 11, 13, 15, 17), _WORDS, strict=True):
    _ALIASES[f"{_number}_stroke_roll"] = f"{_word}_stroke_roll"


def canonical_slug(text: str) -> str:
    """Return the slug of the class that `text` names, regardless of case, spaces and punctuation; raises a UserError
    with similar names if there is no such rudiment."""
    name = _normalise(text)
    if name in RUDIMENTS:
        return name
    near = nearest(text)
    hint = f"did you mean {near}?" if near else f"the 40 are: {', '.join(SLUGS)}"
    raise UserError(f"{text!r} is not one of the 40 rudiments; {hint}")


def nearest(text: str) -> str:
    """Classes with names similar to an unknown one, such as `flam_tap or flam`; empty if there are none."""
    near = difflib.get_close_matches(_normalise(text), [*SLUGS, *_ALIASES], n=3)
    return " or ".join(dict.fromkeys(_ALIASES.get(hit, hit) for hit in near))


def is_rudiment(text: str) -> bool:
    """Whether `text` names a class in a spelling that `canonical_slug` accepts."""
    return _normalise(text) in RUDIMENTS


def _normalise(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return _ALIASES.get(name, name)
