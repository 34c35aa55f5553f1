"""One trial's life on disk: go on from the newest checkpoint, train, keep every epoch, name the end. No Ray."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import shutil
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import TrialData, open_trial_data
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import DriverGoneError, DriverWatch
from sousaphone.runs.provenance import provenance
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import ADAPTER_NAME, MAX_OOM_RETRIES, TrialRecord, error_line, now, predictions_name
from sousaphone.training import checkpoint
from sousaphone.training.loop import DivergedError, Epoch, cut_short, fit, named
from sousaphone.training.out_of_memory import MemoryExhaustedError, free_memory, is_out_of_memory
from sousaphone.training.tensorboard import draw_end, draw_epoch, draw_settings
from sousaphone.training.watchdog import TimeLimitError, Watchdog

# Beside the next checkpoint there must be room for the record, the TensorBoard file and the report.
_SPARE_BYTES = 20 * 2**20

Report = Callable[[dict[str, Any]], None]


def run_trial(planned: TrainConfig, directory: Path, watch: DriverWatch, report: Report) -> None:
    """Train one trial to its end, whatever that is, or what is left of it.

    It goes on from the newest whole checkpoint in its directory. One that has ended already reports its last epoch
    again. One that runs out of memory goes on with half the micro-batch and twice the accumulation, twice at most.

    Args:
        directory: where all that it leaves behind belongs.
        watch: asked before every write, so that nothing is written once the driver is gone.
        report: called with the flat metrics of each finished epoch.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # A damaged record is written anew, since the checkpoints hold the history.
    record = TrialRecord.find(directory) or TrialRecord(planned.trial_id, {}, started=now())
    if record.status.is_full:
        report(record.history[-1])
        return
    watchdog = Watchdog(directory, watch.limits, record.seconds)
    if watchdog.too_late:  # the sweep's time is up: it has not begun, and waits for another launch
        return
    record.status, record.cause, record.ended = Status.RUNNING, None, None
    record.reason, record.error, record.traceback = None, None, None
    try:
        with watchdog:
            _train_within_memory(planned, record, directory, watch, report, watchdog)
    except DriverGoneError:
        raise  # an orphan writes nothing
    except Exception as error:  # whatever it is goes on record, and on to Ray
        record.traceback, record.seconds = traceback.format_exc(), watchdog.seconds
        said = error_line(record.traceback)
        record.end(_cause_of(error), said, said)
        watch.check()
        with contextlib.suppress(OSError):  # a full disk: the driver names the end as soon as there is room
            record.write(directory)
        raise


def _cause_of(error: Exception) -> Cause:
    if isinstance(error, DivergedError):
        return Cause.LOSS_NOT_FINITE
    if isinstance(error, MemoryExhaustedError):
        return Cause.MEMORY
    disk_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Cause.DISK_FULL if disk_full else Cause.ERROR


def with_smaller_micro_batch(config: TrainConfig, times: int) -> TrainConfig:
    """The same effective batch in micro-batches halved so many times."""
    share = 2**times
    return dataclasses.replace(
        config,
        micro_batch=config.micro_batch // share,
        accumulation=config.accumulation * share,
        eval_batch=max(1, config.eval_batch // share),
    )


def _train_within_memory(
    planned: TrainConfig, record: TrialRecord, directory: Path, watch: DriverWatch, report: Report, watchdog: Watchdog
) -> None:
    while True:
        config = with_smaller_micro_batch(planned, record.oom_retries)
        try:
            return _train(config, record, directory, watch, report, watchdog)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).partition("\n")[0]
        # Past the handler nothing holds the tensors of the failed attempt any more.
        if record.oom_retries == MAX_OOM_RETRIES or config.micro_batch % 2:
            raise MemoryExhaustedError(f"out of memory with micro_batch={config.micro_batch}: {said}")
        record.oom_retries += 1
        free_memory(torch.device(config.device))


