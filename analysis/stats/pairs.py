"""Pairs of arms, compared on the same test clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from analysis.load.predictions import correct_by_clip
from analysis.load.trials import unlike
from analysis.stats.arms import Arm
from analysis.stats.contrast import Contrast, contrast
from analysis.stats.statistics import holm


@dataclass(frozen=True)
class Pair:
    """Two arms compared on the test players; `p` may be adjusted for the number of pairs."""

    first: Arm
    second: Arm
    contrast: Contrast
    p: float


def compare(
    first: Arm, second: Arm, predictions: pd.DataFrame, pooled: tuple[float, float] | None = None
) -> Contrast | None:
    """Compare two arms on their common test clips, see `contrast`; None for fewer than two players."""
    names = [[trial.trial_id for trial in arm.shown] for arm in (first, second)]
    correct, players = correct_by_clip(predictions, [*names[0], *names[1]])
    one, other = (correct[correct.columns.intersection(own)] for own in names)
    try:
        return contrast(one, other, players, pooled=pooled)
    except ValueError:
        return None


def other_pairs(field: Sequence[Arm], predictions: pd.DataFrame) -> list[Pair]:
    """Compare all pairs but that of the first two arms; p is adjusted by Holm's method."""
    found = _pairs(list(combinations(field, 2))[1:], predictions)
    return [replace(pair, p=p) for pair, p in zip(found, holm([pair.p for pair in found]), strict=True)]


def augmentation_pairs(groups: Sequence[Arm], predictions: pd.DataFrame) -> list[Pair]:
    """Compare augmented with unaugmented arms that were measured under equal conditions; p is not adjusted."""
    arms_of: dict[tuple[str, ...], dict[bool, Arm]] = {}
    for arm in groups:
        arms_of.setdefault((arm.model, arm.strategy, arm.lora_targets, arm.tag), {})[arm.augment] = arm
    pairs = [(found[True], found[False]) for found in arms_of.values() if len(found) == 2]
    return _pairs([(on, off) for on, off in pairs if not unlike([*on.shown, *off.shown])], predictions)


def _pairs(pairs: Sequence[tuple[Arm, Arm]], predictions: pd.DataFrame) -> list[Pair]:
    """Compare the pairs that have enough players."""
    found = [(first, second, compare(first, second, predictions)) for first, second in pairs]
    return [Pair(first, second, each, each.p) for first, second, each in found if each is not None]
