"""The 40 rudiments of the Percussive Arts Society (PAS): class order, families, name aliases, and one cycle of each.

A cycle is written as a drummer would: `R` and `L` are taps, `>` before a stroke accents it, `RR` written together is
a diddle, small letters are the grace notes of the stroke they touch (`l>R` a flam, `ll>R` a drag), `zR` is a buzz.
So the single paradiddle is `>R L RR >L R LL`.

SOUSA divides a cycle evenly among its strokes, grace notes included, and then draws each grace note forward by a
fixed part of a beat (GRACE_LEAD_BEATS). Our cycles do the same, so that what is learnt here carries over; the
tests hold each one against a table taken from SOUSA, and DEVIATIONS says where that leaves the PAS sheet. Our own
playing of them (`data.players`) departs from SOUSA in what PLAYED_DIFFERENTLY lists.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cached_property

from sousaphone.errors import UserError

# By the number of grace notes before a stroke: how far each is drawn forward from its place in the cycle, in beats.
GRACE_LEAD_BEATS = {1: (0.05,), 2: (0.08, 0.04), 4: (0.12, 0.08, 0.06, 0.04)}

_TOKEN = re.compile(r"(?P<graces>[rl]*)(?P<mark>[>z]?)(?P<hands>RR|LL|R|L)")


@dataclass(frozen=True)
class Stroke:
    """One stroke of a cycle.

    `kind` is SOUSA's stroke_type: tap, accent, diddle, grace or buzz. `onset` counts beats from the start of the
    cycle and is negative for a grace note drawn forward over it. `diddle` is 1 or 2 within a diddle, `parent` the
    position in the cycle of the stroke that a grace note leads to.
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
    """One class: its family, and one cycle as `notation` over `beats` beats (quarter notes)."""

    slug: str
    family: str
    beats: float
    notation: str

    @cached_property
    def strokes(self) -> tuple[Stroke, ...]:
        """The cycle in the order of its strokes, hands as a right-handed player has them."""
        plan: list[tuple[str, str, float, int | None, int | None]] = []  # hand, kind, lead, diddle, parent
        for token in self.notation.split():
            match = _TOKEN.fullmatch(token)
            if match is None:
                raise ValueError(f"{self.slug}: {token!r} is not a stroke")
            graces, mark, hands = match["graces"], match["mark"], match["hands"]
            parent = len(plan) + len(graces)
            for grace, lead in zip(graces, GRACE_LEAD_BEATS.get(len(graces), ()), strict=True):
                plan.append((grace.upper(), "grace", lead, None, parent))
            kind = "diddle" if len(hands) == 2 else {">": "accent", "z": "buzz", "": "tap"}[mark]
            for number, hand in enumerate(hands, start=1):
                plan.append((hand, kind, 0.0, number if kind == "diddle" else None, None))
        step = self.beats / len(plan)
        return tuple(
            Stroke(hand, kind, place * step - lead, diddle, parent)
            for place, (hand, kind, lead, diddle, parent) in enumerate(plan)
        )


