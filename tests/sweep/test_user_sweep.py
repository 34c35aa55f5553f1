"""A user's own sweep, `--config FILE.py`, under Ray: a searcher, a scheduler, and a resume."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from sousaphone.config import TrainConfig
from tests.sweep.conftest import Launcher

pytestmark = pytest.mark.slow

SPACE = """
import dataclasses

from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from tune_configs import backbones


class Seeded(OptunaSearch):  # a class that only this file defines
    pass


def sweep(request):
    usual = backbones.sweep(request)
    space = {
        **usual.param_space,
        **request.settings,
        "augment": False,
        "learning_rate": tune.loguniform(1e-5, 1e-1),
        "lora_r": tune.choice([2, 4]),
    }
    return dataclasses.replace(
        usual,
        param_space=space,
        num_samples=5,
        searcher=Seeded(sampler=TPESampler(seed=0, n_startup_trials=2)),
        scheduler=ASHAScheduler(time_attr="steps", grace_period=1, max_t=10_000, reduction_factor=2),
    )
"""


def plan_of(launcher: Launcher) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((launcher.storage / "run" / "run.json").read_text())
    return plan


def records_of(launcher: Launcher) -> list[dict[str, Any]]:
    paths = [launcher.storage / "run" / "trials" / name / "trial.json" for name in plan_of(launcher)["trial_ids"]]
    return [json.loads(path.read_text()) for path in paths]


def check(launcher: Launcher, trials: int) -> None:
    """Every planned trial has run to an orderly end, once, with the settings and under the name of the plan."""
    plan, records = plan_of(launcher), records_of(launcher)
    assert len(records) == trials
    assert {record["status"] for record in records} == {"completed", "pruned"}
    for config, name, record in zip(plan["trials"], plan["trial_ids"], records, strict=True):
        assert TrainConfig(**config).trial_id == name == record["trial_id"]
        assert record["config"] == config
        row = record["history"][-1]
        assert row["steps"] == row["epoch"] * record["history"][0]["steps"]
        assert ("test_acc" in row) is (record["status"] == "completed") is (row["epoch"] == config["epochs"])
    directories = {path.name for path in (launcher.storage / "run" / "trials").iterdir()}
    assert directories == set(plan["trial_ids"])


def test_search_that_was_killed_resumes_with_what_it_had_proposed_and_is_reported(launcher: Launcher) -> None:
    file = launcher.storage / "my_space.py"
    file.write_text(SPACE)
    options = [option for option in launcher.options if option != "learning_rate=0.001"]
    driver = launcher.start("--config", str(file), *options, "--max-concurrent", "1")
    run = launcher.storage / "run" / "run.json"
    launcher.wait_until(lambda: run.exists() and len(plan_of(launcher)["trials"]) >= 3, driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    proposed = plan_of(launcher)["trial_ids"]
    again = launcher.start("--resume", "--max-concurrent", "1")
    assert again.wait() == 0, launcher.log
    assert plan_of(launcher)["trial_ids"][: len(proposed)] == proposed
    check(launcher, 5)
    assert (launcher.storage / "run" / "report" / "summary_report.md").is_file()
