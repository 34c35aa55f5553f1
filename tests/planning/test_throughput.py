"""A timing tells a speed and leaves nothing else behind; what it told once is known from then on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sousaphone.config import TrainConfig
from sousaphone.model import build_model
from sousaphone.planning import throughput
from sousaphone.planning.throughput import Budget, Speed, measure, time_arms, workload
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import TrialRecord

# A batch of 2 and a second of sound: timed in a moment.
SMALL = TrainConfig(model="efficientat", micro_batch=2, eval_batch=2, clip_seconds=1.0)
CLIPS = {"train": 800, "validation": 100, "test": 100}
USUAL = Budget()


class Fake:
    """Stands for `measure`: counts its calls, and the clock goes on by `seconds` at each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 1.0) -> None:
        self.measured: list[str] = []
        self.now = 0.0
        self.seconds = seconds
        self.error: Exception | None = None
        monkeypatch.setattr(throughput, "_measure_arm", self)
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
    said: list[str] = []
    speeds = time_arms(trials, CLIPS, cache, budget, said.append)
    return [speeds[workload(trial)] for trial in trials], said


def test_an_arm_of_a_search_is_that_of_the_sweep_and_bears_no_rate() -> None:
    tried = [dataclasses.replace(SMALL, score_test=False, learning_rate=rate) for rate in (1e-3, 5e-3)]
    assert {workload(trial) for trial in tried} == {workload(SMALL)}
    assert workload(tried[0]).arm_name == "efficientat-lora-aug-on"


@pytest.mark.parametrize("strategy", ["lora", "full"])
def test_model_random_state_and_threads_are_as_before(strategy: str) -> None:
    config = dataclasses.replace(SMALL, strategy=strategy, threads=1, learning_rate=0.5)
    torch.set_num_threads(2)
    model = build_model(config, len(SLUGS))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chance, other = torch.get_rng_state(), np.random.get_state()[1].copy()
    speed = measure(config, model)
    assert speed.train > 0
    assert speed.evaluation > 0
    assert speed.memory_mb is not None
    assert speed.memory_mb > 100
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    assert (np.random.get_state()[1] == other).all()
    assert torch.get_num_threads() == 2


def test_a_step_that_fails_leaves_the_model_as_it_was_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(SMALL, len(SLUGS))
    before = model.trained_state()

    def fail(config: TrainConfig, model: torch.nn.Module, *rest: object, **named: object) -> None:
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).add_(1)
        torch.rand(1)
        raise RuntimeError("no more memory")

    monkeypatch.setattr(throughput.loop, "evaluate", fail)
    chance = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no more memory"):
        measure(SMALL, model)
    assert all(torch.equal(value, before[key]) for key, value in model.trained_state().items())
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_learning_rate_at_which_training_diverges_can_be_timed() -> None:
    config = dataclasses.replace(SMALL, strategy="full", learning_rate=1e30, max_grad_norm=1e30)
    assert measure(config, build_model(config, len(SLUGS))).train > 0


@pytest.mark.parametrize(("steps", "taken"), [(2, [1, 2]), (0, [1])])
def test_the_first_step_is_not_counted_where_there_are_others(
    steps: int, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int | None] = []
    real = throughput.loop.train_epoch

    def watch(config: TrainConfig, *rest: object) -> dict[str, float]:
        limits.append(config.limit_train_batches)
        return {**real(config, *rest), "samples_per_second": 100.0 * len(limits)}  # type: ignore[arg-type]

    monkeypatch.setattr(throughput.loop, "train_epoch", watch)
    assert measure(SMALL, build_model(SMALL, len(SLUGS)), steps).train == 100.0 * len(taken)
    assert limits == taken


def test_trials_that_cost_the_same_are_one_arm_and_others_are_not() -> None:
    same = {"seed": 3, "epochs": 7, "learning_rate": 0.1, "dataset": "full", "data_dir": "/x", "cache_dir": "/y"}
    assert workload(dataclasses.replace(SMALL, **same)) == workload(SMALL)
    others = {"model": "ast", "augment": False, "threads": 2, "clip_seconds": 2.0, "micro_batch": 4, "lora_r": 2}
    assert all(workload(dataclasses.replace(SMALL, **{key: value})) != workload(SMALL) for key, value in others.items())


