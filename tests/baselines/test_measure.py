"""The baselines of a run are measured once, and no failure stops the trials."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sousaphone.baselines import measure
from sousaphone.baselines.classifiers import EvaluationSetup, titles
from sousaphone.baselines.latency import distinct_models
from sousaphone.baselines.measure import measure_baselines
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.data.prepare import read_subset
from sousaphone.runs.baseline_results import (
    BASELINE_RESULTS_NAME,
    Baseline,
    BaselineResults,
    InferenceTime,
    predictions_path,
)

CLIPS = pd.DataFrame(
    {
        "audio_path": [f"{i}.flac" for i in range(4)],
        "rudiment": "flam",
        "player": list("abcd"),
        "split": ["train", "train", "validation", "test"],
        "size_bytes": 1,
    }
)
AST = TrainConfig(model="ast", clip_seconds=1.0)
BEATS = dataclasses.replace(AST, model="beats")
SECOND_SEED = dataclasses.replace(AST, seed=1)
DATASET = Dataset(Path("/nowhere"), CLIPS)


class Fake:
    """Replaces the measurements: collects their names, and raises the error in `at` for a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured: list[str] = []
        self.at: dict[str, BaseException] = {}
        monkeypatch.setattr(measure, "measure_baseline", self.baseline)
        monkeypatch.setattr(measure, "time_arm", self.time)

    def _note(self, name: str) -> None:
        self.measured.append(name)
        if name in self.at:
            raise self.at[name]

    def baseline(self, name: str, setup: EvaluationSetup) -> tuple[Baseline, pd.DataFrame]:
        self._note(name)
        setup.progress(len(setup.dataset.clips))
        score = len(self.measured) / 10
        scores = {"val_acc": score, "val_macro_f1": score, "test_acc": 0.25, "test_macro_f1": 0.2}
        return Baseline(name, titles(setup.trials)[name], scores, 1.0, "k=1"), pd.DataFrame({"sample_id": [name]})

    def time(self, trial: TrainConfig) -> InferenceTime:
        self._note(f"{trial.model} {trial.strategy}")
        return InferenceTime.of(vars(trial), float(len(self.measured)), 10)

    def take(self) -> list[str]:
        """Names of the measurements since the last call."""
        measured, self.measured = self.measured, []
        return measured


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


def run(path: Path, *trials: TrainConfig, dataset: Dataset = DATASET) -> tuple[BaselineResults | None, list[str]]:
    messages: list[str] = []
    return measure_baselines(path, trials, dataset, messages.append), messages


def test_second_launch_reports_existing_results(fake: Fake, tmp_path: Path) -> None:
    found, messages = run(tmp_path, AST, SECOND_SEED)
    assert fake.take() == ["majority", "length", "onsets", "strokes", "logmel", "knn-ast", "ast lora"]
    assert BaselineResults.read(tmp_path) == found
    assert all("6 baselines" in line and "1 model" in line for line in messages[:2])
    assert all(word in messages[2] for word in ("knn-ast", "frozen AST", "test_acc 0.250", "test_macro_f1 0.200"))
    assert len(messages) == 3
    before = (tmp_path / BASELINE_RESULTS_NAME).stat().st_mtime_ns
    assert run(tmp_path, AST, SECOND_SEED) == (found, messages[2:])
    assert fake.take() == []
    assert (tmp_path / BASELINE_RESULTS_NAME).stat().st_mtime_ns == before


