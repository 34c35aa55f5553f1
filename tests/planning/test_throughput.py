"""Timing measures the speed of arms without side effects, and caches it between launches."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sousaphone.config import TrainConfig
from sousaphone.planning import throughput
from sousaphone.planning.throughput import Budget, Speed, measure, time_arms, workload
from sousaphone.runs.trial_record import TrialRecord

# A batch of 2 clips of one second, for short tests.
SMALL = TrainConfig(model="efficientat", micro_batch=2, eval_batch=2, clip_seconds=1.0)
CLIPS = {"train": 800, "validation": 100, "test": 100}
USUAL = Budget()


class Fake:
    """Replaces `measure`: records its calls and advances the clock by `seconds` at each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 1.0) -> None:
        self.measured: list[str] = []
        self.now = 0.0
        self.seconds = seconds
        self.error: Exception | None = None
        monkeypatch.setattr(throughput, "measure", self)
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self.now)

    def __call__(self, which: TrainConfig) -> Speed:
        self.measured.append(which.arm_name)
        self.now += self.seconds
        if self.error:
            raise self.error
        return Speed(10.0, 20.0, 500.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


def run(trials: list[TrainConfig], cache: Path, budget: Budget = USUAL) -> tuple[list[Speed | None], list[str]]:
    lines: list[str] = []
    speeds = time_arms(trials, CLIPS, cache, budget, lines.append)
    return [speeds[workload(trial)] for trial in trials], lines


def test_arm_of_a_search_equals_that_of_a_sweep() -> None:
    tried = [dataclasses.replace(SMALL, score_test=False, learning_rate=rate) for rate in (1e-3, 5e-3)]
    assert {workload(trial) for trial in tried} == {workload(SMALL)}
    assert workload(tried[0]).arm_name == "efficientat-lora-aug-on"


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_timing_restores_random_state_and_threads(strategy: str) -> None:
    config = dataclasses.replace(SMALL, strategy=strategy, threads=1, learning_rate=0.5)
    torch.set_num_threads(2)
    chance, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    speed = measure(config)
    assert speed.train > 0
    assert speed.evaluation > 0
    assert speed.memory_mb is not None
    assert speed.memory_mb > 100
    assert torch.equal(torch.get_rng_state(), chance)
    assert (np.random.get_state()[1] == other).all()
    assert torch.get_num_threads() == 2


def test_failed_timing_restores_the_random_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **named: object) -> None:
        torch.rand(1)
        raise RuntimeError("no more memory")

    monkeypatch.setattr(throughput.scoring, "evaluate", fail)
    chance = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no more memory"):
        measure(SMALL)
    assert torch.equal(torch.get_rng_state(), chance)


def test_arm_that_would_diverge_can_be_timed() -> None:
    config = dataclasses.replace(SMALL, strategy="full", learning_rate=1e30, max_grad_norm=1e30)
    assert measure(config).train > 0


def test_first_step_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int | None] = []
    real = throughput.loop.train_epoch

    def watch(config: TrainConfig, *rest: object) -> dict[str, float]:
        limits.append(config.limit_train_batches)
        return {**real(config, *rest), "samples_per_second": 100.0 * len(limits)}  # type: ignore[arg-type]

    monkeypatch.setattr(throughput.loop, "train_epoch", watch)
    assert measure(SMALL).train == 200.0
    assert limits == [1, 2]


def test_workload_ignores_fields_that_do_not_affect_speed() -> None:
    same = {"seed": 3, "epochs": 7, "learning_rate": 0.1, "dataset": "full", "data_dir": "/x", "cache_dir": "/y"}
    assert workload(dataclasses.replace(SMALL, **same)) == workload(SMALL)
    others = {"model": "ast", "augment": False, "threads": 2, "clip_seconds": 2.0, "micro_batch": 4, "lora_r": 2}
    assert all(workload(dataclasses.replace(SMALL, **{key: value})) != workload(SMALL) for key, value in others.items())