# Slug, beats in a cycle, the cycle; in the order of the PAS sheet.
_SHEET = {
    "rolls": """
        single_stroke_roll       2    R L R L R L R L
        single_stroke_four       1    >R L R L
        single_stroke_seven      2    >R L R L R >L R
        multiple_bounce_roll     2    zR zL zR zL zR zL zR zL
        triple_stroke_roll       2    >R R R >L L L
        double_stroke_open_roll  1    RR LL
        five_stroke_roll         1.5  RR LL >R
        six_stroke_roll          1.5  >R LL RR >L
        seven_stroke_roll        2    RR LL RR >L
        nine_stroke_roll         2.5  RR LL RR LL >R
        ten_stroke_roll          2.5  >R LL RR LL RR >L
        eleven_stroke_roll       3    RR LL RR LL RR >L
        thirteen_stroke_roll     3.5  RR LL RR LL RR LL >R
        fifteen_stroke_roll      4    RR LL RR LL RR LL RR >L
        seventeen_stroke_roll    4.5  RR LL RR LL RR LL RR LL >R
    """,
    "diddles": """
        single_paradiddle        2    >R L RR >L R LL
        double_paradiddle        3    >R L R L RR >L R L R LL
        triple_paradiddle        4    >R L R L R L RR >L R L R L R LL
        paradiddle_diddle        2    >R L RR LL >L R LL RR
    """,
    "flams": """
        flam                     1    l>R r>L
        flam_accent              2    l>R L R r>L R L
        flam_tap                 1.5  l>R R r>L L
        flamacue                 3    l>R L R L >R r>L R L R >L
        flam_paradiddle          2.5  l>R L RR r>L R LL
        single_flammed_mill      2    l>R LL r>L RR
        flam_paradiddle_diddle   2    l>R L RR LL r>L R LL RR
        pataflafla               3    l>R L r>L R r>L R l>R L
        swiss_army_triplet       2    l>R L L r>L R R
        inverted_flam_tap        1.5  L l>R R r>L
        flam_drag                3    l>R L ll>R r>L R rr>L
    """,
    "drags": """
        drag                     1    ll>R rr>L
        single_drag_tap          2    ll>R L rr>L R
        double_drag_tap          2    llll>R L rrrr>L R
        lesson_25                4    ll>R rr>L r>L rr>L ll>R l>R
        single_dragadiddle       3    ll>R L RR rr>L R LL
        drag_paradiddle_1        3.5  ll>R L R LL rr>L R L RR
        drag_paradiddle_2        5    ll>R L rr>L R LL rr>L R ll>R L RR
        single_ratamacue         2    llR L R >L rrL R L >R
        double_ratamacue         3    llR rrL R L >R rrL llR L R >L
        triple_ratamacue         4    llR rrL llR L R >L rrL llR rrL R L >R
    """,
}


def _read(sheet: dict[str, str]) -> dict[str, Rudiment]:
    rows = [(family, *line.split(maxsplit=2)) for family, text in sheet.items() for line in text.strip().splitlines()]
    return {slug: Rudiment(slug, family, float(beats), cycle) for family, slug, beats, cycle in rows}


RUDIMENTS: dict[str, Rudiment] = _read(_SHEET)
SLUGS: tuple[str, ...] = tuple(RUDIMENTS)  # a class's label is its index here
FAMILIES: dict[str, str] = {slug: rudiment.family for slug, rudiment in RUDIMENTS.items()}

# Where a cycle differs from the PAS sheet. The reason is always the same: SOUSA plays it so, and a model meant for its
# recordings must learn what they hold. "Sheet:" gives the sheet's sticking where another hand plays.
_EVEN = "the sheet holds the last note longer; SOUSA spaces all strokes evenly"
_REPEATED = "the sheet alternates the leading hand from one roll to the next; SOUSA always leads with the right"
_GRACES = (
    "SOUSA counts grace notes when it divides the cycle, so the main strokes are not evenly spaced as on the sheet"
)
DEVIATIONS: dict[str, str] = {
    **{slug: _GRACES for slug, rudiment in RUDIMENTS.items() if rudiment.family in ("flams", "drags")},
    "single_stroke_four": f"{_EVEN}; the first stroke is accented",
    "single_stroke_seven": f"{_EVEN}; the first and sixth strokes are accented; {_REPEATED}",
    "triple_stroke_roll": "the first stroke of each hand is accented; the sheet has no accents",
    "five_stroke_roll": f"{_EVEN}; {_REPEATED}",
    "six_stroke_roll": "the sheet holds the two accents longer; SOUSA spaces all strokes evenly",
    "seven_stroke_roll": _EVEN,
    "nine_stroke_roll": f"{_EVEN}; {_REPEATED}",
    "ten_stroke_roll": f"the accents stand at both ends. Sheet: RR LL RR LL >R >L; {_EVEN}",
    "eleven_stroke_roll": _EVEN,
    "thirteen_stroke_roll": f"{_EVEN}; {_REPEATED}",
    "fifteen_stroke_roll": _EVEN,
    "seventeen_stroke_roll": f"{_EVEN}; {_REPEATED}",
    "paradiddle_diddle": "SOUSA changes the leading hand. Sheet: >R L RR LL throughout",
    "flamacue": f"the flams are accented, on the sheet the second note is; {_GRACES}",
    "single_flammed_mill": f"the diddle is in the other hand. Sheet: l>RR L R r>LL R L; {_GRACES}",
    "pataflafla": f"flams fall on every other stroke. Sheet: lR L R rL; {_GRACES}",
    "swiss_army_triplet": f"both taps are in the other hand, and the lead changes. Sheet: lR R L throughout; {_GRACES}",
    "inverted_flam_tap": "Sheet: lR L rL R. SOUSA's is the flam tap begun on its tap, so the two differ only in where "
    f"the cycle starts; {_GRACES}",
    "flam_drag": f"the drag leads to an accent. Sheet: lR LL R rL RR L; {_GRACES}",
    "single_drag_tap": f"the drag's main stroke is accented, on the sheet the tap is; {_GRACES}",
    "double_drag_tap": f"SOUSA runs two drags into one of four grace notes. Sheet: llR llR >L rrL rrL >R; {_GRACES}",
    "lesson_25": f"SOUSA mixes drags and flams. Sheet: llR L >R throughout; {_GRACES}",
    "single_dragadiddle": f"a drag before a paradiddle. Sheet: the first stroke itself is doubled, RR L RR; {_GRACES}",
    "drag_paradiddle_1": f"the drag is on the first stroke. Sheet: >R llR L RR >L rrL R LL; {_GRACES}",
    "drag_paradiddle_2": f"drags and diddles stand elsewhere. Sheet: >R llR llR L RR; {_GRACES}",
    "double_ratamacue": f"the drags change hands. Sheet: llR llR L R >L; {_GRACES}",
    "triple_ratamacue": f"the drags change hands. Sheet: llR llR llR L R >L; {_GRACES}",
}

