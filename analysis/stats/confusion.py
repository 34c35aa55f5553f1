"""What is taken for what: confusion counts, the worst pairs, F1 of each rudiment."""

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
    """A rudiment that was taken for another."""

    true: str
    predicted: str
    count: int  # how often, over all trials looked at
    heard: int  # how often the true one was heard

    @property
    def share(self) -> float:
        """The fraction of the true rudiment's clips that went this way."""
        return self.count / self.heard


def counts_of(predictions: pd.DataFrame, trial_ids: Sequence[str]) -> Counts:
    """[C, C] counts of these trials together; the row is the true class, the column the predicted one."""
    rows = predictions.loc[predictions.trial_id.isin(trial_ids), ["rudiment", "predicted"]]
    labels = pd.Index(SLUGS)
    true, predicted = labels.get_indexer(rows.rudiment), labels.get_indexer(rows.predicted)
    known = (true >= 0) & (predicted >= 0)
    return confusion_counts(true[known].astype(np.int64), predicted[known].astype(np.int64))


def worst_pairs(counts: Counts, most: int = 8) -> list[Pair]:
    """The confusions that cost the most clips, the worst first; of equal ones, that with the larger share.

    By clips and not by share, since one clip of a rudiment heard once would be a share of 100 %.
    """
    heard = counts.sum(axis=1)
    pairs = [
        Pair(SLUGS[true], SLUGS[predicted], int(counts[true, predicted]), int(heard[true]))
        for true, predicted in np.argwhere(counts)
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:most]


def f1_of_each(counts: Counts) -> npt.NDArray[np.float64]:
    """[C] the F1 of each class; NaN for a class that was not heard."""
    heard, predicted, hit = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    return np.where(heard > 0, 2 * hit / np.maximum(heard + predicted, 1), np.nan)


def spoken(slug: str) -> str:
    """A rudiment's name as one reads it."""
    return slug.replace("_", " ")
