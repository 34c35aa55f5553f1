"""Simple ways to tell the rudiments, on the very seconds that the trials are scored on: what a trial must beat.

Each is trained on the training clips' centre windows; what there is to choose is chosen on the validation clips, by
macro F1 as among trials; the test clips, of which no baseline sees a label, are scored once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.backbones.registry import REGISTRY
from sousaphone.baselines.descriptors import Heard, embeddings, log_mel_features, onset_features
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import build_caches
from sousaphone.data.dataset import Dataset
from sousaphone.data.neighbours import nearest_votes
from sousaphone.data.splits import SPLITS
from sousaphone.model import backbone_of
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import Baseline
from sousaphone.training import metrics

NEIGHBOURS = (1, 5, 20)
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C, the inverse of the regularisation
FEW_CLIPS = 200  # that a full-size backbone hears on a CPU in bearable time
_KNN = "knn-"
_STEPS = 300  # of the logistic regression's optimiser; one that has not converged by then is good enough

Describe = Callable[[ClipSet, int, Heard], Tensor]  # clips at a rate, Hz, to features float32 [N, D] on the CPU


@dataclass(frozen=True)
class Fitted:
    """A baseline that is ready to be scored."""

    predict: Callable[[Tensor], Tensor]  # features [N, D] to labels int64 [N]
    chosen: str  # what was chosen for it, in words


@dataclass(frozen=True)
class Labelled:
    """One split's features, float32 [N, D], and labels, int64 [N]."""

    features: Tensor
    labels: Tensor


Fit = Callable[[Labelled, Labelled], Fitted]  # of training and of validation clips


@dataclass(frozen=True)
class Hearing:
    """A run's clips as its trials hear them in evaluation."""

    dataset: Dataset
    trials: Mapping[str, TrainConfig]  # the first trial of each backbone, by its name
    device: torch.device  # where backbones are run
    heard: Heard = lambda clips: None  # called between batches; a baseline hears all clips once

    def clips(self, rate: int, device: torch.device) -> dict[str, ClipSet]:
        """Training, validation and test clips at a sample rate, Hz."""
        trial = next(iter(self.trials.values()))
        cache = build_caches(self.dataset, [rate], Path(trial.cache_dir), progress=False)[rate]
        return {
            split: ClipSet(cache, self.dataset.clips, split, trial.clip_seconds, device, trial.seed) for split in SPLITS
        }


def titles(models: Iterable[str]) -> dict[str, str]:
    """What each baseline of a run over these backbones is, by its name."""
    return {
        "majority": "the most frequent class",
        "onsets": "nearest neighbour by count and rate of onsets",
        "logmel": "logistic regression on pooled log-mels",
        **{f"{_KNN}{model}": f"nearest neighbours by frozen {REGISTRY[model].title}" for model in models},
    }


def skipped(name: str, hearing: Hearing) -> str:
    """Why a baseline is not to be measured; empty if it is."""
    trial = hearing.trials.get(name.removeprefix(_KNN))
    heavy = trial is not None and trial.scale == "base" and hearing.device.type == "cpu"
    if heavy and len(hearing.dataset.clips) > FEW_CLIPS:
        return f"a full-size model on a CPU, and more than {FEW_CLIPS} clips"
    return ""


def measure_baseline(name: str, hearing: Hearing) -> tuple[Baseline, pd.DataFrame]:
    """One baseline, fitted and scored, and its answers to the test clips: sample_id, player, rudiment, predicted.

    Args:
        name: one of `titles`.

    Raises:
        RuntimeError, MemoryError: out of memory, or the device fails.
        ValueError: there is nothing to tell apart (one class), or nothing to tell it by (features without a number).
        OSError, UserError: waveforms or weights cannot be read.
    """
    began = time.perf_counter()
    describe, fit, rate, device = _way(name, hearing)
    clips = hearing.clips(rate, device)
    split = {which: Labelled(describe(own, rate, hearing.heard), own.labels) for which, own in clips.items()}
    for which, data in split.items():
        if not data.features.isfinite().all():
            raise ValueError(f"what it makes of the {which} clips is not finite")
    fitted = fit(split["train"], split["validation"])
    validated, tested = fitted.predict(split["validation"].features), fitted.predict(split["test"].features)
    scores = _scores("val", validated, split["validation"].labels) | _scores("test", tested, split["test"].labels)
    answers = clips["test"].table[["sample_id", "player", "rudiment"]]
    answers = answers.assign(predicted=[SLUGS[label] for label in tested.tolist()])
    title = titles(hearing.trials)[name]
    return Baseline(name, title, scores, time.perf_counter() - began, fitted.chosen), answers


