"""Simple classifiers on the same windows that the trials are evaluated on: the scores a trial has to beat.

Each is fitted on the training clips. Hyperparameters are selected on the validation clips by macro F1, as among trials.
The test clips are scored once; no baseline sees their labels.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.backbones.registry import REGISTRY
from sousaphone.baselines.descriptors import audio_seconds, embeddings, log_mel_features
from sousaphone.baselines.strokes import BATCH, EPOCHS, STEPS, onset_features, stroke_frames, train_network
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import build_caches
from sousaphone.data.dataset import Dataset
from sousaphone.data.neighbours import nearest_votes
from sousaphone.data.splits import SPLITS
from sousaphone.model import backbone_of
from sousaphone.rudiments import SLUGS
from sousaphone.runs.baseline_results import SHORT_SECONDS, Baseline
from sousaphone.text import Advance
from sousaphone.training import metrics
from sousaphone.training.scoring import mean_over_windows

NEIGHBOURS = (1, 5, 20)
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of the logistic regression, the inverse regularisation strength
MAX_CPU_CLIPS = 200  # limit for a full-size backbone on a CPU, which would take too long
_KNN = "knn-"
_STEPS = 300  # of the logistic regression's optimiser; convergence is not required

Extract = Callable[[ClipSet, int, Advance], Tensor]  # clips at a rate (Hz) to features float32 [N, D] on the CPU


@dataclass(frozen=True)
class Fitted:
    """A fitted baseline."""

    score: Callable[[Tensor], Tensor]  # features [N, D] to scores float [N, C]; the highest is the prediction
    chosen: str  # the selected hyperparameter, class or setting, for tables


@dataclass(frozen=True)
class Labelled:
    """One split's features, float32 [N, D], and labels, int64 [N]."""

    features: Tensor
    labels: Tensor


Fit = Callable[[Labelled, Labelled], Fitted]  # training and validation clips to a fitted baseline


@dataclass(frozen=True)
class EvaluationSetup:
    """A run's clips, loaded as its trials load them for evaluation."""

    dataset: Dataset
    trials: Mapping[str, TrainConfig]  # the first trial of each backbone, by backbone name
    device: torch.device  # of the backbones
    progress: Advance = lambda clips: None  # in clips; each baseline reads every clip once

    def clips(self, rate: int, device: torch.device) -> dict[str, ClipSet]:
        """Training, validation and test clips at a sample rate in Hz."""
        trial = next(iter(self.trials.values()))
        cache = build_caches(self.dataset, [rate], Path(trial.cache_dir), progress=False)[rate]
        return {
            split: ClipSet(cache, self.dataset.clips, split, trial.clip_seconds, device, trial.seed) for split in SPLITS
        }


def titles(models: Iterable[str]) -> dict[str, str]:
    """Titles of the baselines of a run over these backbones, by name."""
    return {
        "majority": "majority class",
        "length": "nearest neighbour by seconds of audio in the window",
        "onsets": "nearest neighbour by number and rate of strokes",
        "strokes": "transformer over the transcribed strokes",
        "logmel": "logistic regression on pooled log-mels",
        **{f"{_KNN}{model}": f"k nearest neighbours of frozen {REGISTRY[model].title} embeddings" for model in models},
    }


def skip_reason(name: str, setup: EvaluationSetup) -> str:
    """The reason not to measure a baseline; empty if there is none."""
    trial = setup.trials.get(name.removeprefix(_KNN))
    slow = trial is not None and trial.scale == "base" and setup.device.type == "cpu"
    if slow and len(setup.dataset.clips) > MAX_CPU_CLIPS:
        return f"a full-size model on a CPU, and more than {MAX_CPU_CLIPS} clips"
    return ""


