"""Scores of a model on labelled recordings: accuracy with an interval over players, F1, calibration, confusions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sousaphone.config import COVERED_SECONDS
from sousaphone.confusion import confusion_counts
from sousaphone.data.cache.decode import in_threads
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.deploy.predictor import Predictor
from sousaphone.errors import UserError
from sousaphone.scores import accuracy_interval, calibration_error
from sousaphone.text import first_few
from sousaphone.training import metrics


def summary(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], players: Sequence[str]
) -> dict[str, Any]:
    """Score probabilities [N, C] of N labelled clips.

    Returns:
        clips, players; accuracy, macro_f1 and top5 over clips; player_accuracy, the mean of the players' accuracies,
        and its 95 % interval (None below three of them); ece, the expected calibration error. See `sousaphone.scores`.
    """
    scores, truth = torch.tensor(probabilities), torch.tensor(labels)
    names, index = np.unique(np.asarray(players), return_inverse=True)
    correct = probabilities.argmax(1) == labels
    clips = np.bincount(index)
    mean, *interval = accuracy_interval(np.bincount(index, correct) / clips, clips)
    return {
        "clips": len(labels),
        "players": len(names),
        "accuracy": metrics.accuracy(scores, truth),
        "player_accuracy": mean,
        "player_accuracy_interval": None if math.isnan(interval[0]) else np.clip(interval, 0.0, 1.0).tolist(),
        "macro_f1": metrics.macro_f1(scores, truth),
        "top5": metrics.top_k(scores, truth),
        "ece": calibration_error(probabilities.max(1), correct),
    }


def evaluate(model: Predictor, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Score all clips of a data set: yield each clip's sample_id, player, rudiment and its `centre_window` and
    `averaged` probabilities [C]; see `results` for the scores.

    Raises a UserError for a clip that cannot be decoded, or a rudiment that the model does not have.
    """
    clips = dataset.clips
    if unknown := sorted(set(clips.rudiment) - set(model.classes)):
        raise UserError(
            f"{dataset.root} has rudiments that the model has no class for: {first_few(unknown)}; remove them"
        )
    sources = open_clips(dataset.root, clips.audio_path.tolist())
    scores = (
        in_threads(lambda clip: score_clip(model, *clip), sources)
        if model.device.type == "cpu"
        else (score_clip(model, *clip) for clip in sources)
    )
    for row, (centre, averaged) in zip(clips.itertuples(), scores, strict=True):
        yield {
            "sample_id": row.sample_id,
            "player": row.player,
            "rudiment": row.rudiment,
            "centre_window": centre,
            "averaged": averaged,
        }


def score_clip(
    model: Predictor, name: str, source: Path | BytesIO
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the probabilities [C] of a clip from its centre window, and from the mean logits of its windows."""
    samples, rate = read_samples(name, source)
    wave = model.resampled(samples, rate)
    centre, centre_length = model.windows(_central(wave, model.window))
    windows, lengths = model.windows(_central(wave, round(COVERED_SECONDS * model.config.sample_rate)))
    logits = model.score(np.concatenate([centre, windows]), np.concatenate([centre_length, lengths]))
    return model.combine(logits[:, :1], single=True), model.combine(logits[:, 1:])


def _central(wave: npt.NDArray[np.int16], samples: int) -> npt.NDArray[np.int16]:
    start = max(0, len(wave) - samples) // 2
    return wave[start : start + samples]


def results(model: Predictor, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of the rows of `evaluate`: those of `summary` for each way of scoring, and the confusion matrix
    [C, C] of the averaged probabilities, with true classes as rows."""
    number = {name: label for label, name in enumerate(model.classes)}
    labels = np.array([number[row["rudiment"]] for row in rows])
    players = [row["player"] for row in rows]
    found: dict[str, Any] = {
        way: summary(np.stack([row[way] for row in rows]), labels, players) for way in ("averaged", "centre_window")
    }
    predicted = np.stack([row["averaged"] for row in rows]).argmax(1)
    found["classes"] = list(model.classes)
    found["confusion"] = confusion_counts(labels, predicted, len(model.classes)).tolist()
    return found
