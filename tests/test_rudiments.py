"""The 40 rudiments equal the cycles of SOUSA, and all usual spellings of their names are accepted."""

import csv
from itertools import groupby
from pathlib import Path

import pytest

from sousaphone.errors import UserError
from sousaphone.rudiments import FAMILIES, RUDIMENTS, SLUGS, Rudiment, canonical_slug

# One cycle of each rudiment from SOUSA's strokes.parquet: intended onsets in beats from the start of the cycle. The
# length of the cycle is blank if SOUSA's clips contain a single cycle. Bounces of buzz strokes vary and are omitted.
TABLE = Path(__file__).parent / "reference" / "rudiment_cycles.csv"


def reference() -> dict[str, list[dict[str, str]]]:
    with TABLE.open(newline="") as file:
        return {slug: list(rows) for slug, rows in groupby(csv.DictReader(file), key=lambda row: row["slug"])}


def test_there_are_forty_rudiments_in_four_families():
    assert len(SLUGS) == len(set(SLUGS)) == 40
    assert set(reference()) == set(SLUGS)
    assert {family: list(FAMILIES.values()).count(family) for family in FAMILIES.values()} == {
        "rolls": 15,
        "diddles": 4,
        "flams": 11,
        "drags": 10,
    }


@pytest.mark.parametrize("slug", SLUGS)
def test_cycle_equals_the_one_in_sousa(slug):
    def whole(text: str) -> int | None:
        return int(text) if text else None

    rudiment, rows = RUDIMENTS[slug], reference()[slug]
    assert [(s.hand, s.kind, s.accent, s.diddle, s.parent) for s in rudiment.strokes] == [
        (row["hand"], row["stroke_type"], row["accent"] == "1", whole(row["diddle"]), whole(row["parent"]))
        for row in rows
    ]
    assert [s.onset for s in rudiment.strokes] == pytest.approx([float(row["onset_beats"]) for row in rows], abs=1e-5)
    if rows[0]["cycle_beats"]:
        assert rudiment.beats == float(rows[0]["cycle_beats"])


def test_notation_is_parsed():
    strokes = Rudiment("example", "drags", 2, "ll>R L RR zL").strokes
    assert [s.hand for s in strokes] == list("LLRLRRL")
    assert [s.kind for s in strokes] == ["grace", "grace", "accent", "tap", "diddle", "diddle", "buzz"]
    assert [s.parent for s in strokes] == [2, 2, None, None, None, None, None]
    with pytest.raises(ValueError, match="not a stroke"):
        _ = Rudiment("example", "rolls", 1, "R X").strokes


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("flam", "flam"),
        ("Flam-Tap", "flam_tap"),
        ("lesson 25", "lesson_25"),
        ("single_paradiddle_diddle", "paradiddle_diddle"),
        ("Single Paradiddle-Diddle", "paradiddle_diddle"),
        ("double_stroke_roll", "double_stroke_open_roll"),
        ("Drag Paradiddle #1", "drag_paradiddle_1"),
        ("Drag Paradiddle No. 2", "drag_paradiddle_2"),
        ("7 stroke roll", "seven_stroke_roll"),
        ("MULTIPLE BOUNCE ROLL", "multiple_bounce_roll"),
    ],
)
def test_usual_spellings_are_accepted(text, slug):
    assert canonical_slug(text) == slug


def test_slugs_are_accepted_with_hyphens_and_spaces():
    for slug in SLUGS:
        assert canonical_slug(slug) == canonical_slug(slug.replace("_", "-")) == canonical_slug(slug.replace("_", " "))
        assert canonical_slug(slug) == slug


def test_unknown_name_is_an_error_with_similar_names():
    with pytest.raises(UserError, match=r"flam_tapp.* flam_tap") as error:
        canonical_slug("flam_tapp")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"xyz.*single_stroke_roll"):
        canonical_slug("xyz")
