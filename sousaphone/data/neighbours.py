"""Nearest-neighbour classification on a few features."""

from __future__ import annotations

import numpy as np

from sousaphone.rudiments import SLUGS

_CHUNK = 256  # rows whose distances are computed at a time


def nearest_votes(
    features: np.ndarray, known: np.ndarray, labels: np.ndarray, groups: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Count the nearest known clips [K, D] of each clip [N, D] by class, [N, C]; all at the smallest distance count.

    Args:
        labels: int [K], indices into SLUGS.
        groups: group of each clip [N] and of each known clip [K]; known clips of a clip's own group are excluded.
    """
    one_hot = np.eye(len(SLUGS))[labels]  # [K, C]
    votes = np.zeros((len(features), len(SLUGS)))
    for start in range(0, len(features), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distances = sum((a[rows, None] - b) ** 2 for a, b in zip(features.T, known.T, strict=True))  # [rows, K]
        if groups is not None:
            distances = np.where(groups[0][rows, None] == groups[1], np.inf, distances)
        votes[rows] = (distances == np.min(distances, axis=1, keepdims=True)) @ one_hot
    return votes
