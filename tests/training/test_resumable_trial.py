"""The ends of a trial without Ray: the files that each leaves, and how the trial is resumed."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.directory import DriverWatch, Limits, RunDirectory
from sousaphone.runs.statuses import Cause, Status
from sousaphone.runs.trial_record import ADAPTER_NAME, OLDER_ADAPTER_NAME, PREDICTIONS_NAME, TrialRecord
from sousaphone.training import adapter, checkpoint, loop, scoring
from sousaphone.training.loop import DivergedError, Epoch, fit
from sousaphone.training.resumable_trial import run_trial, with_smaller_micro_batch
from sousaphone.training.watchdog import Watchdog
from tests.conftest import write_sousa
from tests.training.older_files import save_older

ROOT = Path(__file__).resolve().parents[2]
CLOCK = {"epoch_seconds", "processor_seconds", "wall_seconds", "samples_per_second", "peak_memory_mb"}
EPOCHS = 6

MakeConfig = Callable[..., TrainConfig]
Row = dict[str, Any]


def timeless(history: list[Row]) -> list[Row]:
    """The history without measured times and memory."""
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in history]


def uninterrupted(config: TrainConfig) -> list[Row]:
    """The history of an uninterrupted trial."""
    model = build_model(config, len(SLUGS))
    data = open_trial_data(config, model.backbone.spec.sample_rate)
    return timeless([epoch.metrics for epoch in fit(config, model, data)])


class Trial:
    """A trial in its own run directory, which can be started repeatedly."""

    def __init__(self, config: TrainConfig, run: Path) -> None:
        self.config, self.run = config, RunDirectory(run)
        self.directory = self.run.trial(config.trial_id)

    def start(self, limits: Limits | None = None, after_epoch: Callable[[], None] = lambda: None) -> list[int]:
        """Run the trial until it ends; return the epochs that it reported."""
        reported: list[int] = []

        def report(metrics: Row) -> None:
            reported.append(metrics["epoch"])
            after_epoch()

        with self.run.held(limits or Limits()):
            run_trial(self.config, self.directory, DriverWatch.begin(self.run.path), report)
        return reported

    @property
    def record(self) -> TrialRecord:
        record = TrialRecord.read(self.directory)
        assert record is not None
        return record


@pytest.fixture
def an_hour(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function after which an hour has passed for time limits."""
    clock = SimpleNamespace(monotonic=time.monotonic, past=0.0)

    def pass_an_hour() -> None:
        clock.past += 3600.0
        clock.monotonic = lambda: time.monotonic() + clock.past

    monkeypatch.setattr("sousaphone.training.watchdog.time", clock)
    return pass_an_hour


def test_trial_is_resumed_exactly_after_its_time_limit(
    trial_config: MakeConfig, tmp_path: Path, an_hour: Callable[[], None]
) -> None:
    trial = Trial(trial_config(epochs=EPOCHS), tmp_path)
    limit = Limits(trial_seconds=2 * 3600.0)
    trial.start(limit, after_epoch=an_hour)
    cut = trial.record
    done = len(cut.history)
    assert done == 2
    assert (cut.status, cut.cause) == (Status.TIME_LIMIT, Cause.TRIAL_TIME_LIMIT)
    assert f"epoch {done + 1}" in str(cut.reason)
    assert cut.seconds >= 7200
    assert 0 <= cut.test["test_acc"] <= 1
    predictions = pd.read_parquet(trial.directory / PREDICTIONS_NAME)
    assert len(predictions) == 6
    assert all((Path(trial.config.data_dir) / path).is_file() for path in predictions["audio_path"])
    assert (trial.directory / ADAPTER_NAME).is_file()
    assert not (trial.directory / OLDER_ADAPTER_NAME).exists()
    assert sorted((trial.directory / "checkpoints").iterdir())[-1].name.startswith(f"epoch_{done:04d}-")

    # The earlier time counts: under the same limit there is no time for another epoch.
    trial.start(limit)
    assert trial.record.status == "time_limit"
    assert timeless(trial.record.history) == timeless(cut.history)

    assert trial.start() == list(range(done + 1, EPOCHS + 1))
    assert trial.record.cause is Cause.ALL_EPOCHS
    assert timeless(trial.record.history) == uninterrupted(trial.config)


