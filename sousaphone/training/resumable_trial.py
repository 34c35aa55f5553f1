"""A trial on disk, without Ray: resume from the newest checkpoint, train, save every epoch, record the end."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import shutil
import traceback
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import TrialData, open_trial_data
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import DriverGoneError, DriverWatch, RunDirectory
from sousaphone.runs.provenance import provenance
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import MAX_OOM_RETRIES, TrialRecord, error_line, now, predictions_name
from sousaphone.training import adapter, checkpoint
from sousaphone.training.loop import DivergedError, Epoch, cut_short, fit, fits
from sousaphone.training.out_of_memory import MemoryExhaustedError, free_memory, is_out_of_memory
from sousaphone.training.scoring import final_metrics
from sousaphone.training.tensorboard import draw_end, draw_epoch, draw_settings
from sousaphone.training.watchdog import TimeLimitError, Watchdog

# Disk space for the record, the TensorBoard file and the report, in addition to the next checkpoint.
_SPARE_BYTES = 20 * 2**20

Report = Callable[[dict[str, Any]], None]


def run_trial(planned: TrainConfig, directory: Path, watch: DriverWatch, report: Report) -> None:
    """Train a trial until it ends, from its newest intact checkpoint if there is one.

    A completed trial only reports its last epoch again. A trial that runs out of memory is retried with half the
    micro-batch and twice the accumulation, at most `MAX_OOM_RETRIES` times.

    Args:
        directory: receives all files of the trial.
        watch: checked before every write, so that nothing is written once the driver has ended.
        report: called with the metrics of each completed epoch.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # A damaged record is replaced; the checkpoints contain the history.
    record = TrialRecord.find(directory) or TrialRecord(planned.trial_id, {}, started=now())
    if record.status.is_full:
        report(record.history[-1])
        return
    watchdog = Watchdog(directory, watch.limits, record.seconds)
    if watchdog.too_late:  # the sweep's time limit is reached; the trial waits for another launch
        return
    record.status, record.cause, record.ended = Status.RUNNING, None, None
    record.reason, record.error, record.traceback = None, None, None
    trial = _Trial(record, directory, watch, report, watchdog)
    try:
        with watchdog:
            trial.train_within_memory(planned)
    except DriverGoneError:
        raise  # an orphaned worker writes nothing
    except Exception as error:  # recorded, and passed on to Ray
        record.traceback = traceback.format_exc()
        message = error_line(record.traceback)
        record.end(_cause_of(error), message, message)
        with contextlib.suppress(OSError):  # the disk is full: the driver records the cause once there is room
            trial.write_record()
        raise


def _cause_of(error: Exception) -> Cause:
    if isinstance(error, DivergedError):
        return Cause.LOSS_NOT_FINITE
    if isinstance(error, MemoryExhaustedError):
        return Cause.MEMORY
    disk_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Cause.DISK_FULL if disk_full else Cause.ERROR