def test_arm_is_measured_once_for_all_seeds_and_later_launches(fake: Fake, tmp_path: Path) -> None:
    trials = [dataclasses.replace(SMALL, seed=seed) for seed in (0, 1)]
    speeds, lines = run(trials, tmp_path / "cache")
    assert fake.measured == ["efficientat-lora-aug-on"]
    assert "efficientat-lora-aug-on" in lines[0]
    assert "1 timed in 1 s" in lines[1]
    again, lines = run(trials, tmp_path / "cache")
    assert again == speeds == [Speed(10.0, 20.0, 500.0)] * 2
    assert len(fake.measured) == 1
    assert len(lines) == 1
    assert "1 known" in lines[0]


@pytest.mark.parametrize("content", ["{ damaged", "[]", "null", "entry"])
def test_damaged_cache_is_ignored_and_rewritten(content: str, fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / throughput.FILE
    if content == "entry":
        run([SMALL], tmp_path)
        (key,) = json.loads(file.read_text())
        content = json.dumps({key: {"train": "fast", "evaluation": 1, "memory_mb": None}})
    file.write_text(content)
    fake.measured.clear()
    assert run([SMALL], tmp_path)[0] == [Speed(10.0, 20.0, 500.0)]
    run([SMALL], tmp_path)
    assert len(fake.measured) == 1


def test_unwritable_cache_is_not_an_error(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run([SMALL], tmp_path / "file")[0] == [Speed(10.0, 20.0, 500.0)]


def test_short_arm_is_timed_only_for_a_plan(fake: Fake, tmp_path: Path) -> None:
    # 3 steps are 3 % of 100; an epoch has 20 steps.
    config = dataclasses.replace(SMALL, limit_train_batches=20)
    short, just = dataclasses.replace(config, epochs=4), dataclasses.replace(config, epochs=5)
    speeds, lines = run([short], tmp_path)
    assert speeds == [None]
    assert len(lines) == 1
    assert "not timed: efficientat-lora-aug-on" in lines[0]
    assert run([just], tmp_path / "other")[0] != [None]
    assert run([short], tmp_path, Budget(fraction=None))[0] != [None]


def test_finished_epochs_do_not_count_for_timing(fake: Fake, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, limit_train_batches=20, epochs=8)
    record = TrialRecord(config.trial_id, {}, history=[{}] * 4)
    records = {config.trial_id: record}
    speeds = time_arms([config], CLIPS, tmp_path, Budget(), lambda line: None, records)
    assert speeds == {workload(config): None}


def test_no_arm_is_timed_after_the_seconds_are_used_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Fake(monkeypatch, seconds=45.0)
    trials = [dataclasses.replace(SMALL, model=name) for name in ("ast", "beats", "htsat")]
    speeds, lines = run(trials, tmp_path)
    assert [speed is None for speed in speeds] == [False, False, True]
    assert len(fake.measured) == 2
    assert "2 of 3 arms: 2 timed in 90 s" in lines[-2]
    assert "not timed: htsat-lora-aug-on (the 60 s" in lines[-1]


def test_full_size_model_on_a_cpu_is_timed_only_with_the_option(fake: Fake, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, scale="base")
    speeds, lines = run([config], tmp_path)
    assert speeds == [None]
    assert "--timing" in lines[0]
    assert run([config], tmp_path, Budget(base_on_cpu=True))[0] != [None]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_device_is_not_timed(fake: Fake, tmp_path: Path) -> None:
    speeds, lines = run([dataclasses.replace(SMALL, device="cuda")], tmp_path)
    assert speeds == [None]
    assert fake.measured == []
    assert "cuda" in lines[0]


def test_arm_that_runs_out_of_memory_is_skipped_and_other_errors_are_raised(fake: Fake, tmp_path: Path) -> None:
    fake.error = torch.OutOfMemoryError("CUDA out of memory")
    speeds, lines = run([SMALL], tmp_path)
    assert speeds == [None]
    assert "not timed: efficientat-lora-aug-on" in lines[-1]
    assert "micro_batch=2" in lines[-1]
    fake.error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        run([SMALL], tmp_path)
