"""A run that is renamed while it trains, extended and promoted, with real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from sousaphone.config import TrainConfig
from sousaphone.runs.trial_record import TrialRecord
from tests.sweep.conftest import Launcher
from tests.sweep.test_ray_process import left_of
from tests.training.test_resumable_trial import timeless, uninterrupted

pytestmark = pytest.mark.slow
EPOCHS = 20
AST, BEATS, SECOND = "ast-lora-aug-off-s0", "beats-lora-aug-off-s0", "ast-lora-aug-off-s1"


def record_of(run: Path, trial_id: str) -> TrialRecord | None:
    return TrialRecord.read(run / "trials" / trial_id)


def done(run: Path, trial_id: str) -> int:
    record = record_of(run, trial_id)
    return len(record.history) if record else 0


def as_uninterrupted(run: Path, trial_id: str) -> bool:
    plan, record = json.loads((run / "run.json").read_text()), record_of(run, trial_id)
    assert record is not None
    assert record.status == "completed"
    config = TrainConfig(**plan["trials"][plan["trial_ids"].index(trial_id)])
    return timeless(record.history) == uninterrupted(config)


def experiments(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "tune").iterdir())


def kept(run: Path, *trial_ids: str) -> list[tuple[int, str]]:
    paths = [run / "trials" / trial_id / "trial.json" for trial_id in trial_ids]
    return [(path.stat().st_mtime_ns, path.read_text()) for path in paths]


def table(run: Path) -> dict[str, str]:
    rows = pd.read_csv(run / "report" / "comparison_table.csv")
    return dict(zip(rows["trial_id"], rows["status"], strict=True))


def newest(run: Path, trial_id: str) -> tuple[int, Path]:
    """Return the epoch of a trial's newest checkpoint, and its file."""
    directory = max((run / "trials" / trial_id / "checkpoints").glob("epoch_*"))
    return int(directory.name.removeprefix("epoch_").partition("-")[0]), directory / "model.safetensors"


def first_epoch(log: str, trial_id: str) -> str:
    """Return the first epoch of a trial in the log."""
    line = next(line for line in log.splitlines() if f"{trial_id}  epoch" in line)
    return line.partition("  epoch ")[2].partition("/")[0]


def test_run_is_renamed_while_it_trains_damaged_extended_twice_and_promoted(launcher: Launcher) -> None:
    run, moved = launcher.storage / "run", launcher.storage / "moved"
    begin = [*launcher.options, "--augment", "off", "--epochs", str(EPOCHS), "--max-concurrent", "1"]
    driver = launcher.start(*begin)
    launcher.wait_until(lambda: done(run, AST) >= 3, driver)
    run.rename(moved)
    assert driver.wait() == 1, launcher.log
    assert f"launch.py: error: {run} was renamed" in launcher.log
    assert "Traceback" not in launcher.log
    assert not run.exists()
    assert not left_of(launcher.storage / "cache")
    reached, state = newest(moved, AST)
    assert reached < EPOCHS
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])

    # Extended before its end: Ray gets a new experiment of the trials left and added; the trial resumes from the
    # checkpoint before the damaged one.
    before = len(launcher.log)
    assert launcher.start("--extend", "--models", "beats", name="moved").wait() == 0, launcher.log
    assert first_epoch(launcher.log[before:], AST) == str(reached)
    assert experiments(moved) == ["001", "002"]
    assert table(moved) == {AST: "completed", BEATS: "completed"}
    assert as_uninterrupted(moved, AST)

    # Extended after its end.
    records = kept(moved, AST, BEATS)
    extended = launcher.start("--extend", "--models", "ast", "--seeds", "1", name="moved")
    assert extended.wait() == 0, launcher.log
    assert experiments(moved) == ["001", "002", "003"]
    assert kept(moved, AST, BEATS) == records
    assert table(moved) == dict.fromkeys((AST, BEATS, SECOND), "completed")
    assert not run.exists()

    # Promoted: the best trial by validation becomes a new run, with a link to its origin.
    scores = {trial_id: record.best["val_macro_f1"] for trial_id in (AST, BEATS, SECOND)
              if (record := record_of(moved, trial_id))}  # fmt: skip
    before = len(launcher.log)
    promoted = launcher.start("--promote", "moved", "--epochs", "2", name="best")
    assert promoted.wait() == 0, launcher.log
    best = max(scores, key=lambda trial_id: scores[trial_id])
    assert f"promotes {best} of {moved}" in launcher.log[before:]
    link = json.loads((launcher.storage / "best" / "run.json").read_text())["promoted_from"]
    assert (link["run"], link["trial_id"], link["val_macro_f1"]) == (str(moved), best, scores[best])
    assert table(launcher.storage / "best") == {best: "completed"}
    assert done(launcher.storage / "best", best) == 2