def test_time_limit_in_the_final_scoring_does_not_lose_the_last_epoch(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, an_hour: Callable[[], None]
) -> None:
    def score_all(*arguments: Any, **named: Any) -> Any:
        an_hour()
        return scoring.score_all(*arguments, **named)

    monkeypatch.setattr(loop, "score_all", score_all)
    trial = Trial(trial_config(epochs=2), tmp_path)
    assert trial.start(Limits(trial_seconds=3600.0)) == [1, 2]
    assert trial.record.cause is Cause.ALL_EPOCHS


@pytest.mark.parametrize(("name", "strategy"), [("ast", "lora"), ("efficientat", "full")])
def test_trial_of_an_earlier_version_is_resumed_exactly(
    name: str, strategy: str, trial_config: MakeConfig, tmp_path: Path
) -> None:
    trial = Trial(trial_config(model=name, strategy=strategy, epochs=4), tmp_path)
    model = build_model(trial.config, len(SLUGS))
    whole = list(fit(trial.config, model, open_trial_data(trial.config, model.backbone.spec.sample_rate)))
    for epoch in whole[:2]:
        save_older(trial.directory, epoch.number, "aa", epoch.state)
    older = trial.directory / OLDER_ADAPTER_NAME
    torch.save(epoch.state["best"]["model"], older)

    assert trial.start() == [3, 4]
    assert timeless(trial.record.history) == timeless([epoch.metrics for epoch in whole])
    state, expected = checkpoint.newest(trial.directory), whole[-1].state
    assert state is not None
    assert all(torch.equal(state["model"][key], tensor) for key, tensor in expected["model"].items())
    for index, moments in expected["optimizer"]["state"].items():
        assert all(torch.equal(state["optimizer"]["state"][index][key], tensor) for key, tensor in moments.items())
    assert not older.exists()
    trained = adapter.read(trial.directory)
    assert all(torch.equal(trained[key], tensor) for key, tensor in expected["best"]["model"].items())
    assert len(list((trial.directory / "checkpoints").iterdir())) == checkpoint.KEPT


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_checkpoints_cost_only_their_epochs(damaged: int, trial_config: MakeConfig, tmp_path: Path) -> None:
    trial = Trial(trial_config(epochs=2), tmp_path)
    trial.start()
    whole = trial.record
    for directory in sorted((trial.directory / "checkpoints").iterdir(), reverse=True)[:damaged]:
        (directory / "optimizer.safetensors").write_bytes(pickle.dumps({"a": 1}))
    dataclasses.replace(whole, status=Status.RUNNING, cause=None).write(trial.directory)
    assert trial.start() == [1, 2][2 - damaged :]
    assert timeless(trial.record.history) == timeless(whole.history)
    assert len(list((trial.directory / "checkpoints").iterdir())) == checkpoint.KEPT


@pytest.mark.slow
def test_scoring_after_a_limit_is_watched_and_retried_when_out_of_memory(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, an_hour: Callable[[], None]
) -> None:
    attempts: list[int] = []
    beats: list[tuple[int, float]] = []

    def cut_short(config: TrainConfig, *others: Any) -> Epoch:
        attempts.append(config.micro_batch)
        if len(attempts) == 1:
            raise MemoryError("out of memory")
        beats.clear()
        return loop.cut_short(config, *others)

    monkeypatch.setattr(Watchdog, "beat", lambda watchdog, *progress: beats.append(progress))
    monkeypatch.setattr("sousaphone.training.resumable_trial.cut_short", cut_short)
    trial = Trial(trial_config(epochs=EPOCHS, eval_batch=4), tmp_path)
    trial.start(Limits(trial_seconds=3600.0), after_epoch=an_hour)
    assert attempts == [4, 2]
    assert (trial.record.status, len(trial.record.history), trial.record.oom_retries) == ("time_limit", 1, 1)
    assert trial.record.cause is Cause.TRIAL_TIME_LIMIT
    assert set(beats) == {(1, 1.0)}
    assert len(beats) >= 6  # six validation and six test clips in batches of two, and further windows