# Where the built-in set departs from SOUSA's recordings (not from their cycles), and why.
PLAYED_DIFFERENTLY: dict[str, str] = {
    "multiple_bounce_roll": "SOUSA packs a stroke's bounces into 10 to 25 ms, one thick click; ours fill the "
    "stroke's length, quicker and softer as a stick's do, and join into a roll",
    "every rudiment": "played from anywhere in its cycle, for a length that does not depend on it, at half or double "
    "tempo where that keeps its rate in the common range; else the number of strokes gives it away",
    "left-handed players": "they mirror the sticking; SOUSA's sample has none",
    "first stroke of a cycle": "struck 10 to 25 % harder, as a metre makes a drummer do; it is all that tells the "
    "inverted flam tap from the flam tap in a window cut at random",
    "drag, flam": "grace notes hang 24 to 52 ms before what they lead to, by the player's habit, not by a fixed part "
    "of a beat (nor do SOUSA's recordings), and vary more the less skilled the player is; a run of four keeps its "
    "first two in the rhythm",
}

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
    **{
        f"{number}_stroke_roll": f"{word}_stroke_roll"
        for number, word in {
            5: "five", 6: "six", 7: "seven", 9: "nine", 10: "ten", 11: "eleven", 13: "thirteen", 15: "fifteen",
            17: "seventeen",
        }.items()
    },
}  # fmt: skip


def canonical_slug(text: str) -> str:
    """The class that `text` names; case, spaces, hyphens and other punctuation do not matter.

    Raises:
        UserError: no such rudiment; the message names the nearest ones.
    """
    name = _spelt(text)
    if name in RUDIMENTS:
        return name
    near = nearest(text)
    hint = f"did you mean {near}?" if near else f"the 40 are: {', '.join(SLUGS)}"
    raise UserError(f"{text!r} is not one of the 40 rudiments; {hint}")


def nearest(text: str) -> str:
    """The classes whose names are like a wrong one, `flam_tap or flam`; empty if there is none."""
    near = difflib.get_close_matches(_spelt(text), [*SLUGS, *_ALIASES], n=3)
    return " or ".join(dict.fromkeys(_ALIASES.get(hit, hit) for hit in near))


def is_rudiment(text: str) -> bool:
    """Whether `text` names a class, in any spelling that `canonical_slug` takes."""
    return _spelt(text) in RUDIMENTS


def _spelt(text: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return _ALIASES.get(name, name)
