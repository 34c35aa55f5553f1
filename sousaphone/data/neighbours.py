"""The nearest clips by a few features, and the classes that they vote for."""

from __future__ import annotations

import numpy as np

from sousaphone.rudiments import SLUGS

_ROWS = 256  # whose distances are in memory at a time


def nearest_votes(
    features: np.ndarray, known: np.ndarray, labels: np.ndarray, groups: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """How many of the nearest known clips are of each class; all that are equally near vote.

    Args:
        features: [N, D].
        known: [K, D]; labels: int [K], indices into SLUGS.
        groups: of the clips [N] and of the known ones [K]; one of a clip's own group does not vote.

    Returns:
        [N, C].
    """
    is_label = np.eye(len(SLUGS))[labels]  # [K, C]
    votes = np.zeros((len(features), len(SLUGS)))
    for start in range(0, len(features), _ROWS):
        rows = slice(start, start + _ROWS)
        apart = sum((one[rows, None] - other) ** 2 for one, other in zip(features.T, known.T, strict=True))  # [rows, K]
        if groups is not None:
            apart = np.where(groups[0][rows, None] == groups[1], np.inf, apart)
        votes[rows] = (apart == np.min(apart, axis=1, keepdims=True)) @ is_label
    return votes
