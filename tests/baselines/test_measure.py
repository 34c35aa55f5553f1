"""A run's yardsticks are measured once, whatever happens in between, and none of them can stop its trials."""

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
from sousaphone.baselines.classifiers import Hearing, titles
from sousaphone.baselines.latency import models
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
    """Stands for measuring: notes what it is asked for, and does at it what `at` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.measured: list[str] = []
        self.at: dict[str, BaseException] = {}
        monkeypatch.setattr(measure, "measure_baseline", self.baseline)
        monkeypatch.setattr(measure, "time_arm", self.time)

    def _note(self, name: str) -> None:
        self.measured.append(name)
        if name in self.at:
            raise self.at[name]

    def baseline(self, name: str, hearing: Hearing) -> tuple[Baseline, pd.DataFrame]:
        self._note(name)
        hearing.heard(len(hearing.dataset.clips))
        score = len(self.measured) / 10
        scores = {"val_acc": score, "val_macro_f1": score, "test_acc": 0.25, "test_macro_f1": 0.2}
        return Baseline(name, titles(hearing.trials)[name], scores, 1.0, "k=1"), pd.DataFrame({"sample_id": [name]})

    def time(self, trial: TrainConfig) -> InferenceTime:
        self._note(f"{trial.model} {trial.strategy}")
        return InferenceTime(trial.model, trial.strategy, trial.lora_targets, 5.0, 10)

    def again(self) -> list[str]:
        """What was measured since it was last asked."""
        measured, self.measured = self.measured, []
        return measured


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


def run(path: Path, *trials: TrainConfig, dataset: Dataset = DATASET) -> tuple[BaselineResults | None, list[str]]:
    said: list[str] = []
    return measure_baselines(path, trials, dataset, said.append), said


def test_a_run_is_measured_once_and_what_is_there_is_only_told_of_again(fake: Fake, tmp_path: Path) -> None:
    found, said = run(tmp_path, AST, SECOND_SEED)
    assert fake.again() == ["majority", "onsets", "logmel", "knn-ast", "ast lora"]
    assert BaselineResults.read(tmp_path) == found
    assert said[0].startswith("measuring 4 baselines and the CPU time of 1 arm to hold the trials against: ")
    assert said[1].startswith("measured 4 baselines and the CPU time of 1 arm in ")
    best = "best baseline by val_macro_f1: knn-ast (nearest neighbours by frozen AST)  test_acc 0.250"
    assert said[2:] == [f"{best}  test_macro_f1 0.200"]
    before = (tmp_path / BASELINE_RESULTS_NAME).stat().st_mtime_ns
    assert run(tmp_path, AST, SECOND_SEED) == (found, said[2:])
    assert fake.again() == []
    assert (tmp_path / BASELINE_RESULTS_NAME).stat().st_mtime_ns == before


@pytest.mark.parametrize("at", ["majority", "logmel", "knn-ast", "ast lora"])
def test_what_is_interrupted_goes_on_with_the_one_that_was_in_work(at: str, fake: Fake, tmp_path: Path) -> None:
    fake.at[at] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, AST)
    first = fake.again()
    del fake.at[at]
    found, _ = run(tmp_path, AST)
    second = fake.again()
    assert second[0] == first[-1] == at
    assert [*first, *second[1:]] == ["majority", "onsets", "logmel", "knn-ast", "ast lora"]
    assert found == BaselineResults.read(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_extension_measures_only_what_it_adds(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, BEATS)
    fake.again()
    found, _ = run(tmp_path, AST, dataclasses.replace(AST, strategy="full"), BEATS)
    assert fake.again() == ["knn-ast", "ast lora", "ast full"]
    assert found is not None
    assert [each.name for each in found.baselines] == ["majority", "onsets", "logmel", "knn-ast", "knn-beats"]
    assert [each.built[:2] for each in found.inference] == [("ast", "lora"), ("ast", "full"), ("beats", "lora")]


@pytest.mark.parametrize("content", ["{ torn", "[]", '{"schema": 0}'])
def test_a_damaged_file_is_measured_anew(content: str, fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    everything = fake.again()
    (tmp_path / BASELINE_RESULTS_NAME).write_text(content)
    run(tmp_path, AST)
    assert fake.again() == everything
    assert BaselineResults.read(tmp_path) is not None


def test_other_clips_or_other_seconds_are_measured_anew(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    everything = fake.again()
    run(tmp_path, dataclasses.replace(AST, clip_seconds=2.0))
    assert fake.again() == everything
    fewer = Dataset(DATASET.root, CLIPS.drop(1))
    run(tmp_path, dataclasses.replace(AST, clip_seconds=2.0), dataset=fewer)
    assert fake.again() == everything


def test_a_baseline_whose_answers_are_gone_is_measured_anew(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path, AST)
    fake.again()
    predictions_path(tmp_path, "onsets").unlink()
    run(tmp_path, AST)
    assert fake.again() == ["onsets"]


def test_times_of_two_processors_are_never_mixed(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "device_name", lambda device: "old")
    run(tmp_path, AST)
    fake.again()
    monkeypatch.setattr(measure, "device_name", lambda device: "new")
    found, _ = run(tmp_path, AST)
    assert fake.again() == []
    assert found is not None
    assert found.cpu == "old"
    found, _ = run(tmp_path, AST, BEATS)
    assert fake.again() == ["knn-beats", "ast lora", "beats lora"]
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
def test_what_cannot_be_measured_says_why_stops_nothing_and_is_tried_again(
    error: Exception, why: str, fake: Fake, tmp_path: Path
) -> None:
    fake.at = {"logmel": error, "ast lora": error}
    found, said = run(tmp_path, AST)
    assert fake.again() == ["majority", "onsets", "logmel", "knn-ast", "ast lora"]
    assert found == BaselineResults.read(tmp_path)
    assert found is not None
    assert [each.name for each in found.baselines if each.why == why] == ["logmel"]
    assert (found.inference[0].ms, found.inference[0].why) == (None, why)
    assert f"  without a result: logmel, the CPU time of ast-lora-all-linear ({why})" in said
    fake.at.clear()
    run(tmp_path, AST)
    assert fake.again() == ["logmel", "ast lora"]


def test_a_defect_is_no_reason_and_is_raised(fake: Fake, tmp_path: Path) -> None:
    fake.at["onsets"] = TypeError("a defect")
    with pytest.raises(TypeError, match="a defect"):
        run(tmp_path, AST)


def test_a_full_disk_is_one_line(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: BaselineResults, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BaselineResults, "write", full)
    found, said = run(tmp_path, AST)
    assert found is None
    assert said[-1] == f"they cannot be kept in {tmp_path} (No space left on device); the trials go on without them"


def test_full_size_backbones_on_a_cpu_are_left_out_by_name_and_cost_no_second_measuring(
    fake: Fake, tmp_path: Path
) -> None:
    clips = pd.concat([CLIPS] * 60, ignore_index=True)
    base, many = dataclasses.replace(AST, scale="base"), Dataset(DATASET.root, clips)
    _, said = run(tmp_path, base, dataset=many)
    assert fake.again() == ["majority", "onsets", "logmel", "ast lora"]
    assert "  without a result: knn-ast (a full-size model on a CPU, and more than 200 clips)" in said
    _, said = run(tmp_path, base, dataset=many)
    assert fake.again() == []
    assert "  without a result: knn-ast (a full-size model on a CPU, and more than 200 clips)" in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_only_other_machines_have_is_replaced_by_the_cpu(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = []
    real = fake.baseline

    def watch(name: str, hearing: Hearing) -> tuple[Baseline, pd.DataFrame]:
        where.append(hearing.device.type)
        return real(name, hearing)

    monkeypatch.setattr(measure, "measure_baseline", watch)
    run(tmp_path, dataclasses.replace(AST, device="cuda"))
    assert set(where) == {"cpu"}


def test_for_real_all_is_there_and_threads_and_random_state_are_as_before(
    trial_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    trials = [
        trial_config(model=model, strategy=strategy) for model in ("ast", "htsat") for strategy in ("lora", "head")
    ]
    dataset = read_subset(Path(trials[0].data_dir), "tiny")
    torch.set_num_threads(2)
    chance, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    found, said = run(tmp_path, *trials, dataset=dataset)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), chance)
    assert (np.random.get_state()[1] == other).all()
    assert found is not None
    assert found.data_fingerprint == dataset.fingerprint
    assert not any("without a result" in line for line in said)
    assert [each.built for each in found.inference] == list(models(trials))
    for baseline in found.baselines:
        answers = pd.read_parquet(predictions_path(tmp_path, baseline.name))
        assert list(answers) == ["sample_id", "player", "rudiment", "predicted"]
        assert baseline.scores["test_acc"] == pytest.approx((answers["rudiment"] == answers["predicted"]).mean())
