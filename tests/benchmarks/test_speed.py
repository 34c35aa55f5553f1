"""Tests of the speed measurement: its counts, its clock, and that its baselines see the same features as ours.

They are not part of the default run: pytest tests/benchmarks
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training import loop
from sousaphone.training.step import micro_batch_of
from tests.benchmarks import floor, overhead
from tests.benchmarks.clock import Clock
from tests.benchmarks.contenders import Measured
from tests.benchmarks.extractors import extractor
from tests.benchmarks.result import Round


class Toy(nn.Module):
    """A frozen layer, a layer with an adapter, a head; and a front end of one frame."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.adapted = nn.Linear(7, 5, bias=False), nn.Linear(5, 6, bias=False)
        self.a, self.b, self.head = nn.Linear(5, 2, bias=False), nn.Linear(2, 6, bias=False), nn.Linear(6, 3)
        for layer in (self.first, self.adapted):
            layer.requires_grad_(False)
        bank = torch.tensor([[0.0], [1.0], [1.0], [0.0], [0.0]])  # an FFT of 8
        contract = SimpleNamespace(window=8, mels=1)
        frontend = SimpleNamespace(bank=SimpleNamespace(matrix=bank), contract=contract, time_dim=-2)
        object.__setattr__(self, "backbone", SimpleNamespace(frontend=frontend))

    def features(self, wave: Tensor) -> Tensor:
        return wave[:, None, :7]  # [B, 1, 7]

    def classify(self, features: Tensor) -> Tensor:
        x = self.first(features[:, 0])
        return self.head(torch.tanh(self.adapted(x) + self.b(self.a(x))))


def test_only_operations_that_lora_needs_are_counted() -> None:
    model: Any = Toy()
    work = floor.count(model, torch.rand(1, 20))
    first, adapted, a, b, head = 7 * 5, 5 * 6, 5 * 2, 2 * 6, 6 * 3
    assert work.forward == 2 * (first + adapted + a + b + head)
    # Gradients: of input and weight for the head and for B, of the weight for A; none for the frozen layers, since no
    # trained layer comes before them.
    assert work.backward == 2 * (2 * head + 2 * b + a)


def test_bytes_agree_with_a_count_by_hand() -> None:
    work = floor.count(model := Toy(), torch.rand(1, 20))  # type: ignore[arg-type]
    assert work.weights == 4 * sum(p.numel() for p in model.parameters())
    assert work.trained == 4 * (5 * 2 + 2 * 6 + 6 * 3 + 3)
    assert work.samples == 2 * 20 + 2 * 4 * 7
    assert work.kept == 4 * (5 + 2 + 6)  # inputs of A and B, and tanh's output, which is the head's input, once
    assert work.bytes(4) == 2 * work.kept + work.samples + (2 * work.weights + 7 * work.trained) / 4
    assert work.frontend == round(8 + 2.5 * 8 * math.log2(8) + 3 * 5 + 2 * 2)


def test_the_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    work = floor.Work(forward=60, backward=30, frontend=10, kept=0, weights=0, trained=0, samples=8)
    assert work.seconds(floor.Rates(operations=100.0, bytes=100.0), batch=1) == 1.0
    assert work.seconds(floor.Rates(operations=100.0, bytes=4.0), batch=1) == 2.0


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_count_grows_with_the_adapters_and_leaves_the_model_unchanged(name: str) -> None:
    model = build_model(TrainConfig(model=name), len(SLUGS)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wave = torch.rand(1, round(2.5 * model.backbone.spec.sample_rate)) - 0.5
    work = floor.count(model, wave)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert 0.5 < work.backward / work.forward < 2.0
    more = floor.count(build_model(TrainConfig(model=name, lora_r=16), len(SLUGS)).train(), wave)
    assert more.operations > work.operations
    assert more.trained > work.trained


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_baselines_see_the_same_features(name: str) -> None:
    model = build_model(TrainConfig(model=name), len(SLUGS))
    wave = (torch.rand(round(2.5 * model.backbone.spec.sample_rate)) - 0.5) / 2
    ours, theirs = model.features(wave[None])[0], extractor(model)(wave.numpy())
    assert ours.shape == theirs.shape
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


def test_stages_add_up_to_the_step_and_leave_the_loss_unchanged(trial_config: Any) -> None:
    config = trial_config(augment=True, limit_train_batches=1)

    def losses(on: bool) -> tuple[float, Clock, float]:
        model = build_model(config, len(SLUGS))
        data, clock = open_trial_data(config, model.backbone.spec.sample_rate), Clock(torch.device("cpu"), on)
        optimizer, micro_batch = loop.make_optimizer(model, config), micro_batch_of(config, model)
        torch.manual_seed(0)
        with clock.timing(optimizer, micro_batch):
            row = loop.train_epoch(config, model, data.train, optimizer, micro_batch, 1)
        return row["train_loss"], clock, row["epoch_seconds"]

    plain, _, _ = losses(False)
    timed, clock, seconds = losses(True)
    assert timed == plain
    fractions = clock.fractions(seconds)
    assert sum(fractions.values()) == pytest.approx(1.0)
    assert all(fraction > 0 for stage, fraction in fractions.items() if stage not in ("both passes", "other"))
    assert loop.train_epoch.__module__ == "sousaphone.training.loop"
    assert not hasattr(loop.to_float, "__wrapped__")


def test_gain_is_against_the_better_baseline() -> None:
    measured = Measured("ast", 32)
    rounds = {"ours": 2.0, "ours, augmented": 3.0, "plain (bf16)": 9.0, "plain (fp32)": 5.0, "careful (fp32)": 4.0}
    for name, seconds in rounds.items():
        # The slow second round does not count.
        measured.train[name] = [Round(100, seconds, seconds), Round(100, 10 * seconds, 10 * seconds)]
    assert measured.gain() == pytest.approx(2.0)
    assert measured.processor_gain() == pytest.approx(2.0)
    assert measured.faster("plain") == "plain (fp32)"


def test_overhead_is_wall_time_besides_training() -> None:
    def record(start: int, end: int, *epochs: float) -> dict[str, Any]:
        stamp = "2026-01-01T00:{:02d}:{:02d}+00:00"
        return {
            "started": stamp.format(*divmod(start, 60)),
            "ended": stamp.format(*divmod(end, 60)),
            "history": [{"wall_seconds": seconds} for seconds in epochs],
        }

    midnight = 1_767_225_600.0
    found = overhead.of_records(120.0, midnight, [record(10, 60, 20.0, 25.0), record(10, 110, 95.0)], at_once=2)
    assert (found.before, found.trials, found.after) == (10.0, 100.0, 10.0)
    assert found.trained == 70.0
    assert found.of_command == pytest.approx(50 / 70)
    assert found.of_trials == pytest.approx(30 / 70)