def test_limit_within_the_first_epoch_leaves_no_metrics(trial_config: MakeConfig, tmp_path: Path) -> None:
    trial = Trial(trial_config(epochs=1), tmp_path)
    assert trial.start(Limits(trial_seconds=0.001)) == []
    assert (trial.record.status, trial.record.history) == ("time_limit", [])
    assert "epoch 1" in str(trial.record.reason)


def test_trial_does_not_start_after_the_deadline(trial_config: MakeConfig, tmp_path: Path) -> None:
    trial = Trial(trial_config(), tmp_path)
    assert trial.start(Limits(deadline=time.monotonic() - 1)) == []
    assert list(trial.directory.iterdir()) == []


def test_diverged_trial_is_not_retried(trial_config: MakeConfig, tmp_path: Path) -> None:
    # The product of adapters of 1e30 overflows in the second step, so that the loss is NaN.
    trial = Trial(trial_config(learning_rate=1e30, max_grad_norm=1e30), tmp_path)
    with pytest.raises(DivergedError):
        trial.start()
    assert trial.record.cause is Cause.LOSS_NOT_FINITE
    assert "learning_rate" in str(trial.record.reason)
    assert trial.record.history == []
    assert not trial.record.status.is_retried


def test_completed_trial_only_reports_its_last_epoch_again(trial_config: MakeConfig, tmp_path: Path) -> None:
    trial = Trial(trial_config(epochs=2), tmp_path)
    assert trial.start() == [1, 2]
    before = {path: path.read_bytes() for path in trial.directory.rglob("*") if path.is_file()}
    assert trial.start() == [2]
    assert {path: path.read_bytes() for path in trial.directory.rglob("*") if path.is_file()} == before


def test_trial_killed_before_its_last_record_ends_with_the_cause_of_its_checkpoint(
    trial_config: MakeConfig, tmp_path: Path
) -> None:
    trial = Trial(trial_config(epochs=2), tmp_path)
    trial.start()
    state = checkpoint.newest(trial.directory)
    assert state is not None
    assert type(state["end"]) is str  # checkpoints contain no classes
    whole = trial.record
    torn = dataclasses.replace(whole, status=Status.RUNNING, cause=None, reason=None, history=whole.history[:1])
    torn.write(trial.directory)
    assert trial.start() == [2]
    assert (trial.record.cause, trial.record.reason) == (Cause.ALL_EPOCHS, whole.reason)
    assert trial.record.history == whole.history


def test_epoch_is_on_disk_before_it_is_reported(trial_config: MakeConfig, tmp_path: Path) -> None:
    trial = Trial(trial_config(epochs=2), tmp_path)
    kept: list[tuple[int, int]] = []

    def look() -> None:
        state = checkpoint.newest(trial.directory)
        kept.append((len(trial.record.history), len(state["history"]) if state else 0))

    assert trial.start(after_epoch=look) == [1, 2]
    assert kept == [(1, 1), (2, 2)]


def test_full_disk_interrupts_the_trial_before_it_writes_a_checkpoint(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(trial_config(epochs=1), tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**30, 2**30, 10 * 2**20))
    with pytest.raises(OSError, match=r"10 MB .* 20 MB"):
        trial.start()
    assert (trial.record.status, trial.record.cause) == (Status.INTERRUPTED, Cause.DISK_FULL)
    assert checkpoint.newest(trial.directory) is None


