"""A finished run, without Ray, and models exported from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from sousaphone.config import TrainConfig
from sousaphone.deploy.export import export
from sousaphone.deploy.model_card import Statement
from sousaphone.deploy.trained_trials import best_arm
from sousaphone.runs.directory import SCHEMA, DriverWatch, RunDirectory
from sousaphone.runs.trial_record import now
from sousaphone.training.resumable_trial import run_trial

STATEMENT = Statement("This run shows that the tool works.", "No verdict.", ("One detail.",))


def finished_run(path: Path, configs: list[TrainConfig]) -> RunDirectory:
    """Train the trials of a run one after the other."""
    run = RunDirectory(path)
    trials = [dataclasses.asdict(config) for config in configs]
    plan = {"schema": SCHEMA, "created": now(), "config": "backbones", "request": {}, "trials": trials}
    data = {"synthetic": True, "root": configs[0].data_dir}
    run.write_plan({**plan, "trial_ids": [config.trial_id for config in configs], "data": data})
    with run.held():
        watch = DriverWatch.begin(run.path)
        for config in configs:
            run_trial(config, run.trial(config.trial_id), watch, lambda row: None)
    return run


@pytest.fixture(scope="session")
def run(trial_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Two seeds of AST, augmented and not, on three rudiments."""
    configs = [trial_config(epochs=2, augment=augment, seed=seed) for augment in (True, False) for seed in (0, 1)]
    return finished_run(tmp_path_factory.mktemp("runs") / "first", configs)


@pytest.fixture(scope="session")
def model(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the best trial, as an adapter. Read-only."""
    folder = tmp_path_factory.mktemp("models") / "adapter"
    export(best_arm(run)[:1], folder, STATEMENT)
    return folder


@pytest.fixture(scope="session")
def merged(run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the best trial, merged. Read-only."""
    folder = tmp_path_factory.mktemp("models") / "merged"
    export(best_arm(run)[:1], folder, STATEMENT, merged=True)
    return folder


@pytest.fixture(scope="session")
def every_backbone(
    trial_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunDirectory]:
    """`every_backbone(model, **changes)`: a run of one epoch of this backbone."""

    def make(name: str, **changes: object) -> RunDirectory:
        config = trial_config(model=name, epochs=1, limit_train_batches=2, **changes)
        return finished_run(tmp_path_factory.mktemp("runs") / name, [config])

    return make
