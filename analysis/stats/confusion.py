"""Confusion counts, the most frequent confusions and the F1 of each rudiment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sousaphone.confusion import confusion_counts
from sousaphone.rudiments import SLUGS

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """A confusion: clips of one rudiment that were predicted as another."""

    true: str
    predicted: str
    count: int  # clips, summed over the trials
    support: int  # clips of the true rudiment, summed over the trials

    @property
    def fraction(self) -> float:
        """The fraction of the true rudiment's clips that were predicted so."""
        return self.count / self.support


def counts_of(predictions: pd.DataFrame, trial_ids: Sequence[str]) -> Counts:
    """Return the confusion matrix of these trials together, [C, C] counts (true class, predicted class)."""
    rows = predictions.loc[predictions.trial_id.isin(trial_ids), ["rudiment", "predicted"]]
    labels = pd.Index(SLUGS)
    true, predicted = labels.get_indexer(rows.rudiment), labels.get_indexer(rows.predicted)
    known = (true >= 0) & (predicted >= 0)
    return confusion_counts(true[known].astype(np.int64), predicted[known].astype(np.int64))


def worst_pairs(counts: Counts, most: int = 8) -> list[Pair]:
    """Return the confusions with the most clips, the worst first; equal counts are ordered by their fraction.

    They are ordered by clips, since the only clip of a rudiment would make a fraction of 100 %.
    """
    support = counts.sum(axis=1)
    pairs = [
        Pair(SLUGS[true], SLUGS[predicted], int(counts[true, predicted]), int(support[true]))
        for true, predicted in np.argwhere(counts)
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.fraction, pair.true, pair.predicted))[:most]


def f1_of_each(counts: Counts) -> npt.NDArray[np.float64]:
    """Return the F1 of each class, [C]; NaN for a class without clips."""
    support, predicted, hits = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    return np.where(support > 0, 2 * hits / np.maximum(support + predicted, 1), np.nan)


def spoken(slug: str) -> str:
    """Return a rudiment's name as plain text."""
    return slug.replace("_", " ")
