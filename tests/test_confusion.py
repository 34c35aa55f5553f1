"""Confusion counts and their picture."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.confusion import confusion_counts, confusion_image, families, row_fractions
from sousaphone.rudiments import FAMILIES, SLUGS

CLASSES = len(SLUGS)


def test_true_classes_are_rows() -> None:
    counts = confusion_counts(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]), classes=3)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]


def test_row_fractions_sum_to_one_and_are_nan_without_clips() -> None:
    counts = confusion_counts(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2]))
    fractions = row_fractions(counts)
    assert fractions[0, :2] == pytest.approx([2 / 3, 1 / 3])
    assert np.isnan(fractions[1]).all()
    assert fractions[2].sum() == 1


def test_families_are_contiguous_and_cover_all_classes() -> None:
    blocks = families()
    assert [family for family, *_ in blocks] == list(dict.fromkeys(FAMILIES.values()))
    assert [begin for *_, begin, _ in blocks] == [0, *[end for *_, end in blocks[:-1]]]
    assert blocks[-1][2] == CLASSES
    assert all(FAMILIES[slug] == family for family, begin, end in blocks for slug in SLUGS[begin:end])


def test_picture_depends_only_on_the_matrix() -> None:
    every = np.arange(CLASSES)
    right, wrong = confusion_counts(every, every), confusion_counts(every, np.roll(every, 1))
    picture = confusion_image(right)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert (confusion_image(right) == picture).all()
    assert (confusion_image(wrong) != picture).any()
    assert (confusion_image(right) == picture).all()
    assert confusion_image(np.zeros_like(right)).shape == picture.shape
