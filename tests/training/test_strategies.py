"""Every strategy trains what it should on every backbone, freezes the rest, and resumes exactly."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, AdaLoraModel
from torch import nn

from sousaphone import lora
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.errors import UserError
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS
from sousaphone.strategies import STRATEGIES
from sousaphone.training import checkpoint
from sousaphone.training.loop import fit, fits, make_optimizer
from sousaphone.training.rank_allocation import RankAllocation

MakeConfig = Callable[..., TrainConfig]
NEW = ("rslora", "dora", "adalora", "ia3", "bitfit")


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_what_a_strategy_names_changes_in_training(strategy: str, name: str, trial_config: MakeConfig) -> None:
    config = trial_config(model=name, strategy=strategy, epochs=1, limit_train_batches=3, limit_eval_batches=1)
    model = build_model(config, len(SLUGS))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (epoch,) = fit(config, model, open_trial_data(config, model.backbone.spec.sample_rate))
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    fresh = {key for key in before if key.startswith(model.fresh)}
    adapters = {key for key in before if lora.is_adapter(key)}
    biases = {key for key in before if key.endswith(".bias")}
    also = {"biases": biases, "all": set(before), "frozen": set()}[STRATEGIES[strategy].pretrained]
    assert changed <= fresh | adapters | also
    assert changed & fresh
    assert bool(changed & adapters) == (STRATEGIES[strategy].peft_type is not None)
    assert bool(changed - fresh - adapters) == (STRATEGIES[strategy].pretrained != "frozen")
    restored = build_model(config, len(SLUGS))
    restored.load_trained_state(epoch.state["best"]["model"])
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in restored.state_dict().items())


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
@pytest.mark.parametrize("strategy", NEW)
def test_resumed_trial_is_bit_identical_to_an_uninterrupted_one(
    strategy: str, name: str, trial_config: MakeConfig, tmp_path: Path
) -> None:
    config = trial_config(model=name, strategy=strategy, limit_train_batches=2, limit_eval_batches=1)
    whole, resumed = build_model(config, len(SLUGS)), build_model(config, len(SLUGS))
    data = open_trial_data(config, whole.backbone.spec.sample_rate)
    epochs = list(fit(config, whole, data))
    checkpoint.save(tmp_path, 1, "aa", epochs[0].state)
    state = checkpoint.newest(tmp_path, lambda state: fits(config, resumed, state))
    again = list(fit(config, resumed, data, state))
    assert [epoch.metrics["val_loss"] for epoch in again] == [epoch.metrics["val_loss"] for epoch in epochs[1:]]
    for part in ("model", "best"):
        own, expected = (e[-1].state[part].get("model", e[-1].state[part]) for e in (again, epochs))
        assert all(torch.equal(own[key], expected[key]) for key in expected)
    moments, expected = (e[-1].state["optimizer"]["state"] for e in (again, epochs))
    assert all(torch.equal(moments[i][key], expected[i][key]) for i in expected for key in expected[i])


def test_state_of_another_strategy_does_not_fit(trial_config: MakeConfig) -> None:
    config = trial_config(strategy="adalora", epochs=1, limit_train_batches=3, limit_eval_batches=1)
    model = build_model(config, len(SLUGS))
    (epoch,) = fit(config, model, open_trial_data(config, model.backbone.spec.sample_rate))
    assert fits(config, model, epoch.state)
    state = copy.deepcopy(epoch.state)
    ranked = next(moments for moments in state["optimizer"]["state"].values() if "exp_avg_ipt" in moments)
    ranked["exp_avg_ipt"] = ranked["exp_avg_ipt"][:1]
    assert not fits(config, model, state)
    del ranked["exp_avg_ipt"]
    assert not fits(config, model, state)


ADALORA = TrainConfig(strategy="adalora", lora_r=4, lora_dropout=0.0, head_dropout=0.0)


def values_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters() if ".lora_E." in name}


def test_ranks_are_those_that_peft_allocates() -> None:
    total, model = 20, build_model(ADALORA, len(SLUGS))
    theirs = copy.deepcopy(model.backbone)
    lora.merge(theirs)  # the values are zero, so that this leaves the pretrained layers
    config = AdaLoraConfig(
        target_modules=[name.removeprefix("backbone.") for name in model.targets.modules],
        **{"target_r": 4, "init_r": 6, "lora_alpha": 16, "lora_dropout": 0.0},
        **{"tinit": 3, "tfinal": 10, "total_step": total},
    )
    tuner = AdaLoraModel(theirs, config, "default")
    theirs.load_state_dict(model.backbone.state_dict())
    features = model.features(torch.rand(2, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5)
    ranks = RankAllocation(ADALORA, model)
    optimizers = [torch.optim.AdamW([p for p in m.parameters() if p.requires_grad]) for m in (model, theirs)]
    for step in range(1, total + 1):
        for backbone, optimizer in zip((model.backbone, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            backbone.pool(backbone.encode(features)).square().sum().backward()
        ranks.step(optimizers[0], step, total)
        optimizers[1].step()
        tuner.update_and_allocate(step)
        expected = values_of(theirs)
        for name, value in values_of(model).items():
            assert torch.equal(value, expected[name.removeprefix("backbone.")]), (step, name)
    kept = sum(int((value != 0).sum()) for value in values_of(model).values())
    assert kept == 4 * len(model.targets.modules)


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_short_trials_keep_at_least_the_final_ranks(total: int) -> None:
    model = build_model(ADALORA, len(SLUGS))
    optimizer, ranks = make_optimizer(model, ADALORA), RankAllocation(ADALORA, model)
    features = model.features(torch.rand(2, 16_000) - 0.5)
    for step in range(1, total + 1):
        optimizer.zero_grad()
        model.classify(features).square().sum().backward()
        ranks.step(optimizer, step, total)
    assert sum(int((value != 0).sum()) for value in values_of(model).values()) >= 4 * len(model.targets.modules)


def test_penalty_is_that_of_peft() -> None:
    model = build_model(ADALORA, len(SLUGS))
    parameters = {name: p for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    distances = []
    for name, p in parameters.items():
        gram = p @ p.T if ".lora_A." in name else p.T @ p
        distances.append(torch.norm(gram - torch.eye(6), p="fro"))
    expected = torch.autograd.grad(0.5 * sum(distances) / len(distances), list(parameters.values()))
    RankAllocation(ADALORA, model).add_penalty()
    for p, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient)


@pytest.mark.parametrize(("strategy", "name"), [("ia3", "ast"), ("ia3", "efficientat"), ("dora", "efficientat")])
def test_weight_decay_does_not_shrink_pretrained_weights(strategy: str, name: str) -> None:
    config = TrainConfig(model=name, strategy=strategy, weight_decay=0.5, learning_rate=0.1)
    model = build_model(config, len(SLUGS))
    scales = {key: p.detach().clone() for key, p in model.named_parameters() if lora.is_scale(key)}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, config).step()
    after = dict(model.named_parameters())
    assert scales
    assert all(torch.equal(after[key], value) for key, value in scales.items())


def test_scale_of_rslora_is_alpha_over_the_root_of_r() -> None:
    model = build_model(TrainConfig(strategy="rslora", lora_r=4, lora_alpha=12.0), len(SLUGS))
    assert {tuple(layer.scaling.values()) for layer in lora.adapter_layers(model)} == {(6.0,)}


def test_backbone_without_targets_or_biases_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = REGISTRY["ast"]
    monkeypatch.setitem(REGISTRY, "ast", dataclasses.replace(spec, ia3_outputs=(), ia3_inputs=()))
    with pytest.raises(UserError, match=r"ia3.*AST"):
        build_model(TrainConfig(strategy="ia3"), len(SLUGS))
    monkeypatch.setattr("sousaphone.model.load_backbone", lambda *_, **__: _Plain(spec))
    with pytest.raises(UserError, match=r"AST.*bitfit"):
        build_model(TrainConfig(strategy="bitfit"), len(SLUGS))


class _Plain(nn.Module):
    """A backbone without biases."""

    def __init__(self, spec: object) -> None:
        super().__init__()
        self.spec, self.width = spec, 4
        self.layer = nn.Linear(4, 4, bias=False)


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_has_a_learning_rate(strategy: str, name: str) -> None:
    assert all(rates[strategy] > 0 for rates in REGISTRY[name].learning_rates.values())


def test_names_of_trials_contain_the_strategy() -> None:
    assert TrainConfig(strategy="dora").trial_id == "ast-dora-aug-on-s0"
    assert TrainConfig(strategy="adalora", lora_targets="sweep").trial_id == "ast-adalora-sweep-aug-on-s0"
    assert TrainConfig(strategy="ia3", lora_targets="sweep").trial_id == "ast-ia3-aug-on-s0"
