"""Confidence of answers: temperatures, and thresholds below which an answer is 'undecided', from validation clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import softmax

from sousaphone.deploy.model_folder import Calibration, Threshold
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.runs.predictions import AVERAGED_LOGITS, DAMAGED, LOGITS, NEEDED, read_table
from sousaphone.text import one_line

MOST_ERRORS = (0.05, 0.1, 0.2)  # fractions of wrong answers for which thresholds are chosen
DEFAULT_ERROR = 0.1
_FEWEST_ANSWERS = 10  # fewest validation clips above a threshold


@dataclass(frozen=True)
class Predictions:
    """Logits of labelled clips, as a trial has written them."""

    sample_ids: list[str]
    players: list[str]
    labels: npt.NDArray[np.int64]  # [N]
    centre: npt.NDArray[np.float32]  # [N, C], of the centre window
    averaged: npt.NDArray[np.float32] | None = None  # [N, C], the mean over windows; None in older runs

    def __len__(self) -> int:
        return len(self.labels)


def read_predictions(path: Path) -> Predictions:
    """Read predictions.parquet of a trial; raises a UserError if it is damaged."""
    try:
        table = read_table(path, [*NEEDED, *LOGITS, *AVERAGED_LOGITS])
        centre, *averaged = (table[own].to_numpy(np.float32) for own in (LOGITS, AVERAGED_LOGITS) if own[0] in table)
        if table.empty or not all(np.isfinite(logits).all() for logits in (centre, *averaged)):
            raise ValueError("no rows, or logits that are not finite")
        ids, players = (table[name].astype(str).tolist() for name in ("sample_id", "player"))
    except DAMAGED as error:
        raise UserError(f"{path} is damaged ({one_line(error, 200)}); restore it from a copy") from None
    labels = pd.Index(SLUGS).get_indexer(table["rudiment"]).astype(np.int64)
    return Predictions(ids, players, labels, centre, averaged[0] if averaged else None)


def probabilities(logits: npt.NDArray[np.float32], temperature: float | None) -> npt.NDArray[np.float64]:
    """Softmax of logits [..., C] at a temperature (None: 1)."""
    found: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / (temperature or 1.0), axis=-1)
    return found


def calibrated(
    temperature: float | None, averaged: float | None, validation: Sequence[tuple[Predictions, float]] | None
) -> Calibration:
    """Return the calibration of a model.

    Args:
        validation: for each member, its predictions on the validation clips and the temperature of its averaged
            logits; None if not known.
    """
    chosen = None
    known = [(rows.averaged, t) for rows, t in validation or () if rows.averaged is not None and len(rows)]
    if validation and len(known) == len(validation):
        mean = np.mean([probabilities(logits, t) for logits, t in known], axis=0)
        chosen = thresholds(mean, validation[0][0].labels)
    default = next((each.confidence for each in chosen or () if each.most_error == DEFAULT_ERROR), None)
    return Calibration(temperature, averaged, default, chosen)


def thresholds(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> tuple[Threshold, ...]:
    """Choose for each error in `MOST_ERRORS` the lowest confidence above which answers have at most that error.

    Args:
        probabilities: [N, C].
        labels: [N].
    """
    confidence, wrong = probabilities.max(1), probabilities.argmax(1) != labels
    order = np.argsort(-confidence, kind="stable")
    ranked, answers = confidence[order], np.arange(1, len(order) + 1)
    errors = np.cumsum(wrong[order]) / answers
    # Clips of equal confidence are on the same side.
    possible = np.append(ranked[1:] < ranked[:-1], True) & (answers >= min(_FEWEST_ANSWERS, len(order)))
    found = []
    for most in MOST_ERRORS:
        within = np.flatnonzero(possible & (errors <= most))
        if len(within):
            last = int(within[-1])
            limit = 0.0 if last == len(order) - 1 else float(ranked[last])
            found.append(Threshold(most, limit, (last + 1) / len(order), float(errors[last]), len(order)))
        else:
            found.append(Threshold(most, 1.0, 0.0, None, len(order)))
    return tuple(found)
