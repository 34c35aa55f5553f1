"""Inference time of each arm on one core, without side effects."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sousaphone.backbones.registry import REGISTRY, strategy_of
from sousaphone.baselines import latency
from sousaphone.baselines.latency import distinct_models, time_arm, time_model
from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS

SMALL = TrainConfig(model="ast", clip_seconds=1.0)


def test_trials_with_equal_models_are_timed_once() -> None:
    alike = [dataclasses.replace(SMALL, seed=seed, augment=augment) for seed in (0, 1) for augment in (True, False)]
    alike += [dataclasses.replace(SMALL, **change) for change in ({"learning_rate": 0.1}, {"head_dropout": 0.5})]
    changes = ({"model": "beats"}, {"strategy": "full"}, {"lora_r": 4}, {"clip_seconds": 2.0})
    others = [dataclasses.replace(SMALL, **change) for change in (*changes, {"precision": "bfloat16"})]
    unused = [dataclasses.replace(SMALL, efficientat_hop=80), dataclasses.replace(others[1], lora_r=4)]
    hops = [dataclasses.replace(SMALL, model="efficientat", efficientat_hop=hop) for hop in (None, 80)]
    assert list(distinct_models([*alike, *others, *unused, *hops]).values()) == [alike[0], *others, *hops]


@pytest.mark.parametrize("model", REGISTRY)
def test_every_backbone_can_be_timed(model: str) -> None:
    timed = time_arm(dataclasses.replace(SMALL, model=model))
    assert (timed.model, timed.strategy) == (model, strategy_of(model, "lora"))
    assert timed.ms is not None
    assert 0.1 < timed.ms < 1000
    assert timed.repeats >= latency.REPEATS[0]


@pytest.mark.parametrize(
    ("strategy", "precision", "frozen", "product"),
    [
        ("lora", "float32", torch.float32, torch.float32),
        ("lora", "bfloat16", torch.bfloat16, torch.float32),
        ("dora", "bfloat16", torch.float32, torch.bfloat16),  # by autocast
    ],
)
def test_arm_is_timed_in_the_precision_of_its_training(
    strategy: str, precision: str, frozen: torch.dtype, product: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.dtype] = []

    def time_model(model: RudimentClassifier, seconds: float) -> list[float]:
        found.append(next(p.dtype for p in model.backbone.parameters() if not p.requires_grad and p.dim() == 2))
        found.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return [1.0]

    monkeypatch.setattr(latency, "time_model", time_model)
    time_arm(dataclasses.replace(SMALL, strategy=strategy, precision=precision))
    assert found == [frozen, product]


def test_minimum_time_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "time_model", lambda model, seconds: [3.0, 1.5, 9.0])
    timed = time_arm(SMALL)
    assert (timed.ms, timed.repeats) == (1.5, 3)


class Fake(torch.nn.Module):
    """A model that collects its inputs, and advances the clock by `seconds` per clip."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        super().__init__()
        self.backbone = build_model(SMALL, len(SLUGS)).backbone
        self.now, self.seconds = 0.0, seconds
        self.inputs: list[torch.Tensor] = []
        self.conditions: set[tuple[int, bool, bool]] = set()
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        self.inputs.append(wave)
        self.conditions.add((torch.get_num_threads(), self.training, torch.is_inference_mode_enabled()))
        self.now += self.seconds
        return wave


@pytest.mark.parametrize(("seconds", "repeats"), [(0.01, 20), (0.5, 6), (2.0, 2), (60.0, 2)])
def test_repeats_depend_on_time_and_exclude_the_warm_up(
    seconds: float, repeats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(monkeypatch, seconds)
    times = time_model(fake, 1.0)  # type: ignore[arg-type]
    assert times == pytest.approx([1000 * seconds] * repeats)
    assert len(fake.inputs) == repeats + 1


def test_one_clip_on_one_thread_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    fake = Fake(monkeypatch, 1.0)
    time_model(fake.train(), 0.5)  # type: ignore[arg-type]
    assert {tuple(wave.shape) for wave in fake.inputs} == {(1, 8_000)}
    assert fake.conditions == {(1, False, True)}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("fails", [False, True])
def test_threads_and_random_state_are_restored(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    if fails:
        monkeypatch.setattr(latency.time, "perf_counter", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            time_arm(SMALL)
    else:
        time_arm(SMALL)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
