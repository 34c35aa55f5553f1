"""Default resources and settings of a trial on each kind of machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import check_trials
from sousaphone.errors import UserError
from sousaphone.planning.resources import Resources
from sousaphone.planning.sweep_options import Request
from sousaphone.sweep.capacity import Capacity, pick_resources
from tune_configs.backbones import sweep


def request(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "models": tuple(REGISTRY),
        "augment": (True, False),
        "seeds": (0,),
        "dataset": "small",
        "strategy": "lora",
        "lora_targets": "all-linear",
        "epochs": 20,
        "scale": "base",
        "weights": dict.fromkeys(REGISTRY, "random"),
        "device": "cuda",
        "data_dir": "",
        "cache_dir": "",
        "cpus": 16,
        "gpus": 2,
    }
    return Request(**{**values, **changes})


def capacity(wanted: Request) -> Capacity:
    mps = float(wanted.device == "mps")
    return Capacity(({"CPU": wanted.cpus, "GPU": wanted.gpus, "mps": mps},))


@pytest.mark.parametrize(
    ("machine", "threads", "at_once"),
    [
        # One trial per GPU; the trials share the cores.
        ({}, 8, 2),
        ({"gpus_per_trial": 0.5}, 4, 4),
        ({"gpus_per_trial": 0.5, "max_concurrent": 3}, 4, 3),
        # A fraction is of one GPU: no trial uses the remainders of two.
        ({"gpus_per_trial": 0.6}, 8, 2),
        ({"gpus_per_trial": 0.1, "gpus": 1, "cpus": 30}, 3, 10),
        # A Mac has one GPU, which Ray does not detect.
        ({"device": "mps", "gpus": 0, "cpus": 10}, 10, 1),
        ({"device": "mps", "gpus": 0, "cpus": 10, "cpus_per_trial": 2.0}, 2, 1),
        # On a CPU a full-size model takes all cores, a nano model one.
        ({"device": "cpu", "gpus": 0, "cpus": 4}, 4, 1),
        ({"device": "cpu", "gpus": 0, "cpus": 64, "numa_nodes": 4}, 16, 4),
        ({"device": "cpu", "gpus": 0, "cpus": 2, "numa_nodes": 4}, 1, 2),  # of a container
        ({"device": "cpu", "gpus": 0, "cpus": 4, "scale": "nano"}, 1, 4),
        # As many cores as threads are given.
        ({"device": "cpu", "gpus": 0, "cpus": 4, "scale": "nano", "settings": {"threads": 2}}, 2, 2),
    ],
)
def test_trials_share_the_machine(machine: dict[str, Any], threads: int, at_once: int) -> None:
    wanted = request(**machine)
    plan = sweep(wanted)
    assert {trial.threads for trial in plan.trials()} == {threads}
    resources = pick_resources(wanted, plan, capacity(wanted))
    assert capacity(wanted).trials_at_once(resources, 12) == at_once


@pytest.mark.parametrize("device", ["cuda", "mps", "cpu"])
@pytest.mark.parametrize("scale", ["base", "nano"])
@pytest.mark.parametrize(
    ("settings", "clips"),
    [
        ({}, 32),
        ({"micro_batch": 8}, 32),
        ({"accumulation": 2}, 32),
        ({"micro_batch": 8, "accumulation": 1}, 8),
        ({"micro_batch": 12}, 36),
        ({"micro_batch": 64}, 64),
        ({"accumulation": 5}, 30),
    ],
)
def test_every_arm_has_the_same_effective_batch(device: str, scale: str, settings: dict[str, int], clips: int) -> None:
    trials = sweep(request(device=device, scale=scale, settings=settings)).trials()
    assert {trial.micro_batch * trial.accumulation for trial in trials} == {clips}
    assert all({key: getattr(trial, key) for key in settings} == settings for trial in trials)


@pytest.mark.parametrize(("scale", "seconds"), [("base", 5.0), ("nano", 2.5)])
def test_every_arm_has_the_same_clip_length_and_evaluates_two_micro_batches(scale: str, seconds: float) -> None:
    trials = sweep(request(scale=scale)).trials()
    assert {trial.clip_seconds for trial in trials} == {seconds}
    assert all(trial.eval_batch == 2 * trial.micro_batch for trial in trials)


def test_found_learning_rate_replaces_the_default() -> None:
    usual = {trial.model: trial.learning_rate for trial in sweep(request()).trials()}
    tuned = sweep(request(tuned={"beats": {"learning_rate": 0.123}})).trials()
    found = {trial.model: trial.learning_rate for trial in tuned}
    assert found == {**usual, "beats": 0.123}


def test_different_effective_batches_are_refused() -> None:
    first, *others = sweep(request()).trials()
    with pytest.raises(UserError, match=r"32, 64.*micro_batch × accumulation"):
        check_trials([dataclasses.replace(first, accumulation=2), *others])


def test_trial_must_fit_on_one_node_of_a_cluster() -> None:
    cluster = Capacity(({"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0}, {"CPU": 4.0, "GPU": 1.0}), "the cluster")
    assert cluster.trials_at_once(Resources(2.0, 1.0, None), 8) == 2
    assert cluster.trials_at_once(Resources(4.0, 0.0, None), 8) == 6
    with pytest.raises(UserError, match=r"--gpus-per-trial 2 .*has 1 "):
        cluster.check(Resources(1.0, 2.0, None))
    with pytest.raises(UserError, match=r"no node of the cluster.*'CPU': 8\.0, 'GPU': 1\.0"):
        cluster.check(Resources(8.0, 1.0, None))
    with pytest.raises(UserError, match=r"--gpus-per-trial 1\.5"):
        cluster.check(Resources(1.0, 1.5, None))
    with pytest.raises(UserError, match="resource 'mps'"):
        cluster.check(Resources(1.0, 0.0, None, "mps"))


def test_micro_batches_of_a_cpu_depend_on_the_precision() -> None:
    sizes = {}
    for precision in ("float32", "bfloat16"):
        plan = sweep(request(device="cpu", gpus=0, scale="base", settings={"precision": precision}))
        assert {trial.micro_batch * trial.accumulation for trial in plan.trials()} == {32}
        sizes[precision] = {trial.model: trial.micro_batch for trial in plan.trials()}
    assert sizes["bfloat16"]["htsat"] > sizes["float32"]["htsat"]
