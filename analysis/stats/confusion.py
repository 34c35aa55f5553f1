"""Confusion counts, the most frequent confusions and the F1 of each rudiment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sousaphone.confusion import confusion_counts
from sousaphone.rudiments import SLUGS
from sousaphone.scores import FEWEST_PLAYERS, wilson_interval

Counts = npt.NDArray[np.int64]

_DRAWS = 2_000  # of the bootstrap


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


def macro_f1(predictions: pd.DataFrame, trial_ids: Sequence[str]) -> float:
    """Return the mean F1 over the rudiments of the clips, averaged over the trials."""
    return float(np.mean([np.nanmean(f1_of_each(counts_of(predictions, [trial_id]))) for trial_id in trial_ids]))


@dataclass(frozen=True)
class RudimentF1:
    """The F1 of one rudiment, averaged over seeds, and its 95 % interval."""

    slug: str
    f1: float
    low: float  # NaN for fewer than FEWEST_PLAYERS players
    high: float
    clips: int
    players: int


def f1_by_rudiment(rows: pd.DataFrame) -> list[RudimentF1]:
    """Return the F1 of each rudiment in one arm's rows (trial_id, sample_id, player, rudiment, predicted).

    The interval is the wider of a percentile bootstrap of players, with fixed draws, and Wilson's interval over the
    clips that are of the rudiment or predicted as it: F1 is a function of the fraction of these that are correct.
    """
    labels, classes = pd.Index(SLUGS), len(SLUGS)
    true, predicted = labels.get_indexer(rows.rudiment), labels.get_indexer(rows.predicted)
    players, names = pd.factorize(rows.player, sort=True)
    trials = pd.factorize(rows.trial_id)[0]
    weights = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=_DRAWS)
    weights = np.vstack([np.ones_like(weights[:1]), weights])  # the first is the sample itself

    def counts(codes: npt.NDArray[np.intp], which: npt.NDArray[np.bool_]) -> Counts:
        """Clips of each player and class, [players, C]."""
        places = players[which] * classes + codes[which]
        return np.bincount(places, minlength=len(names) * classes).reshape(len(names), classes)

    scores, involved = [], []
    for own in (trials == trial for trial in np.unique(trials)):
        support, hits = counts(true, own), counts(true, own & (true == predicted))
        either = support + counts(predicted, own)
        drawn_f1 = 2 * (weights @ hits) / np.maximum(weights @ either, 1)
        # A draw without the rudiment says nothing of it.
        scores.append(np.where(weights @ support > 0, drawn_f1, np.nan))
        involved.append((either - hits).sum(axis=0))
    known = np.flatnonzero(support.sum(axis=0))
    drawn, number = np.mean(scores, axis=0)[:, known], np.mean(involved, axis=0)[known]
    low, high = np.nanpercentile(drawn[1:], [2.5, 97.5], axis=0)
    found = []
    for place, label in enumerate(known.tolist()):
        f1, several = float(drawn[0, place]), int((support[:, label] > 0).sum())
        least, most = (2 * end / (1 + end) for end in wilson_interval(f1 / (2 - f1), float(number[place])))
        ends = min(least, float(low[place])), max(most, float(high[place]))
        shown = ends if several >= FEWEST_PLAYERS else (math.nan, math.nan)
        found.append(RudimentF1(SLUGS[label], f1, *shown, int(support[:, label].sum()), several))
    return found
