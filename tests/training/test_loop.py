"""`fit` resumes exactly, changes only trainable parameters, and learns."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sousaphone import lora
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import METRICS, TrainConfig
from sousaphone.data.prepare import TrialData, open_trial_data
from sousaphone.errors import UserError
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Cause
from sousaphone.training import adapter, checkpoint
from sousaphone.training.loop import (
    DivergedError,
    Epoch,
    adamw,
    epoch_seed,
    fit,
    private_memory,
    set_learning_rate,
)
from sousaphone.training.scoring import evaluate

MakeConfig = Callable[..., TrainConfig]
BACKBONES = list(REGISTRY)
# Measured values, which differ between two equal runs.
CLOCK = {"epoch_seconds", "processor_seconds", "wall_seconds", "samples_per_second", "peak_memory_mb"}


def open_trial(config: TrainConfig) -> tuple[RudimentClassifier, TrialData]:
    model = build_model(config, len(SLUGS))
    return model, open_trial_data(config, model.backbone.spec.sample_rate)


def run(config: TrainConfig, state: dict[str, Any] | None = None) -> tuple[RudimentClassifier, list[Epoch]]:
    model, data = open_trial(config)
    return model, list(fit(config, model, data, state))


def through_disk(state: dict[str, Any], directory: Path) -> dict[str, Any]:
    checkpoint.save(directory, len(state["history"]), "aa", state)
    loaded = checkpoint.newest(directory)
    assert loaded is not None
    return loaded


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in CLOCK}


@pytest.mark.parametrize("strategy", ["lora", "full"])
@pytest.mark.parametrize("name", BACKBONES)
def test_resumed_trial_is_bit_identical_to_an_uninterrupted_one(
    name: str, strategy: str, trial_config: MakeConfig, tmp_path: Path
) -> None:
    config = trial_config(model=name, strategy=strategy, augment=True, accumulation=2)
    whole_model, whole = run(config)
    resumed_model, resumed = run(config, through_disk(whole[0].state, tmp_path))
    assert [epoch.number for epoch in resumed] == [2, 3]
    assert [without_clock(epoch.metrics) for epoch in resumed] == [without_clock(epoch.metrics) for epoch in whole[1:]]
    after, expected = resumed_model.state_dict(), whole_model.state_dict()
    assert all(torch.equal(after[key], expected[key]) for key in expected)


@pytest.mark.parametrize("strategy", ["lora", "head"])
@pytest.mark.parametrize("name", [name for name in BACKBONES if REGISTRY[name].strategy is None])
def test_pretrained_weights_do_not_change_and_the_saved_state_reproduces_the_logits(
    name: str, strategy: str, trial_config: MakeConfig, tmp_path: Path
) -> None:
    config = trial_config(model=name, strategy=strategy, epochs=1, augment=True)
    model, data = open_trial(config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (epoch,) = fit(config, model, data)
    trained = set(model.trained_state())
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert changed <= trained
    fresh = build_model(config, len(SLUGS))
    adapter.write(tmp_path, epoch.state["best"]["model"])
    fresh.load_trained_state(adapter.read(tmp_path))
    assert epoch.test is not None
    assert torch.equal(evaluate(config, fresh, data.test).logits, epoch.test.logits)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_adapter_gets_gradients(name: str, trial_config: MakeConfig) -> None:
    config = trial_config(model=name, lora_dropout=0.0)
    model, data = open_trial(config)
    batch = next(data.train.training_batches(4, 1))
    model.train()
    model(batch.wave / 32768, batch.lengths).square().sum().backward()
    b_matrices = {key: p for key, p in model.named_parameters() if ".lora_B." in key}
    assert len(b_matrices) == len(model.targets.modules) == len(lora.adapter_layers(model))
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in b_matrices.values())


def test_micro_batch_size_does_not_change_the_results(trial_config: MakeConfig) -> None:
    config = trial_config(epochs=1, augment=False, lora_dropout=0.0, head_dropout=0.0, micro_batch=8)
    _, (whole,) = run(config)
    _, (parts,) = run(dataclasses.replace(config, micro_batch=2, accumulation=4))
    assert parts.metrics["train_loss"] == pytest.approx(whole.metrics["train_loss"], rel=1e-5)
    assert parts.metrics["val_loss"] == pytest.approx(whole.metrics["val_loss"], rel=1e-4)


def test_tick_gets_the_completed_fraction_of_the_epoch(trial_config: MakeConfig) -> None:
    config = trial_config(epochs=1, micro_batch=2, accumulation=4)
    model, data = open_trial(config)
    fractions: list[float] = []
    list(fit(config, model, data, tick=lambda epoch, fraction: fractions.append(fraction)))
    parts = len(data.train) // 2
    assert parts > 4
    assert fractions[:parts] == pytest.approx([(number + 1) / parts for number in range(parts)])
    assert set(fractions[parts:]) == {1.0}  # during evaluation


def test_learning_rate_has_a_linear_warm_up_and_a_cosine_decay() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=9.0)
    rates = []
    for step in range(12):
        set_learning_rate(optimizer, 2.0, step, warmup=3, total=11)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert [rates[step] for step in (5, 7, 9, 11)] == pytest.approx([1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 0.0])


def test_epochs_of_different_seeds_have_different_seeds() -> None:
    assert len({epoch_seed(seed, epoch) for seed in range(10) for epoch in range(1, 101)}) == 1_000


def test_weight_decay_applies_to_matrices_only() -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    adamw([matrix, vector], learning_rate=0.1, weight_decay=0.5).step()
    assert (matrix < 1).all()
    assert (vector == 1).all()


def test_every_epoch_has_the_metrics_that_a_sweep_may_use(trial_config: MakeConfig) -> None:
    _, epochs = run(trial_config())
    assert all(epoch.metrics.keys() >= {*METRICS} for epoch in epochs)


def test_train_ce_is_measured_on_evenly_spaced_training_clips(
    trial_config: MakeConfig,
) -> None:
    config = trial_config(epochs=1)
    model, data = open_trial(config)
    (epoch,) = fit(config, model, data)
    every_other = list(range(0, len(data.train), 2))
    assert len(every_other) == len(data.validation)
    assert epoch.metrics["train_ce"] == evaluate(config, model, data.train, every_other).metrics("train")["train_loss"]


def test_early_stopping_after_patience_epochs_without_improvement(trial_config: MakeConfig) -> None:
    config = trial_config(epochs=9, patience=2, learning_rate=0.0, augment=False)
    _, epochs = run(config)
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert epochs[-1].end is Cause.PATIENCE
    assert epochs[-1].metrics["best_epoch"] == 1


def test_test_clips_are_scored_once_with_the_best_state(trial_config: MakeConfig) -> None:
    config = trial_config(learning_rate=3e-3)
    model, data = open_trial(config)
    epochs = list(fit(config, model, data))
    assert [epoch.test is not None for epoch in epochs] == [False, False, True]
    assert [sorted(k for k in e.metrics if k.startswith("test_")) != [] for e in epochs] == [False, False, True]
    best = build_model(config, len(SLUGS))
    best.load_trained_state(epochs[-1].state["best"]["model"])
    assert evaluate(config, best, data.test).metrics("test")["test_loss"] == epochs[-1].metrics["test_loss"]


def test_completed_trial_yields_nothing(trial_config: MakeConfig, tmp_path: Path) -> None:
    config = trial_config(epochs=1)
    _, (epoch,) = run(config)
    assert run(config, through_disk(epoch.state, tmp_path))[1] == []


def test_state_of_another_base_or_configuration_is_rejected(trial_config: MakeConfig) -> None:
    config = trial_config(epochs=1)
    _, (epoch,) = run(config)
    with pytest.raises(UserError, match="base model"):
        run(dataclasses.replace(config, seed=1), epoch.state)
    with pytest.raises(UserError, match="learning_rate"):
        run(dataclasses.replace(config, learning_rate=0.5), epoch.state)


def test_nan_loss_ends_the_trial(trial_config: MakeConfig) -> None:
    with pytest.raises(DivergedError, match="learning_rate"):
        run(trial_config(epochs=5, learning_rate=1e30, strategy="full", max_grad_norm=1e30))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if REGISTRY[name].is_pretrained])
def test_nano_backbone_memorises_eight_clips(name: str, trial_config: MakeConfig) -> None:
    config = trial_config(model=name, strategy="full", augment=False, head_dropout=0.0, label_smoothing=0.0)
    config = dataclasses.replace(config, epochs=30, patience=30, micro_batch=8, learning_rate=1e-3)
    model, data = open_trial(config)
    data = dataclasses.replace(data, train=first_eight(data))
    for epoch in fit(config, model, data):
        model_state = epoch.state["model"]
    model.load_trained_state(model_state)
    scores = evaluate(config, model, data.train)
    assert (scores.logits.argmax(1) == scores.labels).all()


def first_eight(data: TrialData) -> Any:
    """The centre windows of the first eight training clips."""
    clips = data.train

    class Eight:
        table, labels = clips.table.iloc[:8], clips.labels[:8]

        def __len__(self) -> int:
            return 8

        def training_batches(self, batch_size: int, epoch: int, seconds: float | None = None) -> Any:
            return clips.evaluation_batches(batch_size, range(8))

        def evaluation_batches(self, batch_size: int, rows: Any = None) -> Any:
            return clips.evaluation_batches(batch_size, range(8) if rows is None else rows)

    return Eight()


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT_SWEEP)  # beats-ft has the architecture of beats
def test_full_size_backbone_trains_on_a_cpu(name: str, trial_config: MakeConfig) -> None:
    config = trial_config(model=name, scale="base", clip_seconds=2.0, epochs=1, micro_batch=1, eval_batch=1)
    config = dataclasses.replace(config, limit_train_batches=2, limit_eval_batches=1)
    model, data = open_trial(config)
    before = model.trained_state()
    (epoch,) = fit(config, model, data)
    assert epoch.end is Cause.ALL_EPOCHS
    assert epoch.metrics["samples_per_second"] > 0
    changed = [key for key, value in model.trained_state().items() if not torch.equal(value, before[key])]
    assert any("lora_B" in key for key in changed)
    assert any("classifier" in key for key in changed)


def test_held_out_timbre_and_additional_set_are_scored_separately(
    trial_config: MakeConfig, make_sousa: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_sousa(tmp_path / "set", players=4, takes=4)
    labels = root / "labels" / "samples.parquet"
    table = pd.read_parquet(labels)
    table["soundfont"] = ["A", "B"] * (len(table) // 2)
    table.to_parquet(labels)
    also = make_sousa(tmp_path / "also", players=3)
    config = dataclasses.replace(trial_config(epochs=1), data_dir=str(root), hold_out="soundfont=A")
    _, (alone,) = run(config)
    _, (both,) = run(dataclasses.replace(config, test_also=str(also)))
    assert set(both.final) == {"val", "test", "held_out", "also"}
    assert len(both.final["also"].windows) == 9
    assert {"held_out_acc", "held_out_averaged_acc", "also_macro_f1", "also_averaged_macro_f1"} <= both.metrics.keys()
    without = {name: value for name, value in without_clock(both.metrics).items() if not name.startswith("also_")}
    assert without == without_clock(alone.metrics)


def test_divergence_in_the_last_step_of_an_epoch_is_detected(trial_config: MakeConfig) -> None:
    # After a single step the loss is still finite, the weights are not.
    config = dataclasses.replace(trial_config(epochs=1, learning_rate=1e30, max_grad_norm=1e30), limit_train_batches=1)
    model, data = open_trial(dataclasses.replace(config, warmup_epochs=0.0))
    with pytest.raises(DivergedError, match="val_loss"):
        list(fit(dataclasses.replace(config, warmup_epochs=0.0), model, data))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux distinguishes mapped files")
def test_mapped_files_do_not_count_as_private_memory(tmp_path: Path) -> None:
    size = 64 * 2**20
    path = tmp_path / "wave"
    path.write_bytes(bytes(size))
    before = private_memory()
    mapped = np.memmap(path, np.uint8, "r")
    assert mapped.sum() == 0  # loads every page
    assert private_memory() - before < size / 4
    held = np.ones(size, np.uint8)
    assert private_memory() - before > size / 2
    assert len(held) == len(mapped)