def test_an_arm_is_measured_once_for_all_its_seeds_and_later_launches(fake: Fake, tmp_path: Path) -> None:
    trials = [dataclasses.replace(SMALL, seed=seed) for seed in (0, 1)]
    speeds, said = run(trials, tmp_path / "cache")
    assert fake.measured == ["efficientat-lora-aug-on"]
    assert "timing a few steps of efficientat-lora-aug-on" in said[0]
    assert "1 of 1 arms: 1 timed in 1 s" in said[1]
    again, said = run(trials, tmp_path / "cache")
    assert again == speeds == [Speed(10.0, 20.0, 500.0)] * 2
    assert len(fake.measured) == 1
    assert said == ["speed of 1 of 1 arms: 1 known from an earlier launch"]


@pytest.mark.parametrize("content", ["{ damaged", "[]", "null", "entry"])
def test_a_damaged_cache_is_ignored_and_written_anew(content: str, fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / throughput.FILE
    if content == "entry":
        content = json.dumps({throughput._key(workload(SMALL)): {"train": "fast", "evaluation": 1, "memory_mb": None}})
    file.write_text(content)
    assert run([SMALL], tmp_path)[0] == [Speed(10.0, 20.0, 500.0)]
    run([SMALL], tmp_path)
    assert len(fake.measured) == 1


def test_a_cache_that_cannot_be_written_is_no_error(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run([SMALL], tmp_path / "file")[0] == [Speed(10.0, 20.0, 500.0)]


def test_what_is_too_short_is_timed_for_a_plan_alone(fake: Fake, tmp_path: Path) -> None:
    # 3 steps are 3 % of 100; an epoch has 20 steps.
    config = dataclasses.replace(SMALL, limit_train_batches=20)
    short, just = dataclasses.replace(config, epochs=4), dataclasses.replace(config, epochs=5)
    speeds, said = run([short], tmp_path)
    assert speeds == [None]
    assert said == ["not timed: efficientat-lora-aug-on (too short to be worth it)"]
    assert run([just], tmp_path / "other")[0] != [None]
    assert run([short], tmp_path, Budget(share=None))[0] != [None]


def test_only_the_epochs_that_are_left_make_a_timing_worth_it(fake: Fake, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, limit_train_batches=20, epochs=8)
    record = TrialRecord(config.trial_id, {}, history=[{}] * 4)
    records = {config.trial_id: record}
    speeds = time_arms([config], CLIPS, tmp_path, Budget(), lambda line: None, records)
    assert speeds == {workload(config): None}


def test_no_arm_is_begun_after_the_seconds_are_used_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = Fake(monkeypatch, seconds=45.0)
    trials = [dataclasses.replace(SMALL, model=name) for name in ("ast", "beats", "htsat")]
    speeds, said = run(trials, tmp_path)
    assert [speed is None for speed in speeds] == [False, False, True]
    assert len(fake.measured) == 2
    assert said[-2:] == [
        "speed of 2 of 3 arms: 2 timed in 90 s",
        "not timed: htsat-lora-aug-on (the 60 s for timing were used up)",
    ]


def test_a_full_size_model_on_a_cpu_is_timed_only_when_asked(fake: Fake, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, scale="base")
    speeds, said = run([config], tmp_path)
    assert speeds == [None]
    assert "a full-size model on a CPU; pass --timing" in said[0]
    assert run([config], tmp_path, Budget(base_on_cpu=True))[0] != [None]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_nothing_is_timed_for_a_device_that_is_not_here(fake: Fake, tmp_path: Path) -> None:
    speeds, said = run([dataclasses.replace(SMALL, device="cuda")], tmp_path)
    assert speeds == [None]
    assert said == ["not timed: efficientat-lora-aug-on (this machine has no cuda device)"]


def test_an_arm_that_runs_out_of_memory_is_not_timed_and_any_other_error_is_raised(fake: Fake, tmp_path: Path) -> None:
    fake.error = torch.OutOfMemoryError("CUDA out of memory")
    speeds, said = run([SMALL], tmp_path)
    assert speeds == [None]
    assert said[-1] == "not timed: efficientat-lora-aug-on (out of memory with micro_batch=2)"
    fake.error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        run([SMALL], tmp_path)
