"""Trials in bfloat16 on a CPU: the precision that is chosen, and their results compared with float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sousaphone import hardware
from sousaphone.backbones.registry import DEFAULT_SWEEP
from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.config import TrainConfig
from sousaphone.data.prepare import open_trial_data
from sousaphone.errors import UserError
from sousaphone.model import build_model
from sousaphone.planning.job import Job
from sousaphone.planning.make_job import make_job
from sousaphone.rudiments import SLUGS
from sousaphone.training import checkpoint
from sousaphone.training.loop import fit

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(params=[True, False], ids=["with instructions", "without"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the processor seems to multiply bfloat16 matrices."""
    monkeypatch.setattr(hardware, "has_bfloat16", lambda: request.param)
    return bool(request.param)


def planned(storage: Path, *options: str) -> Job:
    arguments = ["--storage", str(storage), "--device", "cpu", "--weights", "random", *options]
    return make_job(parse(arguments, "launch.py"), make_sweep)


@pytest.mark.parametrize(("scale", "rounded"), [("nano", False), ("base", True)])
def test_automatic_precision_depends_on_processor_and_size(
    tmp_path: Path, instructions: bool, scale: str, rounded: bool
) -> None:
    job = planned(tmp_path, "--scale", scale)
    expected = "bfloat16" if rounded and instructions else "float32"
    assert {trial.precision for trial in job.trials} == {expected}
    # A resumed run has the saved request, so that it keeps the precision on another processor.
    assert dict(job.request.settings) == ({"precision": "bfloat16"} if expected == "bfloat16" else {})
    assert any("precision=float32" in remark for remark in job.remarks) == (expected == "bfloat16")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("scale", ["nano", "base"])
def test_given_precision_is_kept(tmp_path: Path, instructions: bool, scale: str, precision: str) -> None:
    job = planned(tmp_path, "--scale", scale, "--set", f"precision={precision}")
    assert {trial.precision for trial in job.trials} == {precision}


def test_unknown_and_unavailable_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float16.*bfloat16"):
        planned(tmp_path, "--set", "precision=float16")
    with pytest.raises(UserError, match="mps"):
        TrainConfig(device="mps", precision="bfloat16")


def test_trials_of_older_runs_have_the_precision_of_their_device() -> None:
    assert [TrainConfig(device=device).precision for device in ("cpu", "mps", "cuda")] == [
        "float32",
        "float32",
        "bfloat16",
    ]


@pytest.mark.parametrize("strategy", ["lora", "head", "dora", "full"])
@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_resumed_trial_is_bit_identical_to_an_uninterrupted_one(
    name: str, strategy: str, trial_config: MakeConfig, tmp_path: Path
) -> None:
    limits = {"limit_train_batches": 2, "limit_eval_batches": 1}
    config = trial_config(model=name, strategy=strategy, precision="bfloat16", epochs=2, **limits)
    whole, resumed = build_model(config, len(SLUGS)), build_model(config, len(SLUGS))
    data = open_trial_data(config, whole.backbone.spec.sample_rate)
    epochs = list(fit(config, whole, data))
    checkpoint.save(tmp_path, 1, "aa", epochs[0].state)
    again = list(fit(config, resumed, data, checkpoint.newest(tmp_path)))
    assert [epoch.metrics["val_loss"] for epoch in again] == [epoch.metrics["val_loss"] for epoch in epochs[1:]]
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


@pytest.mark.parametrize("name", DEFAULT_SWEEP)
def test_training_curves_differ_from_float32_less_than_those_of_seeds(name: str, trial_config: MakeConfig) -> None:
    curves = {}
    for precision in ("float32", "bfloat16"):
        for seed in range(3):
            config = trial_config(model=name, precision=precision, seed=seed, augment=True, limit_eval_batches=1)
            model = build_model(config, len(SLUGS))
            data = open_trial_data(config, model.backbone.spec.sample_rate)
            curves[precision, seed] = [epoch.metrics["train_loss"] for epoch in fit(config, model, data)]
    # [seeds, epochs]
    exact, rounded = (np.array([curves[each, seed] for seed in range(3)]) for each in ("float32", "bfloat16"))
    assert not np.array_equal(exact, rounded)
    assert (np.abs(exact - rounded) < np.ptp(exact, axis=0)).all()
