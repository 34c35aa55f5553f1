"""`--config search` through Ray: a killed search equals the uninterrupted one; test clips wait for the finalists.

One kill of the search by default, and one of its finalists; five of the search with `SOUSAPHONE_KILLS=5 pytest -m slow
tests/sweep/test_search.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from sousaphone.search.progress import Progress
from tests.sweep.conftest import Launcher
from tests.sweep.test_kill import CLOCK

MODELS = ("ast", "beats")
CONFIGURATIONS, EPOCHS = 4, 6  # compared after two epochs
SEED = 5
SEEDS = ["0"]  # of the finalists
KILLS = int(os.environ.get("SOUSAPHONE_KILLS", "1"))
SEARCH = ["--config", "search", "--budget", str(CONFIGURATIONS)]

pytestmark = pytest.mark.slow


def options(launcher: Launcher, at_once: int, models: Sequence[str] = MODELS) -> list[str]:
    data = launcher.options[launcher.options.index("--data-dir") + 1]
    small = ["--models", *models, "--scale", "nano", "--weights", "random", "--epochs", str(EPOCHS)]
    small += ["--set", "clip_seconds=1.0", "micro_batch=2", "accumulation=1"]
    return [*SEARCH, "--seeds", *SEEDS, "--data-dir", data, *small, "--max-concurrent", str(at_once)]


def progress_of(run: Path) -> Progress | None:
    return Progress.read(RunDirectory(run)) if (run / "run.json").exists() else None


def epochs_of(run: Path) -> int:
    progress = progress_of(run)
    return sum(len(record.history) for record in progress.records.values()) if progress else 0


def finalist_epochs_of(run: Path) -> int:
    progress = progress_of(run)
    if progress is None:
        return 0
    return sum(len(record.history) for name, record in progress.records.items() if progress.trials[name].score_test)


def outcome(run: Path) -> dict[str, Any]:
    """Return the plan's proposals, and status and history of every trial without times."""
    progress = progress_of(run)
    assert progress is not None
    plan = json.loads((run / "run.json").read_text())
    return {
        "search": plan["search"],
        "trials": sorted(plan["trial_ids"]),
        "records": {
            name: (record.status, [{k: v for k, v in row.items() if k not in CLOCK} for row in record.history])
            for name, record in progress.records.items()
        },
    }


def check_budget_and_tests(run: Path, models: Sequence[str] = MODELS) -> None:
    """Every backbone has trained the same steps; only the finalists were tested, after all other trials had ended."""
    progress = progress_of(run)
    assert progress is not None
    assert progress.is_complete
    for model in models:
        tried = progress.tried(model)
        assert len(tried) == CONFIGURATIONS
        assert sum(trial.steps for trial in tried) == progress.search.ladder.steps
        assert tried[0].steps == progress.search.rungs[-1]
    finals = {name for name, trial in progress.trials.items() if trial.score_test}
    assert len(finals) == len(models) * progress.search.all_finalists * len(SEEDS)
    assert finals.isdisjoint(progress.search.proposals)
    for name, record in progress.records.items():
        tested = any(key.startswith("test_") for row in record.history for key in row)
        assert tested is (name in finals)
        assert (run / "trials" / name / PREDICTIONS_NAME).exists() is tested
    searched = [record.ended for name, record in progress.records.items() if name not in finals]
    assert min(progress.records[name].started for name in finals) >= max(filter(None, searched))


def test_search_killed_at_random_moments_equals_the_uninterrupted_one(launcher: Launcher) -> None:
    whole = launcher.start(*options(launcher, 1, MODELS[:1]), name="whole")
    assert whole.wait() == 0, launcher.log
    check_budget_and_tests(launcher.storage / "whole", MODELS[:1])
    assert (launcher.storage / "whole" / "report" / "summary_report.md").exists()

    run, rng = launcher.storage / "run", random.Random(SEED)
    whole_progress = progress_of(launcher.storage / "whole")
    assert whole_progress is not None
    searched = sum(len(whole_progress.records[name].history) for name in whole_progress.search.proposals)
    arguments = options(launcher, 1, MODELS[:1])
    moments: list[Callable[[], bool]] = [
        lambda moment=moment: epochs_of(run) >= moment  # type: ignore[misc]
        for moment in sorted(rng.sample(range(1, searched), KILLS))
    ]
    for reached in [*moments, lambda: finalist_epochs_of(run) >= 2]:  # the finalists train in the same Ray
        process = launcher.start(*arguments)
        arguments = ["--resume"]
        launcher.wait_until(reached, process)
        time.sleep(rng.uniform(0.0, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1.0)  # orphaned workers stop at their next write
        print(f"killed after {epochs_of(run)} epochs, {searched} of them of the search")
    resumed = launcher.start("--resume")
    assert resumed.wait() == 0, launcher.log
    assert outcome(run) == outcome(launcher.storage / "whole")
    check_budget_and_tests(run, MODELS[:1])


def test_killed_parallel_search_of_two_backbones_loses_no_record_and_no_budget(launcher: Launcher) -> None:
    run = launcher.storage / "run"
    process = launcher.start(*options(launcher, 2))
    launcher.wait_until(lambda: epochs_of(run) >= 5, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1.0)
    kept = outcome(run)["records"]
    resumed = launcher.start("--resume")
    assert resumed.wait() == 0, launcher.log
    check_budget_and_tests(run)
    for name, (_, history) in kept.items():
        assert outcome(run)["records"][name][1][: len(history)] == history
