"""Scores of a model on a clip set: of each clip's centre window, and averaged over windows that cover the clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from sousaphone.backbones.frontends import to_float
from sousaphone.config import TrainConfig
from sousaphone.data.batches import ClipSet
from sousaphone.data.prepare import TrialData
from sousaphone.model import RudimentClassifier
from sousaphone.training import metrics
from sousaphone.training.step import MicroBatch


@dataclass(frozen=True)
class Scores:
    """Logits [N, C] and labels [N] of N clips on the CPU, in the order of the clip set's table."""

    logits: Tensor
    labels: Tensor

    def metrics(self, prefix: str) -> dict[str, float]:
        """The metrics `{prefix}_loss` (cross entropy, nats), `_acc`, `_macro_f1` and `_top5`."""
        return {
            f"{prefix}_loss": metrics.cross_entropy(self.logits, self.labels),
            f"{prefix}_acc": metrics.accuracy(self.logits, self.labels),
            f"{prefix}_macro_f1": metrics.macro_f1(self.logits, self.labels),
            f"{prefix}_top5": metrics.top_k(self.logits, self.labels),
        }


@dataclass(frozen=True)
class FinalScores:
    """Scores of N clips by the best state of a trial."""

    centre: Scores  # of each clip's centre window
    averaged: Scores  # the mean logits over the windows that cover the clip, see `ClipSet.windows`
    windows: Tensor  # int64 [N], their number


def score_all(
    config: TrainConfig,
    model: RudimentClassifier,
    data: TrialData,
    tick: Callable[[], None] = lambda: None,
    micro_batch: MicroBatch | None = None,
) -> dict[str, FinalScores]:
    """Score the validation clips (`val`) and all test sets of a trial, of which a search has none."""
    found, micro_batch = {}, micro_batch or MicroBatch(config, model)
    unlimited = dataclasses.replace(config, limit_eval_batches=None)
    for name, clips in {"val": data.validation, **data.tests}.items():
        centre = evaluate(config, model, clips, tick=tick, micro_batch=micro_batch)
        parts, rows = clips.windows(len(centre.labels))
        averaged = centre.logits
        if len(rows):
            logits = evaluate(unlimited, model, parts, tick=tick, micro_batch=micro_batch).logits
            averaged = mean_over_windows(centre.logits, logits, rows)
        windows = rows.bincount(minlength=len(centre.labels)).clamp(min=1)
        found[name] = FinalScores(centre, Scores(averaged, centre.labels), windows)
    return found


def mean_over_windows(centre: Tensor, windows: Tensor, rows: Tensor) -> Tensor:
    """Average scores over windows.

    Args:
        centre: [N, C], of the clips' centre windows; clips without other windows keep them.
        windows: [W, C], of the windows from `ClipSet.windows`.
        rows: int64 [W], the clip of each window.
    """
    counts = rows.bincount(minlength=len(centre))[:, None]
    sums = torch.zeros_like(centre).index_add_(0, rows, windows)
    return torch.where(counts > 0, sums / counts.clamp(min=1), centre)


def final_metrics(final: Mapping[str, FinalScores]) -> dict[str, float]:
    """Return the metrics of each set, those of averaged logits with the prefix `NAME_averaged`, and the temperatures.

    The validation metrics of centre windows are not among them: they are in the row of the best epoch. `temperature`
    and `averaged_temperature` calibrate each kind of logits on the validation clips.
    """
    found: dict[str, float] = {}
    for name, scores in final.items():
        found |= {} if name == "val" else scores.centre.metrics(name)
        found |= scores.averaged.metrics(f"{name}_averaged")
    if "val" in final:
        for prefix, own in (("", final["val"].centre), ("averaged_", final["val"].averaged)):
            found[f"{prefix}temperature"] = metrics.fitted_temperature(own.logits, own.labels)
    return found


def evaluate(
    config: TrainConfig,
    model: RudimentClassifier,
    clips: ClipSet,
    rows: list[int] | None = None,
    tick: Callable[[], None] = lambda: None,
    micro_batch: MicroBatch | None = None,
) -> Scores:
    """Score the centre window of each clip (of `rows`, if given) without augmentation, in evaluation mode. The
    `micro_batch` of the training can be given to reuse its CUDA graphs."""
    micro_batch = micro_batch or MicroBatch(config, model)
    model.eval()
    logits, labels = [], []
    with torch.inference_mode():
        for batch in islice(clips.evaluation_batches(config.eval_batch, rows), config.limit_eval_batches):
            logits.append(micro_batch.score(model.features(to_float(batch.wave), batch.lengths)))
            labels.append(batch.labels)
            tick()
    return Scores(torch.cat(logits).cpu(), torch.cat(labels).cpu())