def _way(name: str, hearing: Hearing) -> tuple[Describe, Fit, int, torch.device]:
    """How a baseline hears, how it is fitted, at which sample rate and where."""
    # There are waveforms at the rates of the run's backbones; what is looked at here, all of them have.
    rates, cpu = sorted({REGISTRY[model].sample_rate for model in hearing.trials}), torch.device("cpu")
    if name == "majority":
        return _nothing, fit_majority, rates[0], cpu
    if name == "onsets":
        return onset_features, fit_nearest, rates[0], cpu
    if name == "logmel":
        return log_mel_features, fit_logistic, rates[0], hearing.device
    trial = hearing.trials[name.removeprefix(_KNN)]
    backbone = backbone_of(trial).to(hearing.device)
    return partial(embeddings, backbone, trial.eval_batch), fit_neighbours, backbone.spec.sample_rate, hearing.device


def _scores(prefix: str, predicted: Tensor, labels: Tensor) -> dict[str, float]:
    certain = F.one_hot(predicted, len(SLUGS))  # as logits, for trials and baselines share their metrics
    return {
        f"{prefix}_acc": metrics.accuracy(certain, labels),
        f"{prefix}_macro_f1": metrics.macro_f1(certain, labels),
    }


def _nothing(clips: ClipSet, rate: int, heard: Heard) -> Tensor:
    heard(len(clips))
    return torch.zeros(len(clips), 0)


def fit_majority(train: Labelled, validation: Labelled) -> Fitted:
    """The training clips' most frequent class; of equally frequent ones the first."""
    label = int(train.labels.bincount().argmax())
    return Fitted(lambda features: torch.full((len(features),), label), SLUGS[label])


def fit_nearest(train: Labelled, validation: Labelled) -> Fitted:
    """One nearest neighbour by columns of unit deviation; the equally near vote, and of a tie the first class wins."""
    scale = train.features.std(dim=0, correction=0).clamp(min=1e-12)
    known, labels = (train.features / scale).numpy(), train.labels.numpy()

    def predict(features: Tensor) -> Tensor:
        return torch.from_numpy(nearest_votes((features / scale).numpy(), known, labels).argmax(1))

    return Fitted(predict, "1 neighbour")


def fit_neighbours(train: Labelled, validation: Labelled) -> Fitted:
    """k nearest neighbours by cosine, k chosen on the validation clips; of a tie the first class wins."""
    known = F.normalize(train.features, dim=1)

    def predict(features: Tensor, k: int) -> Tensor:
        votes = []
        for rows in F.normalize(features, dim=1).split(1024):
            nearest = (rows @ known.T).topk(min(k, len(known)), dim=1).indices  # [rows, k]
            votes.append(F.one_hot(train.labels[nearest], len(SLUGS)).sum(1))
        return torch.cat(votes).argmax(1)

    return _best_on(validation, (Fitted(partial(predict, k=k), f"k={k}") for k in NEIGHBOURS))


def fit_logistic(train: Labelled, validation: Labelled) -> Fitted:
    """Logistic regression on standardised columns, its regularisation chosen on the validation clips.

    Raises:
        ValueError: the training clips are all of one class.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    def predict(model: Any, features: Tensor) -> Tensor:
        return torch.from_numpy(model.predict(features.numpy()))

    def candidates() -> Iterator[Fitted]:
        for strength in STRENGTHS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_STEPS))
            # Its products are so small that BLAS's threads spend ten times as long waiting for each other.
            with threadpool_limits(1), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.filterwarnings("ignore", "The number of unique classes")  # of few clips: 40 are meant
                model.fit(train.features.numpy(), train.labels.numpy())
            yield Fitted(partial(predict, model), f"C={strength:g}")

    return _best_on(validation, candidates())


def _best_on(validation: Labelled, candidates: Iterable[Fitted]) -> Fitted:
    """The best by macro F1, as among trials; of equally good ones the first."""

    def score(fitted: Fitted) -> float:
        return _scores("val", fitted.predict(validation.features), validation.labels)["val_macro_f1"]

    return max(candidates, key=score)
