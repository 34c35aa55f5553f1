"""Pairs of classes that their strokes do not distinguish, as if both were played by one pattern.

Two classes that a generator plays by the same pattern, or that were labelled alike, look like any other pair that a
model confuses. Their strokes show it before training: neither does a classifier distinguish them, nor are the
sequences of one class farther from those of the other than from each other.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.covariance import ledoit_wolf
from sklearn.model_selection import GroupKFold

from sousaphone.data.inspect.stroke_sequences import Strokes, StrokeSequences
from sousaphone.rudiments import RUDIMENTS
from sousaphone.scores import accuracy_interval

EXAMPLES = 3  # clips of each class to listen to
_FOLDS = 5
_DISTINGUISHED = 0.55  # accuracy; classes of one pattern exceed 0.5 by chance only
_AGREEMENT = 0.9  # of classes of one pattern at least
_START, _LAGS, _NEAR = 16, 24, 4  # strokes: from the start, from each other, and with all products of attributes
_RIDGE = 1e-6  # variance of a feature that is constant in every class
_FLOOR = 0.1  # added to a standard deviation, so that a constant attribute has no correlation


@dataclass(frozen=True)
class Pair:
    """How far the strokes distinguish two classes.

    Attributes:
        accuracy: of clips classified as one of the two, by a classifier of other players' clips, 0 to 1; 0.5 is chance.
        low, high: 95 % interval of the accuracy, over players and clips; NaN for fewer than three players.
        agreement: 1 if a clip is as near to the other class as to its own, 0 if it is far from it; NaN if a class has
            a single player.
        players, clips: number of players and clips of both classes.
        sticking_only: both are written with the same strokes by other hands, and the hands are unknown.
        examples: indices of typical clips of each class, by different players where possible.
    """

    classes: tuple[str, str]
    accuracy: float
    low: float
    high: float
    agreement: float
    players: int
    clips: int
    sticking_only: bool
    examples: tuple[list[int], list[int]]

    @property
    def alike(self) -> bool:
        """Whether both sequences agree, and the classes are not distinguished significantly."""
        return self.agreement >= _AGREEMENT and not self.low > _DISTINGUISHED

    @property
    def suspicion(self) -> str:
        """What may be the reason if the classes are alike."""
        return "other sticking only, or defined alike?" if self.sticking_only else "defined alike?"


def pairs(clips: pd.DataFrame, sequences: StrokeSequences) -> list[Pair]:
    """Measure all pairs of classes with clips of at least two players, the least distinguished first.

    One linear discriminant analysis of all classes, with a common covariance (O. Ledoit and M. Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", 2004), is fitted per fold; a pair's accuracy
    compares the discriminants of its two classes only. The agreement is one minus the
    normalised energy distance of the classes' features (G. J. Székely and M. L. Rizzo, "Energy statistics", 2013),
    which is 0 for equal distributions; clips of the same player are not compared.

    Args:
        clips: one row per clip: rudiment, player.
        sequences: their strokes, in the same order.
    """
    players = pd.factorize(clips.player)[0]
    labels, classes = pd.factorize(clips.rudiment, sort=True)
    if players.max(initial=0) < 1:
        return []
    features = np.stack([stroke_features(strokes) for strokes in sequences.clips])
    features /= np.where(features.std(axis=0) > 1e-9, features.std(axis=0), 1)
    wins = _wins(features, labels, players, len(classes))
    agreement = _agreement(features, labels, players, len(classes))
    typical = [_typical(features, players, np.flatnonzero(labels == label)) for label in range(len(classes))]
    result = []
    for a, b in itertools.combinations(range(len(classes)), 2):
        own = np.where(labels == a, wins[:, b], np.where(labels == b, wins[:, a], np.nan))
        known = np.flatnonzero(np.isfinite(own))
        if not len(known) or not math.isfinite(agreement[a, b]):
            continue
        by_player = pd.Series(own[known]).groupby(players[known]).agg(["mean", "size"])
        mean, low, high = accuracy_interval(by_player["mean"].to_numpy(), by_player["size"].to_numpy())
        names = (str(classes[a]), str(classes[b]))
        same_strokes = "hand" not in sequences.attributes and _written(names[0]) == _written(names[1])
        counts = len(by_player), len(known)
        result.append(
            Pair(names, mean, low, high, float(agreement[a, b]), *counts, same_strokes, (typical[a], typical[b]))
        )
    return sorted(result, key=lambda pair: (pair.accuracy, -pair.agreement))


def stroke_features(strokes: Strokes) -> np.ndarray:
    """Return the features of a sequence of strokes, float [D]; they do not depend on the tempo or the loudness.

    A stroke has the attributes of `Strokes.values` and the time to the next one re the clip's median, as a logarithm.
    The features are the distribution of each attribute; correlations of each with itself 1 to 24 strokes later, and of
    each with every other 0 to 3 strokes later (of a periodic pattern, neither depends on its phase); the first 16
    strokes, for patterns that differ in their phase; and the number of strokes.
    """
    count = len(strokes.times)
    gaps = np.diff(strokes.times)
    gaps = np.append(gaps, np.median(gaps)) if count > 1 else np.ones(count)
    ratios = np.log2(np.maximum(gaps, 1e-4) / max(np.median(gaps), 1e-4)) if count else gaps
    attributes = np.concatenate([np.clip(ratios, -4, 3)[None], np.clip(strokes.values, -1.5, 1.5)])  # [A, N]
    first = np.zeros((len(attributes), _START))
    first[:, : min(count, _START)] = attributes[:, :_START]
    if not count:
        attributes = np.zeros((len(attributes), 1))
    mean, deviation = attributes.mean(axis=1), attributes.std(axis=1)
    quantiles = np.quantile(attributes, (0.1, 0.25, 0.5, 0.75, 0.9), axis=1)
    scaled = (attributes - mean[:, None]) / (deviation[:, None] + _FLOOR)
    products = np.zeros((_LAGS + 1, len(attributes), len(attributes)))
    for lag in range(min(_LAGS + 1, scaled.shape[1])):
        earlier, later = scaled[:, : scaled.shape[1] - lag], scaled[:, lag:]
        products[lag] = later @ earlier.T / earlier.shape[1]
    repeats = np.diagonal(products, axis1=1, axis2=2)[1:]
    parts = (mean, deviation, quantiles, repeats, products[:_NEAR], first, np.log1p(count))
    return np.concatenate([np.ravel(part) for part in parts])


def _wins(features: np.ndarray, labels: np.ndarray, players: np.ndarray, classes: int) -> np.ndarray:
    """Return [N, classes]: whether the discriminant of a clip's class exceeds that of another class, 0.5 if equal; NaN
    where another player has no clip of either."""
    wins = np.full((len(labels), classes), np.nan)
    folds = GroupKFold(min(_FOLDS, len(np.unique(players))), shuffle=True, random_state=0)
    for train, test in folds.split(features, labels, players):
        present, own = np.unique(labels[train], return_inverse=True)
        means = np.stack([features[train][own == index].mean(axis=0) for index in range(len(present))])
        covariance, _ = ledoit_wolf(features[train] - means[own], assume_centered=True)
        weights = np.linalg.solve(covariance + _RIDGE * np.eye(len(covariance)), means.T)  # [D, present]
        scores = np.full((len(test), classes), np.nan)
        scores[:, present] = features[test] @ weights - (means.T * weights).sum(axis=0) / 2
        excess = scores[np.arange(len(test)), labels[test], None] - scores
        wins[test] = (np.sign(excess) + 1) / 2
    return wins


def _agreement(features: np.ndarray, labels: np.ndarray, players: np.ndarray, classes: int) -> np.ndarray:
    """Return one minus the normalised energy distance of each pair of classes, [classes, classes]."""
    points = features.astype(np.float32)
    squares = (points**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    others = (players[:, None] != players).astype(np.float32)
    of_class = np.eye(classes, dtype=np.float32)[labels]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (of_class.T @ (distances * others) @ of_class) / (of_class.T @ others @ of_class)
        within = np.diagonal(mean)
        agreement = (within[:, None] + within) / 2 / mean
    return np.where(mean == 0, 1.0, agreement)  # sequences without any difference


def _typical(features: np.ndarray, players: np.ndarray, rows: np.ndarray) -> list[int]:
    """Return the clips of a class that are nearest to its mean, of different players if there are enough."""
    centre = features[rows].mean(axis=0)
    nearest = rows[np.argsort(((features[rows] - centre) ** 2).sum(axis=1), kind="stable")]
    repeated = pd.Series(players[nearest]).duplicated().to_numpy()
    return [*nearest[~repeated], *nearest[repeated]][:EXAMPLES]


def _written(slug: str) -> tuple[str, ...]:
    """Return the strokes of a rudiment's cycle without hands, from the same stroke on for shifted cycles."""
    kinds = ["tap" if stroke.kind == "diddle" else stroke.kind for stroke in RUDIMENTS[slug].strokes]
    period = next(n for n in range(1, len(kinds) + 1) if len(kinds) % n == 0 and kinds == kinds[:n] * (len(kinds) // n))
    return min(tuple(kinds[start:period] + kinds[:start]) for start in range(period))