def test_smaller_micro_batch_keeps_the_effective_batch(trial_config: MakeConfig) -> None:
    config = trial_config(micro_batch=32, accumulation=2, eval_batch=1)
    half = with_smaller_micro_batch(config, 2)
    assert (half.micro_batch, half.accumulation, half.eval_batch) == (8, 8, 1)
    assert dataclasses.replace(half, micro_batch=32, accumulation=2) == config


@pytest.mark.parametrize(("micro_batch", "smallest"), [(1, 1), (2, 1), (7, 7), (12, 3)])
def test_micro_batch_is_halved_only_while_it_is_even(trial_config: MakeConfig, micro_batch: int, smallest: int) -> None:
    found = with_smaller_micro_batch(trial_config(micro_batch=micro_batch, accumulation=5), 2)
    assert (found.micro_batch, found.micro_batch * found.accumulation) == (smallest, micro_batch * 5)


# Runs in a separate process with less and less memory; the need of a step is measured first.
_MEMORY_PROGRAM = """
import gc, json, resource, sys
from pathlib import Path
import torch
from sousaphone.config import TrainConfig
from tests.training.test_resumable_trial import Trial

torch.set_num_threads(1)

def megabytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) / 1024

def run(name, micro_batch, room=None):
    '''Run a trial of one step with `room` MB more than the process uses; return its peak MB and its outcome.'''
    config = TrainConfig(**{**options, "micro_batch": micro_batch, "accumulation": 32 // micro_batch})
    trial = Trial(config, Path(sys.argv[1], name))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before, limit = megabytes("VmRSS"), resource.RLIM_INFINITY
    if room is not None:
        limit = int((megabytes("VmData") + room) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))
    try:
        trial.start()
    except Exception as error:
        print(name, type(error).__name__, error, file=sys.stderr)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    record, config = trial.record, trial.record.config
    return megabytes("VmHWM") - before, {
        "status": record.status, "reason": record.reason, "oom_retries": record.oom_retries,
        "micro_batch": config["micro_batch"], "effective": config["micro_batch"] * config["accumulation"],
        "train_loss": [row["train_loss"] for row in record.history],
    }

options = json.loads(sys.argv[2])
run("warm", 1)
half, _ = run("half", 16)
whole, plenty = run("whole", 32)
print(json.dumps({
    "peaks": [half, whole],
    "plenty": plenty,
    "short": run("short", 32, (half + whole) / 2)[1],
    "starved": run("starved", 32, half / 4)[1],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses the memory limits of Linux")
def test_trial_out_of_memory_is_retried_twice_with_half_the_micro_batch(tmp_path: Path) -> None:
    data = write_sousa(tmp_path / "sousa", players=["a", "b", "c"], takes=12, long_clips=0)
    options = {"data_dir": str(data), "cache_dir": str(tmp_path / "cache"), "augment": False, "epochs": 1}
    options |= {"model": "beats", "clip_seconds": 4.0, "eval_batch": 1, "limit_train_batches": 1}
    options |= {"limit_eval_batches": 1, "head_dropout": 0.0, "lora_dropout": 0.0}
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY_PROGRAM, str(tmp_path), json.dumps(options)],
        cwd=ROOT,
        # Freed memory is returned to the system at once, so that the limit is exact.
        env={"PATH": "/usr/bin:/bin", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    output = f"{found['peaks']}\n{done.stderr}"
    plenty, short, starved = (found[name] for name in ("plenty", "short", "starved"))
    assert (plenty["status"], plenty["oom_retries"], plenty["micro_batch"]) == ("completed", 0, 32), output
    assert (short["status"], short["oom_retries"], short["micro_batch"]) == ("completed", 1, 16), output
    assert plenty["effective"] == short["effective"] == 32
    assert short["train_loss"] == pytest.approx(plenty["train_loss"], rel=1e-4)
    assert (starved["status"], starved["oom_retries"], starved["train_loss"]) == ("out_of_memory", 2, []), output
    assert "micro_batch=8" in starved["reason"]
