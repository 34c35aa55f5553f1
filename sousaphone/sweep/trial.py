"""`train_fn(config)`, the one trainable: a thin adapter between `fit()` and Ray Tune."""

from __future__ import annotations

import dataclasses
import gc
import traceback
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ray import tune
from torch.utils.tensorboard import SummaryWriter

from sousaphone import checkpoint
from sousaphone.config import GOOD_ENDS, TrainConfig
from sousaphone.data.prepare import TrialData, open_trial_data
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.record import PREDICTIONS_NAME, TrialRecord, atomic_write, error_line, now, provenance
from sousaphone.rudiments import SLUGS
from sousaphone.run import DriverGoneError, DriverWatch
from sousaphone.training import DivergedError, Epoch, fit

ADAPTER_NAME = "adapter.pt"


def train_fn(config: dict[str, Any]) -> None:
    """Train one trial, reporting to Ray Tune once an epoch.

    The trial goes on from the newest whole checkpoint in its own directory, whatever Ray remembers; one that had
    ended well before Ray heard of it reports its last epoch and is done.

    Args:
        config: TrainConfig's fields.
    """
    trial = TrainConfig(**config)
    # Ray runs a trial in a scratch directory; this is where what it leaves behind belongs.
    directory = Path(tune.get_context().get_storage().trial_fs_path)
    directory.mkdir(parents=True, exist_ok=True)
    watch = DriverWatch.begin(directory.parent.parent)
    torch.set_num_threads(trial.threads)
    # A worker serves several trials: what the one before held must be gone.
    gc.collect()
    if trial.device == "cuda":
        torch.cuda.empty_cache()

    record = _earlier_record(directory) or TrialRecord(trial.trial_id, dataclasses.asdict(trial), started=now())
    if record.status in GOOD_ENDS:
        _report(record.history[-1])
        return
    record.status, record.error, record.traceback = "running", None, None
    record.config, record.provenance = dataclasses.asdict(trial), provenance()
    try:
        _train(trial, record, directory, watch)
    except DriverGoneError:
        raise  # an orphan writes nothing
    except Exception as error:  # whatever it is goes on record, and on to Ray
        record.status = "diverged" if isinstance(error, DivergedError) else "failed"
        record.traceback = traceback.format_exc()
        record.error = error_line(record.traceback)
        record.ended = now()
        watch.check()
        record.write(directory)
        raise


def _train(trial: TrainConfig, record: TrialRecord, directory: Path, watch: DriverWatch) -> None:
    watch.check()
    record.write(directory)
    model = build_model(trial, len(SLUGS))
    data = open_trial_data(trial, model.backbone.spec.sample_rate)
    _describe(record, trial, model, data)
    checkpoint.sweep_litter(directory)
    state = checkpoint.newest(directory)
    record.history = state["history"] if state else []
    watch.check()
    record.write(directory)
    attempt = uuid.uuid4().hex[:8]
    # After a restart the curve goes on where the newest checkpoint ends; what came later is dropped from it.
    with SummaryWriter(str(directory), purge_step=len(record.history) + 1) as board:
        for epoch in fit(trial, model, data, state):
            _save(epoch, record, directory, attempt, model, data, watch)
            for name, value in epoch.metrics.items():
                if name != "epoch":
                    board.add_scalar(name, value, epoch.number)
            board.flush()
            _report(epoch.metrics)
    if state is not None and state["end"] is not None:  # killed between its last checkpoint and its record
        record.status, record.ended = state["end"], now()
        watch.check()
        record.write(directory)
        _report(record.history[-1])


def _save(
    epoch: Epoch,
    record: TrialRecord,
    directory: Path,
    attempt: str,
    model: RudimentClassifier,
    data: TrialData,
    watch: DriverWatch,
) -> None:
    """Put an epoch on disk: results first, then the checkpoint, and the record, which says that it is done, last."""
    watch.check()
    if epoch.test is not None:
        columns = ["sample_id", "player", "rudiment", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec"]
        rows = data.test.table.iloc[: len(epoch.test.labels)]
        logits = pd.DataFrame(epoch.test.logits.numpy(), columns=[f"logit_{slug}" for slug in SLUGS])
        with atomic_write(directory / PREDICTIONS_NAME) as temporary:
            pd.concat([rows[columns].reset_index(drop=True), logits], axis=1).to_parquet(temporary)
        with atomic_write(directory / ADAPTER_NAME) as temporary:
            torch.save(epoch.state["best"]["model"], temporary)
    checkpoint.save(directory, epoch.number, attempt, epoch.state)
    record.history = epoch.state["history"]
    if epoch.end is not None:
        record.status, record.ended = epoch.end, now()
    watch.check()
    record.write(directory)


def _report(metrics: dict[str, Any]) -> None:
    # Ray's own counter starts anew after a restart; the epoch does not.
    tune.report({**metrics, "training_iteration": metrics["epoch"]})


def _earlier_record(directory: Path) -> TrialRecord | None:
    """What an earlier start left; a damaged record is written anew, since the checkpoints hold the history."""
    try:
        return TrialRecord.read(directory)
    except ValueError:
        return None


def _describe(record: TrialRecord, trial: TrainConfig, model: RudimentClassifier, data: TrialData) -> None:
    counts = model.counts()
    record.parameters = {**dataclasses.asdict(counts), "trainable_percent": counts.trainable_percent}
    record.lora = dataclasses.asdict(model.targets)
    record.weights = {"source": trial.weights, "fingerprint": model.base_fingerprint}
    record.data = {
        "fingerprint": data.dataset.fingerprint,
        "clips": data.dataset.clips["split"].value_counts().to_dict(),
        "notes": list(data.dataset.notes),
    }
