"""A trial's TensorBoard file: its curves, its line under HPARAMS, and at its end the confusion matrices."""

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

# What HPARAMS shows of a trial: validation of its best epoch, and the test clips, which that state was scored on.
SHOWN = ("best_val_macro_f1", "best_val_acc", "test_acc", "test_macro_f1")
# Where things lie and how the work is cut up changes no result. Micro-batches are halved when memory is short.
_NO_SETTINGS = {"data_dir", "cache_dir", "threads", "micro_batch", "accumulation", "eval_batch"}


def settings(config: TrainConfig) -> dict[str, str | float]:
    """What sets trials apart, as HPARAMS shows it: flags as on and off, for TensorBoard would make numbers of them."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NO_SETTINGS}
    values["effective_batch"] = config.micro_batch * config.accumulation
    shown = {name: ("off", "on")[value] if isinstance(value, bool) else value for name, value in values.items()}
    return {name: value for name, value in shown.items() if value not in (None, "")}


def draw_epoch(board: SummaryWriter, epoch: int, metrics: Mapping[str, Any]) -> None:
    """The curves' points of one epoch."""
    for name, value in metrics.items():
        if name != "epoch":
            board.add_scalar(name, value, epoch)
    board.flush()


def draw_settings(board: SummaryWriter, config: TrainConfig) -> None:
    """The trial's line under HPARAMS, from its start on. Of several starts TensorBoard heeds the first, and all say the
    same."""
    columns, start, _ = hparams(settings(config), dict.fromkeys(SHOWN))
    for summary in (columns, start):  # SummaryWriter.add_hparams would put them into a run of their own
        board._get_file_writer().add_summary(summary)
    board.flush()


def draw_end(board: SummaryWriter, history: list[dict[str, Any]], directory: Path, tested: Iterable[str]) -> None:
    """The numbers of the trial's line under HPARAMS, and a confusion matrix (`NAME_confusion`) for each set scored.

    They are drawn from the predictions in the trial's directory, all that a start has which finds its trial at its end.
    """
    epoch, best = history[-1]["epoch"], history[history[-1]["best_epoch"] - 1]
    for metric in ("val_macro_f1", "val_acc"):
        board.add_scalar(f"best_{metric}", best[metric], epoch)
    for name in tested:
        counts = _confusion(directory / predictions_name(name))
        if counts is not None:
            board.add_image(f"{name}_confusion", confusion_image(counts), epoch, dataformats="HWC")
    *_, end = hparams({}, {})
    board._get_file_writer().add_summary(end)
    board.flush()


def _confusion(path: Path) -> np.ndarray | None:
    """[C, C] counts of a predictions file; None without one that can be read: a picture less is no reason to fail."""
    try:
        table = pd.read_parquet(path)
        logits = table[[f"logit_{slug}" for slug in SLUGS]].to_numpy()
    except (OSError, ValueError, KeyError):
        return None
    labels = table["rudiment"].map({slug: label for label, slug in enumerate(SLUGS)}).to_numpy(np.int64)
    return confusion_counts(labels, logits.argmax(axis=1))
