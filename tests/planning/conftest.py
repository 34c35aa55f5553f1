"""A run of two trials that was stopped, made without Ray."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.data.prepare import read_subset
from sousaphone.planning.job import Job
from sousaphone.planning.make_job import make_job
from sousaphone.planning.plan import plan_json
from sousaphone.planning.resources import Resources
from sousaphone.runs.directory import DriverWatch, Limits, RunDirectory
from sousaphone.runs.statuses import Status
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.training.resumable_trial import run_trial
from tests.backbones.beats_nets import official, perturbed, written

CUT, WAITING = "beats-lora-aug-off-s0", "beats-lora-aug-off-s1"


def job_of(storage: Path, *options: str) -> Job:
    return make_job(parse([*options, "--storage", str(storage)], "launch.py"), make_sweep)


@pytest.fixture(scope="module")
def begun(small_sousa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two trials, made without Ray, with its data and weights: the first trial was stopped after an epoch, the
    second has not begun."""
    here = tmp_path_factory.mktemp("begun")
    shutil.copytree(small_sousa, here / "sousa")
    weights = written(here / "beats.pt", official(perturbed()))
    options = ["--models", "beats", "--weights", f"beats={weights}", "--augment", "off", "--seeds", "0", "1"]
    options += ["--data-dir", str(here / "sousa"), "--epochs", "9", "--trial-time-limit", "1h"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOUSAPHONE_CACHE", str(here / "cache"))
        job = job_of(here, "--name", "run", *options, "--set", "clip_seconds=1.0")
    job.directory.write_plan(plan_json(job, Resources(1, 0, None), 1, read_subset(here / "sousa", "tiny")))

    def stop(metrics: object) -> None:
        raise RuntimeError("cut short")

    with job.directory.held(Limits()), pytest.raises(RuntimeError, match="cut short"):
        run_trial(job.trials[0], job.directory.trial(CUT), DriverWatch.begin(job.directory.path), stop)
    end(job.directory, "interrupted")
    return here


def end(run: RunDirectory, status: str, seconds: float = 60.0) -> None:
    """Give the first trial another end."""
    record = TrialRecord.read(run.trial(CUT))
    assert record is not None
    record.status, record.cause, record.seconds = Status(status), None, seconds
    record.write(run.trial(CUT))


@pytest.fixture
def storage(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change; its plan has the original paths of data and weights."""
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(begun / "cache"))
    monkeypatch.delenv("SOUSA_DATASET_PATH", raising=False)
    shutil.copytree(begun, tmp_path / "storage", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "storage"