def with_smaller_micro_batch(config: TrainConfig, retries: int) -> TrainConfig:
    """Halve the micro-batch once per retry, while it is even, at the same effective batch; under 'full' the statistics
    of batch norms are those of smaller batches."""
    factor = math.gcd(config.micro_batch, 2**retries)
    return dataclasses.replace(
        config,
        micro_batch=config.micro_batch // factor,
        accumulation=config.accumulation * factor,
        eval_batch=max(1, config.eval_batch // 2**retries),
    )


@dataclasses.dataclass
class _Trial:
    record: TrialRecord
    directory: Path
    watch: DriverWatch
    report: Report
    watchdog: Watchdog

    def train_within_memory(self, planned: TrainConfig) -> None:
        while True:
            config = with_smaller_micro_batch(planned, self.record.oom_retries)
            try:
                return self._train(config)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                message = str(error).partition("\n")[0]
            # After the handler nothing refers to the tensors of the failed attempt any more.
            if self.record.oom_retries == MAX_OOM_RETRIES or config.micro_batch % 2:
                raise MemoryExhaustedError(f"out of memory with micro_batch={config.micro_batch}: {message}")
            self.record.oom_retries += 1
            free_memory(torch.device(config.device))

    def _train(self, config: TrainConfig) -> None:
        record, directory = self.record, self.directory
        record.config = dataclasses.asdict(config)
        record.provenance = {**provenance(), "device": device_name(config.device)}
        self.write_record()
        model = build_model(config, len(SLUGS))
        data = open_trial_data(config, model.backbone.spec.sample_rate)
        counts = model.counts()
        record.parameters = {**dataclasses.asdict(counts), "trainable_percent": counts.trainable_percent}
        record.lora, record.weights = dataclasses.asdict(model.targets), model.weights_record(config.weights)
        record.data = {
            "fingerprint": data.dataset.fingerprint,
            "clips": data.dataset.clips["split"].value_counts().to_dict(),
            "notes": list(data.dataset.notes),
        }
        state = checkpoint.resume(directory, partial(fits, config, model))
        record.history = state["history"] if state else []
        self.write_record()

        run = RunDirectory(self.watch.run)
        attempt = uuid.uuid4().hex[:8]  # no two attempts write under the same name
        # The curve continues at the newest checkpoint. A process killed right after that checkpoint may not have drawn
        # its epoch completely, so that epoch is drawn again, and its points and later ones are removed from the curve.
        with SummaryWriter(str(directory), purge_step=len(record.history)) as writer:
            draw_settings(writer, config, run.read_plan().get("searched", []) if run.exists else [])
            if record.history:
                draw_epoch(writer, record.history[-1]["epoch"], record.history[-1])
            limit: Cause | None = None
            try:
                for epoch in fit(config, model, data, state, self.watchdog.tick, self.watchdog.beat):
                    _check_space(directory, epoch.state)
                    self._save(epoch, data, writer, attempt)
                    state = epoch.state
            except TimeLimitError as error:
                limit, record.reason = error.cause, str(error)
            # After the handler nothing refers to the device tensors of the unfinished epoch any more.
            if limit is not None and state is not None:
                free_memory(torch.device(config.device))
                epoch = cut_short(config, model, data, state, limit, self.watchdog.beat)
                self._save(epoch, data, writer, attempt)
            elif limit is not None:
                self._end(limit, data, writer)
            elif record.status is Status.RUNNING and state is not None:  # killed between last checkpoint and record
                (cause,) = Status(state["end"]).causes
                self._end(cause, data, writer)
                self.report(record.history[-1])

    def _save(self, epoch: Epoch, data: TrialData, writer: SummaryWriter, attempt: str) -> None:
        """Write the results, the checkpoint and the curve of an epoch, and last the record, which marks the epoch as
        completed; then report the epoch."""
        self.watch.check()
        if epoch.final:
            self._write_results(epoch, data)
        if epoch.end is None or epoch.end.status.is_full:
            checkpoint.save(self.directory, epoch.number, attempt, epoch.state)
            draw_epoch(writer, epoch.number, epoch.metrics)
        else:  # cut short: the last completed epoch has its checkpoint and curve already
            draw_epoch(writer, epoch.number, final_metrics(epoch.final))
        self.record.history = [*epoch.state["history"][: epoch.number - 1], epoch.metrics]
        if epoch.end is None:
            self.write_record()
        else:
            self._end(epoch.end, data, writer)
        self.report(epoch.metrics)

    def _end(self, cause: Cause, data: TrialData, writer: SummaryWriter) -> None:
        reason = self.record.reason  # of a time limit
        if cause.status.is_full:
            best = self.record.history[-1]["best_epoch"]
            patience = f"val_macro_f1 has not risen since epoch {best} (patience)"
            reason = "every planned epoch is done" if cause is Cause.ALL_EPOCHS else patience
        self.record.end(cause, reason)
        if self.record.test:
            self.watchdog.beat(len(self.record.history), 1.0)  # Matplotlib may be slow to import
            draw_end(writer, self.record.history, self.directory, data.tests)
        self.write_record()

    def write_record(self) -> None:
        self.record.seconds = self.watchdog.seconds
        self.watch.check()
        self.record.write(self.directory)

    def _write_results(self, epoch: Epoch, data: TrialData) -> None:
        columns = ["sample_id", "player", "rudiment", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec"]
        columns.append("audio_path")  # relative to the data set, for playback in a report
        for name, scores in epoch.final.items():
            clips = data.validation if name == "val" else data.tests[name]
            rows = clips.table[columns].iloc[: len(scores.windows)].assign(windows=scores.windows.numpy())
            logits = [
                pd.DataFrame(own.logits.numpy(), columns=[f"{prefix}{slug}" for slug in SLUGS])
                for prefix, own in (("logit_", scores.centre), ("averaged_logit_", scores.averaged))
            ]
            with atomic_write(self.directory / predictions_name(name)) as temporary:
                pd.concat([rows, *logits], axis=1).to_parquet(temporary)
        adapter.write(self.directory, epoch.state["best"]["model"])


def _check_space(directory: Path, state: dict[str, Any]) -> None:
    """Raise an OSError if the disk has no room for the checkpoint; existing files are not affected."""
    needed = _SPARE_BYTES + checkpoint.size(state)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"the disk is full: {free / 2**20:.0f} MB are free and the next checkpoint needs {needed / 2**20:.0f} MB; "
            "free some space, then resume",
            str(directory),
        )