def _train(
    config: TrainConfig, record: TrialRecord, directory: Path, watch: DriverWatch, report: Report, watchdog: Watchdog
) -> None:
    record.config = dataclasses.asdict(config)
    record.provenance = {**provenance(), "device": device_name(config.device)}
    record.seconds = watchdog.seconds
    watch.check()
    record.write(directory)
    model = build_model(config, len(SLUGS))
    data = open_trial_data(config, model.backbone.spec.sample_rate)
    _describe(record, config, model, data)
    checkpoint.remove_temporary_files(directory)
    state = checkpoint.newest(directory)
    record.history = state["history"] if state else []
    watch.check()
    record.write(directory)

    # After a restart the curve goes on where the newest checkpoint ends. Who died right after that checkpoint drew its
    # epoch in part or not at all, so it is drawn anew; what the curve had of it, and of later ones, is dropped.
    with SummaryWriter(str(directory), purge_step=len(record.history)) as board:
        keep = _Keeper(record, directory, watch, model, data, watchdog, board)
        draw_settings(board, config)
        if record.history:
            draw_epoch(board, record.history[-1]["epoch"], record.history[-1])
        limit: Cause | None = None
        try:
            for epoch in fit(config, model, data, state, watchdog.tick):
                _check_space(directory)
                keep(epoch)
                state = epoch.state
                report(epoch.metrics)
        except TimeLimitError as error:
            limit, record.reason = error.cause, str(error)
        if limit is not None:  # past the handler nothing holds what the epoch in work had on the device
            if state is None:
                keep.end(limit)
                return
            free_memory(torch.device(config.device))
            epoch = cut_short(config, model, data, state, limit, watchdog.beat)
            keep(epoch)
            report(epoch.metrics)
            return
    if record.status is Status.RUNNING and state is not None:  # killed between its last checkpoint and its record
        (cause,) = Status(state["end"]).causes
        keep.end(cause)
        report(record.history[-1])


@dataclasses.dataclass
class _Keeper:
    """Puts an epoch on disk: results first, then the checkpoint, then the curve, and the record, which says that it is
    done, last."""

    record: TrialRecord
    directory: Path
    watch: DriverWatch
    model: RudimentClassifier
    data: TrialData
    watchdog: Watchdog
    board: SummaryWriter
    # Of this start of the trial: no two starts ever write under one name.
    attempt: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __call__(self, epoch: Epoch) -> None:
        self.watch.check()
        if epoch.test is not None:
            self._results(epoch)
        if epoch.end is None or epoch.end.status.is_full:
            checkpoint.save(self.directory, epoch.number, self.attempt, epoch.state)
            draw_epoch(self.board, epoch.number, epoch.metrics)
        elif epoch.test is not None:  # no epoch of its own: the last one has its checkpoint and its curve
            draw_epoch(self.board, epoch.number, named(epoch.tests))
        self.record.history = [*epoch.state["history"][: epoch.number - 1], epoch.metrics]
        if epoch.end is not None:
            self.end(epoch.end)
        else:
            self._write()

    def end(self, cause: Cause) -> None:
        reason = self.record.reason  # of a time limit
        if cause.status.is_full:
            best = self.record.history[-1]["best_epoch"]
            patience = f"val_macro_f1 has not risen since epoch {best} (patience)"
            reason = "every planned epoch is done" if cause is Cause.ALL_EPOCHS else patience
        self.record.end(cause, reason)
        if self.record.test:
            draw_end(self.board, self.record.history, self.directory, self.data.tests)
        self._write()

    def _write(self) -> None:
        self.record.seconds = self.watchdog.seconds
        self.watch.check()
        self.record.write(self.directory)

    def _results(self, epoch: Epoch) -> None:
        columns = ["sample_id", "player", "rudiment", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec"]
        columns.append("audio_path")  # relative to the data set's root: a report lets one listen
        for name, scores in epoch.tests.items():
            rows = self.data.tests[name].table.iloc[: len(scores.labels)]
            logits = pd.DataFrame(scores.logits.numpy(), columns=[f"logit_{slug}" for slug in SLUGS])
            with atomic_write(self.directory / predictions_name(name)) as temporary:
                pd.concat([rows[columns].reset_index(drop=True), logits], axis=1).to_parquet(temporary)
        with atomic_write(self.directory / ADAPTER_NAME) as temporary, temporary.open("wb") as file:
            torch.save(epoch.state["best"]["model"], file)


def _check_space(directory: Path) -> None:
    """Raise an OSError where the disk has no room for another checkpoint; what is there stays whole."""
    needed = _SPARE_BYTES + checkpoint.newest_bytes(directory)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: {free / 2**20:.0f} MB are free and the next checkpoint wants {needed / 2**20:.0f} MB; "
            "free some space, then resume",
            str(directory),
        )


def _describe(record: TrialRecord, config: TrainConfig, model: RudimentClassifier, data: TrialData) -> None:
    counts = model.counts()
    record.parameters = {**dataclasses.asdict(counts), "trainable_percent": counts.trainable_percent}
    record.lora = dataclasses.asdict(model.targets)
    record.weights = model.weights_record(config.weights)
    record.data = {
        "fingerprint": data.dataset.fingerprint,
        "clips": data.dataset.clips["split"].value_counts().to_dict(),
        "notes": list(data.dataset.notes),
    }
