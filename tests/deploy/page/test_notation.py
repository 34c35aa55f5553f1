"""The notation of every rudiment shows its cycle."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from sousaphone.deploy.page.notation import in_words, notation
from sousaphone.rudiments import RUDIMENTS, Rudiment


def drawn(rudiment: Rudiment) -> ET.Element:
    return ET.fromstring(notation(rudiment))


@pytest.mark.parametrize("rudiment", RUDIMENTS.values(), ids=lambda each: each.slug)
def test_letters_are_the_sticking_with_small_grace_notes(rudiment: Rudiment) -> None:
    letters = sorted(drawn(rudiment).findall("text"), key=lambda each: float(each.get("x", 0)))
    assert [each.text for each in letters] == [stroke.hand for stroke in rudiment.strokes]
    small = ["grace" in each.get("class", "") for each in letters]
    assert small == [stroke.kind == "grace" for stroke in rudiment.strokes]


@pytest.mark.parametrize("rudiment", RUDIMENTS.values(), ids=lambda each: each.slug)
def test_marks_and_heads_are_above_their_letters(rudiment: Rudiment) -> None:
    svg = drawn(rudiment)
    letters = [float(each.get("x", 0)) for each in svg.findall("text")]
    assert sorted(float(each.get("cx", 0)) for each in svg.findall("ellipse")) == sorted(letters)
    marks = [float(each.get("d", "")[1:].split()[0]) for each in svg.findall("path[@class='accent']")]
    marked = [
        x for x, stroke in zip(sorted(letters), rudiment.strokes, strict=True) if stroke.kind in ("accent", "buzz")
    ]
    assert len(marks) == len(marked)
    assert all(abs(mark - x) < 8 for mark, x in zip(sorted(marks), marked, strict=True))
    assert float(svg.get("width", 0)) > max(letters)


@pytest.mark.parametrize(
    ("slug", "groups"), [("single_paradiddle", 2), ("flam_tap", 2), ("five_stroke_roll", 1), ("single_stroke_four", 1)]
)
def test_beams_join_the_halves_of_a_cycle_that_repeats(slug: str, groups: int) -> None:
    assert len(drawn(RUDIMENTS[slug]).findall("path[@class='beam']")) == groups


def test_label_names_every_stroke() -> None:
    assert in_words(RUDIMENTS["flam"]).split(": ")[1] == "left grace note, right accent, right grace note, left accent"
    assert drawn(RUDIMENTS["flam"]).get("aria-label") == in_words(RUDIMENTS["flam"])
