"""The confusion matrix as a picture: what is counted, and that it is seen where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from sousaphone.confusion import confusion_counts, confusion_image, families, row_shares
from sousaphone.rudiments import FAMILIES, SLUGS

CLASSES = len(SLUGS)


def test_the_true_classes_are_the_rows() -> None:
    counts = confusion_counts(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 0]), classes=3)
    assert counts.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]


def test_a_row_adds_up_to_one_and_a_class_that_was_not_heard_has_none() -> None:
    counts = confusion_counts(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 2]))
    shares = row_shares(counts)
    assert shares[0, :2] == pytest.approx([2 / 3, 1 / 3])
    assert np.isnan(shares[1]).all()
    assert shares[2].sum() == 1


def test_families_are_blocks_of_neighbouring_classes_and_leave_none_out() -> None:
    blocks = families()
    assert [family for family, *_ in blocks] == list(dict.fromkeys(FAMILIES.values()))
    assert [begin for *_, begin, _ in blocks] == [0, *[end for *_, end in blocks[:-1]]]
    assert blocks[-1][2] == CLASSES
    assert all(FAMILIES[slug] == family for family, begin, end in blocks for slug in SLUGS[begin:end])


def test_the_picture_is_the_same_every_time_and_differs_with_the_matrix() -> None:
    every = np.arange(CLASSES)
    right, wrong = confusion_counts(every, every), confusion_counts(every, np.roll(every, 1))
    picture = confusion_image(right)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert (confusion_image(right) == picture).all()
    assert (confusion_image(wrong) != picture).any()
    assert (confusion_image(right) == picture).all()  # nothing of another matrix stays
    # No clips at all is a picture, too.
    assert confusion_image(np.zeros_like(right)).shape == picture.shape