def measure_baseline(name: str, setup: EvaluationSetup) -> tuple[Baseline, pd.DataFrame]:
    """Fit and score one baseline of `titles`.

    Returns:
        The result, and the test predictions: sample_id, player, rudiment, predicted, averaged_predicted.

    Raises:
        RuntimeError, MemoryError: out of memory, or the device fails.
        ValueError: the training clips have one class only, or features are not finite.
        OSError, UserError: waveforms or weights cannot be read.
    """
    start = time.perf_counter()
    method = _method(name, setup)
    clips = setup.clips(method.rate, method.device)
    seconds, seed = next(iter(clips.values())).clip_seconds, next(iter(setup.trials.values())).seed
    parts = {split: clips[split].windows() for split in ("validation", "test")}
    also = [clips["train"].windows()[0]] if method.every_window else []
    # Where all windows are as short, the fitted baseline is scored on others; otherwise it is fitted again.
    kept = () if not method.reads_strokes else parts if seconds <= SHORT_SECONDS else clips
    short = {split: clips[split].random_windows(SHORT_SECONDS) for split in kept}
    read = [*clips.values(), *(own for own, _ in parts.values()), *also, *short.values()]
    # Of `progress`, which counts the clips once.
    factor = (1 - method.fitting) * sum(map(len, clips.values())) / sum(map(len, read))

    def features(split: str, own: ClipSet) -> Tensor:
        found = method.extract(own, method.rate, lambda done: setup.progress(done * factor))
        if not found.isfinite().all():
            raise ValueError(f"features of the {split} clips are not finite")
        return found

    def advance(done: float) -> None:
        setup.progress(method.fitting * done * sum(map(len, clips.values())))

    data = {split: Labelled(features(split, own), own.labels) for split, own in clips.items()}
    known = [data["train"], *(Labelled(features("train", own), own.labels) for own in also if len(own))]
    train = Labelled(torch.cat([each.features for each in known]), torch.cat([each.labels for each in known]))
    fitted = method.fit(train, data["validation"], seed, advance)
    scores: dict[str, float] = {}
    predictions = clips["test"].table[["sample_id", "player", "rudiment"]]
    for split, prefix in (("validation", "val"), ("test", "test")):
        centre, (own, rows) = fitted.score(data[split].features), parts[split]
        averaged = mean_over_windows(centre, fitted.score(features(split, own)), rows) if len(rows) else centre
        for infix, values in (("", centre), ("averaged_", averaged)):
            scores |= _scores(f"{prefix}_{infix}", values, data[split].labels)
            if split == "test":
                predicted = [SLUGS[label] for label in values.argmax(1).tolist()]
                predictions = predictions.assign(**{f"{infix}predicted": predicted})
    counted: dict[str, float] = {}
    cut = {split: Labelled(features(split, own), own.labels) for split, own in short.items()}
    if "train" in cut:
        fitted = method.fit(cut["train"], cut["validation"], seed, lambda done: None)
    for split, prefix in (("validation", "val"), ("test", "test")):
        if split in cut:
            counted |= _scores(f"{prefix}_", fitted.score(cut[split].features), cut[split].labels)
    title = titles(setup.trials)[name]
    return Baseline(name, title, scores, time.perf_counter() - start, fitted.chosen, short=counted), predictions


def _scores(prefix: str, values: Tensor, labels: Tensor) -> dict[str, float]:
    return {f"{prefix}acc": metrics.accuracy(values, labels), f"{prefix}macro_f1": metrics.macro_f1(values, labels)}


@dataclass(frozen=True)
class Method:
    """How a baseline is computed."""

    extract: Extract
    fit: Callable[[Labelled, Labelled, int, Advance], Fitted]  # also the seed, and the progress
    rate: int  # Hz
    device: torch.device
    reads_strokes: bool = False  # also scored on one random window of SHORT_SECONDS per clip
    every_window: bool = False  # trained on all windows of the training clips, not only on their centres
    fitting: float = 0.0  # fraction of the time that training takes


def _method(name: str, setup: EvaluationSetup) -> Method:
    # Waveforms are cached at the rates of the run's backbones; the lowest of them is enough for these features.
    rate, cpu = min(REGISTRY[model].sample_rate for model in setup.trials), torch.device("cpu")
    if name == "majority":
        return Method(_no_features, _quickly(fit_majority), rate, cpu)
    if name == "length":
        return Method(audio_seconds, _quickly(fit_nearest), rate, cpu)
    if name == "logmel":
        return Method(log_mel_features, _quickly(fit_logistic), rate, setup.device)
    if name == "onsets":
        return Method(onset_features, _quickly(fit_nearest), REGISTRY["strokes"].sample_rate, cpu, reads_strokes=True)
    if name == "strokes":
        rate = REGISTRY[name].sample_rate
        return Method(stroke_frames, fit_strokes, rate, cpu, reads_strokes=True, every_window=True, fitting=0.6)
    trial = setup.trials[name.removeprefix(_KNN)]
    backbone = backbone_of(trial).to(setup.device)
    rounded = trial.precision == "bfloat16" and setup.device.type == trial.device  # as in training
    extract = partial(embeddings, backbone, trial.eval_batch, rounded=rounded)
    return Method(extract, _quickly(fit_neighbours), backbone.spec.sample_rate, setup.device)