@pytest.mark.parametrize("at", ["majority", "logmel", "knn-ast", "ast lora"])
def test_interrupted_measurement_resumes(at: str, fake: Fake, tmp_path: Path) -> None:
    fake.at[at] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, AST)
    first = fake.take()
    del fake.at[at]
    found, _ = run(tmp_path, AST)
    second = fake.take()
    assert second[0] == first[-1] == at
    assert [*first, *second[1:]] == ["majority", "length", "onsets", "strokes", "logmel", "knn-ast", "ast lora"]
    assert found == BaselineResults.read(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_extension_measures_only_new_results(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, BEATS)
    fake.take()
    found, _ = run(tmp_path, AST, dataclasses.replace(AST, strategy="full"), BEATS)
    assert fake.take() == ["knn-ast", "ast lora", "ast full"]
    assert found is not None
    assert [each.name for each in found.baselines] == [
        "majority",
        "length",
        "onsets",
        "strokes",
        "logmel",
        "knn-ast",
        "knn-beats",
    ]
    pairs = [(each.model, each.strategy) for each in found.inference]
    assert pairs == [("ast", "lora"), ("ast", "full"), ("beats", "lora")]


@pytest.mark.parametrize("content", ["{ torn", "[]", '{"schema": 0}'])
def test_damaged_file_is_measured_again(content: str, fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    everything = fake.take()
    (tmp_path / BASELINE_RESULTS_NAME).write_text(content)
    run(tmp_path, AST)
    assert fake.take() == everything
    assert BaselineResults.read(tmp_path) is not None


def test_other_clips_or_clip_lengths_are_measured_again(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    everything = fake.take()
    run(tmp_path, dataclasses.replace(AST, clip_seconds=2.0))
    assert fake.take() == everything
    fewer = Dataset(DATASET.root, CLIPS.drop(1))
    run(tmp_path, dataclasses.replace(AST, clip_seconds=2.0), dataset=fewer)
    assert fake.take() == everything


def test_every_rank_and_length_has_a_time_and_only_missing_ones_are_measured(fake: Fake, tmp_path: Path) -> None:
    arms = [dataclasses.replace(AST, lora_r=r, clip_seconds=seconds) for r in (4, 16) for seconds in (1.0, 2.0)]
    trials = [dataclasses.replace(arm, seed=seed) for arm in arms for seed in (0, 1)]
    fake.at["ast lora"] = MemoryError()
    _, messages = run(tmp_path, *trials)
    for arm in arms:
        assert any(f"clip_seconds {arm.clip_seconds}, precision float32, lora_r {arm.lora_r}" in m for m in messages)
    fake.at.clear()
    run(tmp_path, *trials[:4])
    fake.take()
    found, _ = run(tmp_path, *trials)
    assert fake.take() == ["ast lora"] * 2
    assert found is not None
    times = found.milliseconds({str(number): vars(trial) for number, trial in enumerate(trials)})
    assert len(times) == len(trials)
    assert len(set(times.values())) == len(arms)


def test_older_time_is_that_of_the_first_rank(fake: Fake, tmp_path: Path) -> None:
    found, _ = run(tmp_path, AST)
    assert found is not None
    older = InferenceTime("ast", "lora", "all-linear", 7.0)
    dataclasses.replace(found, inference=(older,)).write(tmp_path)
    fake.take()
    other = dataclasses.replace(AST, lora_r=4)
    found, _ = run(tmp_path, AST, other)
    assert fake.take() == ["ast lora"]
    assert found is not None
    assert found.milliseconds({"old": vars(AST), "new": vars(other)}) == {"old": 7.0, "new": 1.0}


def test_baseline_without_predictions_is_measured_again(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    fake.take()
    predictions_path(tmp_path, "onsets").unlink()
    run(tmp_path, AST)
    assert fake.take() == ["onsets"]


def test_times_of_two_processors_are_not_mixed(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "device_name", lambda device: "old")
    run(tmp_path, AST)
    fake.take()
    monkeypatch.setattr(measure, "device_name", lambda device: "new")
    found, _ = run(tmp_path, AST)
    assert fake.take() == []
    assert found is not None
    assert found.cpu == "old"
    found, _ = run(tmp_path, AST, BEATS)
    assert fake.take() == ["knn-beats", "ast lora", "beats lora"]
    assert found is not None
    assert found.cpu == "new"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out of memory"),
        (RuntimeError("CUDA error:\n  device-side assert"), "CUDA error: device-side assert"),
        (ValueError("it needs 2 classes"), "it needs 2 classes"),
        (OSError("the weights are gone"), "the weights are gone"),
        (ImportError("No module named 'sklearn'"), "No module named 'sklearn'; install the requirements again"),
    ],
)
def test_failure_is_reported_and_retried(error: Exception, why: str, fake: Fake, tmp_path: Path) -> None:
    fake.at = {"logmel": error, "ast lora": error}
    found, messages = run(tmp_path, AST)
    assert fake.take() == ["majority", "length", "onsets", "strokes", "logmel", "knn-ast", "ast lora"]
    assert found == BaselineResults.read(tmp_path)
    assert found is not None
    assert [each.name for each in found.baselines if each.why == why] == ["logmel"]
    assert (found.inference[0].ms, found.inference[0].why) == (None, why)
    assert any("logmel" in line and "ast-lora-all-linear" in line and why in line for line in messages)
    fake.at.clear()
    run(tmp_path, AST)
    assert fake.take() == ["logmel", "ast lora"]


def test_unexpected_error_is_raised(fake: Fake, tmp_path: Path) -> None:
    fake.at["onsets"] = TypeError("a defect")
    with pytest.raises(TypeError, match="a defect"):
        run(tmp_path, AST)


def test_full_disk_is_announced(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: BaselineResults, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BaselineResults, "write", full)
    found, messages = run(tmp_path, AST)
    assert found is None
    assert str(tmp_path) in messages[-1]
    assert "No space left on device" in messages[-1]


def test_skipped_backbones_are_announced_and_not_retried(fake: Fake, tmp_path: Path) -> None:
    clips = pd.concat([CLIPS] * 60, ignore_index=True)
    base, many = dataclasses.replace(AST, scale="base"), Dataset(DATASET.root, clips)
    for measured in (["majority", "length", "onsets", "strokes", "logmel", "ast lora"], []):
        _, messages = run(tmp_path, base, dataset=many)
        assert fake.take() == measured
        assert any("knn-ast" in line and "200 clips" in line for line in messages)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_device_is_replaced_by_the_cpu(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []
    real = fake.baseline

    def watch(name: str, setup: EvaluationSetup) -> tuple[Baseline, pd.DataFrame]:
        devices.append(setup.device.type)
        return real(name, setup)

    monkeypatch.setattr(measure, "measure_baseline", watch)
    run(tmp_path, dataclasses.replace(AST, device="cuda"))
    assert set(devices) == {"cpu"}


def test_measurement_is_complete_and_restores_threads_and_random_state(
    trial_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    trials = [
        trial_config(model=model, strategy=strategy) for model in ("ast", "htsat") for strategy in ("lora", "head")
    ]
    dataset = read_subset(Path(trials[0].data_dir), "tiny")
    torch.set_num_threads(2)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    found, messages = run(tmp_path, *trials, dataset=dataset)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert found is not None
    assert found.data_fingerprint == dataset.fingerprint
    assert all(baseline.scores for baseline in found.baselines)
    assert not any("no result" in line for line in messages)
    assert [each.key for each in found.inference] == list(distinct_models(trials))
    for baseline in found.baselines:
        predictions = pd.read_parquet(predictions_path(tmp_path, baseline.name))
        assert list(predictions) == ["sample_id", "player", "rudiment", "predicted", "averaged_predicted"]
        assert baseline.scores["test_acc"] == pytest.approx(
            (predictions["rudiment"] == predictions["predicted"]).mean()
        )
