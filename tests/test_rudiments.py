"""The 40 rudiments equal the cycles found in SOUSA, and every usual spelling of their names is understood."""

import csv
from itertools import groupby
from pathlib import Path

import pytest

from sousaphone.errors import UserError
from sousaphone.rudiments import DEVIATIONS, FAMILIES, RUDIMENTS, SLUGS, Rudiment, canonical_slug

# One cycle of each rudiment as SOUSA's strokes.parquet has it: intended onsets in beats from the cycle's start; the
# cycle's length is blank where SOUSA's clips hold a single cycle. Bounces of buzz strokes, which vary, are left out.
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
def test_a_cycle_equals_the_one_in_sousa(slug):
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


def test_every_deviation_names_a_rudiment_and_gives_a_reason():
    assert set(DEVIATIONS) <= set(SLUGS)
    assert all(len(reason) > 20 for reason in DEVIATIONS.values())


def test_the_notation_reads_as_a_drummer_would():
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
def test_usual_spellings_name_their_rudiment(text, slug):
    assert canonical_slug(text) == slug


def test_every_slug_names_itself_with_hyphens_and_spaces_too():
    for slug in SLUGS:
        assert canonical_slug(slug) == canonical_slug(slug.replace("_", "-")) == canonical_slug(slug.replace("_", " "))
        assert canonical_slug(slug) == slug


def test_an_unknown_name_is_refused_in_one_line_with_near_misses():
    with pytest.raises(UserError, match="'flam_tapp' is not one of the 40 rudiments; did you mean flam_tap") as error:
        canonical_slug("flam_tapp")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the 40 are: single_stroke_roll"):
        canonical_slug("xyz")