def _quickly(fit: Fit) -> Callable[[Labelled, Labelled, int, Advance], Fitted]:
    """A fit that draws nothing and takes no time."""
    return lambda train, validation, seed, advance: fit(train, validation)


def fit_strokes(train: Labelled, validation: Labelled, seed: int, advance: Advance) -> Fitted:
    """Train the transformer over strokes."""
    steps = min(STEPS, EPOCHS * math.ceil(len(train.labels) / BATCH))
    network = train_network(train.features, train.labels, seed, advance, steps)
    return Fitted(network.score, f"{steps} steps")


def _no_features(clips: ClipSet, rate: int, progress: Advance) -> Tensor:
    progress(len(clips))
    return torch.zeros(len(clips), 0)


def fit_majority(train: Labelled, validation: Labelled) -> Fitted:
    """Always predict the most frequent training class; ties go to the first class."""
    label = int(train.labels.bincount().argmax())
    return Fitted(lambda features: F.one_hot(torch.full((len(features),), label), len(SLUGS)).float(), SLUGS[label])


def fit_nearest(train: Labelled, validation: Labelled) -> Fitted:
    """Fit one nearest neighbour on columns of unit deviation. Equally near clips vote; ties go to the first class."""
    scale = train.features.std(dim=0, correction=0).clamp(min=1e-12)
    known, labels = (train.features / scale).numpy(), train.labels.numpy()

    def score(features: Tensor) -> Tensor:
        votes = torch.from_numpy(nearest_votes((features / scale).numpy(), known, labels))
        return votes / votes.sum(1, keepdim=True)  # windows weigh the same, however many clips are equally near

    return Fitted(score, "1 neighbour")


def fit_neighbours(train: Labelled, validation: Labelled) -> Fitted:
    """Fit k nearest neighbours by cosine, with k selected on the validation clips; ties go to the first class."""
    known = F.normalize(train.features, dim=1)

    def score(features: Tensor, k: int) -> Tensor:
        votes = []
        for rows in F.normalize(features, dim=1).split(1024):
            nearest = (rows @ known.T).topk(min(k, len(known)), dim=1).indices  # [rows, k]
            votes.append(F.one_hot(train.labels[nearest], len(SLUGS)).sum(1))
        return torch.cat(votes).float()

    return select_best(validation, (Fitted(partial(score, k=k), f"k={k}") for k in NEIGHBOURS))


def fit_logistic(train: Labelled, validation: Labelled) -> Fitted:
    """Fit logistic regression on standardised columns, with C selected on the validation clips; raises a ValueError if
    the training clips have one class only."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    def fitted(strength: float) -> Fitted:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_STEPS))
        # The products are small: several BLAS threads take ten times as long as one.
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "The number of unique classes")  # 40 classes, few clips
            model.fit(train.features.numpy(), train.labels.numpy())

        def score(features: Tensor) -> Tensor:
            found = np.full((len(features), len(SLUGS)), -np.inf)
            margins = model.decision_function(features.numpy())
            # With two classes, scikit-learn returns the margin of the second.
            found[:, model.classes_] = margins if margins.ndim == 2 else np.stack([-margins, margins], axis=1)
            return torch.from_numpy(found)

        return Fitted(score, f"C={strength:g}")

    return select_best(validation, map(fitted, STRENGTHS))


def select_best(validation: Labelled, candidates: Iterable[Fitted]) -> Fitted:
    """The candidate with the highest macro F1 on the validation clips; ties go to the first."""
    return max(candidates, key=lambda fitted: metrics.macro_f1(fitted.score(validation.features), validation.labels))
