"""Kills of each kind of process at random moments of one run: each resume continues where the last one was cut.

One of the five kinds by default; all five with `SOUSAPHONE_KILLS=5 pytest -m slow tests/sweep/test_random_kills.py`.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial

import pandas as pd
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sousaphone.training import checkpoint
from tests.sweep.conftest import Launcher, name_of
from tests.sweep.test_kill import CLOCK, uninterrupted

ARMS = ("on", "off")
SEED = 2024
KILLS = int(os.environ.get("SOUSAPHONE_KILLS", "1"))
EPOCHS = 10 + 10 * KILLS  # more than pass until the last kill: the loss of Ray's processes is detected after seconds
RUNTIME = ("raylet", "gcs_server")
WORKER = "ImplicitFunc"  # Ray's name of the process

pytestmark = pytest.mark.slow


def _whole(launcher: Launcher, arm: str) -> int:
    """Return the epoch of the newest whole checkpoint."""
    state = checkpoint.newest(launcher.storage / "run" / "trials" / f"ast-lora-aug-{arm}-s0")
    return len(state["history"]) if state else 0


def _have(launcher: Launcher, wanted: dict[str, int]) -> bool:
    return all(launcher.epochs(arm) >= epoch for arm, epoch in wanted.items())


def _reported(log: str, arm: str) -> list[int]:
    """Return the epochs in the log."""
    return [int(epoch) for epoch in re.findall(rf"ast-lora-aug-{arm}-s0  epoch (\d+)/{EPOCHS}  train_loss", log)]


def _kill(launcher: Launcher, process: subprocess.Popen[str], what: str) -> None:
    """Kill the driver, a worker, one of Ray's own processes, or all of them; wait for the end of the launch."""
    driver = psutil.Process(process.pid)
    family = driver.children(recursive=True)
    if what == "driver":
        victims = [driver]
    elif what == "all":
        victims = [driver, *family]
    else:
        victims = [process for process in family if what in name_of(process)][:1]
        assert victims, [name_of(process) for process in family]
    for victim in victims:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    # Without Ray, launch.py writes the report and ends within seconds; without a worker, the other trial finishes.
    code = process.wait()
    assert code == (-signal.SIGKILL if driver in victims else 1), launcher.log
    # Orphaned workers detect the end of the driver at their next write; Ray's own processes may remain.
    for orphan in psutil.wait_procs(family, timeout=5)[1]:
        orphan.kill()


def test_random_kills_lose_at_most_an_epoch_each_and_change_no_result(launcher: Launcher) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    # The driver, which other tests kill, not first; the worker last, because the other trial then finishes.
    order = [*RUNTIME, "driver", "all", WORKER][:KILLS]
    whole = dict.fromkeys(ARMS, 0)
    options = [*launcher.options, "--epochs", str(EPOCHS)]
    read = 0
    for what in [*order, None]:
        process = launcher.start(*options)
        options = ["--resume", "--retry-failed"]
        if what is None:
            assert process.wait() == 0, launcher.log
        else:
            wanted = {arm: min(whole[arm] + rng.randint(1, 3), EPOCHS) for arm in ARMS}
            launcher.wait_until(partial(_have, launcher, wanted), process)
            time.sleep(rng.uniform(0.0, 0.4))
            _kill(launcher, process, what)
        log = launcher.log[read:]
        assert (what in RUNTIME) == ("to resume: python launch.py --resume" in log)
        for arm in ARMS:
            first, newest = next(iter(_reported(log, arm)), None), _whole(launcher, arm)
            print(f"{what}: {arm} resumed at epoch {first} and was cut after {newest}")
            assert newest >= whole[arm]
            assert first in (None, min(whole[arm] + 1, EPOCHS))
            assert max(_reported(log, arm), default=0) <= newest
            whole[arm] = newest
        read += len(log)

    table = pd.read_csv(launcher.storage / "run" / "report" / "comparison_table.csv")
    assert table["status"].tolist() == ["completed"] * 2
    assert table["epochs"].tolist() == [EPOCHS] * 2
    for arm in ARMS:
        record = launcher.record(arm)
        assert record is not None
        assert record.status == "completed"
        board = EventAccumulator(str(launcher.storage / "run" / "trials" / record.trial_id)).Reload()
        assert [event.step for event in board.Scalars("val_acc")] == list(range(1, EPOCHS + 1))
        for row, expected in zip(record.history, uninterrupted(launcher, record.trial_id), strict=True):
            assert {k: v for k, v in row.items() if k not in CLOCK} == {
                k: v for k, v in expected.items() if k not in CLOCK
            }
