"""The pretext must not know the 40 classes."""

from __future__ import annotations

import itertools

import pytest

from scripts.pretrain_nano.motifs import alike, form, make_motifs
from sousaphone.rudiments import RUDIMENTS, Rudiment


def heard(cycle: str) -> tuple[tuple[str, str], ...]:
    return form(Rudiment("test", "test", 1.0, cycle))


def test_no_motif_is_a_rudiment_from_wherever_it_begins_and_whichever_hand_leads() -> None:
    other = {"R": "L", "L": "R"}
    for motif, rudiment in itertools.product(make_motifs(300, seed=0), RUDIMENTS.values()):
        mine, theirs = form(motif), form(rudiment)
        swapped = tuple((other[hand], kind) for hand, kind in theirs)
        for cycle in (theirs, swapped):
            assert all(mine != cycle[at:] + cycle[:at] for at in range(len(cycle))), (motif.notation, rudiment.slug)


def test_no_motif_is_nearly_another_one() -> None:
    forms = [form(motif) for motif in make_motifs(120, seed=1)]
    assert not any(alike(one, other) for one, other in itertools.combinations(forms, 2))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("RR LL", "R R L L", True),  # a diddle is two taps
        ("RR LL", "R L L R", True),  # begun elsewhere
        (">R L RR >L R LL", ">L R LL >R L RR", True),  # led by the other hand
        ("R L R L", "R L", True),  # once or twice
        (">R L R L", "R L R L", False),  # a roll repeats itself after two strokes, the other after four
        ("l>R L R r>L R L", "l>R L R r>L R >L", True),  # one stroke of eight
        ("l>R L R r>L R L", "l>R L >R r>L R >L", False),  # two
        ("R L R", "R L L R", False),
    ],
)
def test_what_counts_as_alike(one: str, other: str, same: bool) -> None:
    assert alike(heard(one), heard(other)) == same


def test_equal_seeds_give_equal_motifs_and_fewer_are_the_first_of_more() -> None:
    assert make_motifs(20, seed=3) == make_motifs(40, seed=3)[:20]
    assert make_motifs(20, seed=3) != make_motifs(20, seed=4)
