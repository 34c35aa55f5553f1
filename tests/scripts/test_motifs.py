"""Motifs of pretraining must not be similar to the 40 rudiments."""

from __future__ import annotations

import itertools

import pytest

from scripts.pretrain_nano.motifs import form, make_motifs, similar
from sousaphone.rudiments import RUDIMENTS, Rudiment


def form_of(cycle: str) -> tuple[tuple[str, str], ...]:
    return form(Rudiment("test", "test", 1.0, cycle))


def test_no_motif_is_a_rudiment_rotated_or_mirrored() -> None:
    other = {"R": "L", "L": "R"}
    for motif, rudiment in itertools.product(make_motifs(300, seed=0), RUDIMENTS.values()):
        mine, theirs = form(motif), form(rudiment)
        swapped = tuple((other[hand], kind) for hand, kind in theirs)
        for cycle in (theirs, swapped):
            assert all(mine != cycle[at:] + cycle[:at] for at in range(len(cycle))), (motif.notation, rudiment.slug)


def test_no_two_motifs_are_similar() -> None:
    forms = [form(motif) for motif in make_motifs(120, seed=1)]
    assert not any(similar(one, other) for one, other in itertools.combinations(forms, 2))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("RR LL", "R R L L", True),  # a diddle is two taps
        ("RR LL", "R L L R", True),  # another start
        (">R L RR >L R LL", ">L R LL >R L RR", True),  # the other hand leads
        ("R L R L", "R L", True),  # one or two periods
        (">R L R L", "R L R L", False),  # periods of two and of four strokes
        ("l>R L R r>L R L", "l>R L R r>L R >L", True),  # one stroke of eight
        ("l>R L R r>L R L", "l>R L >R r>L R >L", False),  # two
        ("R L R", "R L L R", False),
    ],
)
def test_similarity(one: str, other: str, expected: bool) -> None:
    assert similar(form_of(one), form_of(other)) == expected


def test_seed_determines_motifs_and_fewer_are_a_prefix() -> None:
    assert make_motifs(20, seed=3) == make_motifs(40, seed=3)[:20]
    assert make_motifs(20, seed=3) != make_motifs(20, seed=4)
