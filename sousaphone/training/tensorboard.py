"""The TensorBoard file of a trial: curves, a row under HPARAMS, and confusion matrices at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from sousaphone.config import TrainConfig
from sousaphone.confusion import confusion_counts, confusion_image
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import predictions_name

# The columns of HPARAMS: validation scores of the best epoch, and test scores of its state.
SHOWN = ("best_val_macro_f1", "best_val_acc", "test_acc", "test_macro_f1")
# These options do not change results.
_HIDDEN = {"tag", "data_dir", "cache_dir", "threads", "micro_batch", "accumulation", "eval_batch"}


def settings(config: TrainConfig, searched: Iterable[str] = ()) -> dict[str, str | float]:
    """The options for HPARAMS that distinguish trials, first those that the sweep varies; flags are strings, since
    TensorBoard shows bools as numbers."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in _HIDDEN}
    values["effective_batch"] = config.micro_batch * config.accumulation
    shown = {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in values.items()}
    return {name: shown[name] for name in dict.fromkeys([*searched, *shown]) if shown.get(name) not in (None, "")}


def draw_epoch(writer: SummaryWriter, epoch: int, metrics: Mapping[str, Any]) -> None:
    """Add the metrics of one epoch to the curves."""
    for name, value in metrics.items():
        if name != "epoch" and value is not None:  # None: it was not finite
            writer.add_scalar(name, value, epoch)
    writer.flush()


def draw_settings(writer: SummaryWriter, config: TrainConfig, searched: Iterable[str] = ()) -> None:
    """Add the row of the trial to HPARAMS when it starts; TensorBoard uses the first of several equal rows."""
    columns, start, _ = hparams(settings(config, searched), dict.fromkeys(SHOWN))
    for summary in (columns, start):  # SummaryWriter.add_hparams would create a separate run
        writer._get_file_writer().add_summary(summary)
    writer.flush()


def draw_end(writer: SummaryWriter, history: list[dict[str, Any]], directory: Path, tested: Iterable[str]) -> None:
    """Add the scores of the trial to HPARAMS and a confusion matrix (`NAME_confusion`) for each scored set.

    The matrices are computed from the predictions files, since a resumed trial that has nothing left to train has no
    scores in memory.
    """
    epoch, best = history[-1]["epoch"], history[history[-1]["best_epoch"] - 1]
    for metric in ("val_macro_f1", "val_acc"):
        writer.add_scalar(f"best_{metric}", best[metric], epoch)
    for name in tested:
        if (counts := _confusion(directory / predictions_name(name))) is not None:
            writer.add_image(f"{name}_confusion", confusion_image(counts), epoch, dataformats="HWC")
    *_, end = hparams({}, {})
    writer._get_file_writer().add_summary(end)
    writer.flush()


def _confusion(path: Path) -> np.ndarray | None:
    """The confusion counts [C, C] of a predictions file; None if it is unreadable, which only omits the image."""
    try:
        table = pd.read_parquet(path)
        logits = table[[f"logit_{slug}" for slug in SLUGS]].to_numpy()
    except (OSError, ValueError, KeyError):
        return None
    labels = table["rudiment"].map({slug: label for label, slug in enumerate(SLUGS)}).to_numpy(np.int64)
    return confusion_counts(labels, logits.argmax(axis=1))
