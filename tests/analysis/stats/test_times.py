"""Times are those of the processor or the GPU where all trials have them, and a busy machine is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.load.trials import Trial, read_trials
from analysis.stats.times import busy_machine
from tests.analysis.run_builders import arm, record, write_run


def trials(path: Path, *seconds: list[tuple[float, float | None]], device: str = "cpu") -> list[Trial]:
    """Trials with these (wall, processor) seconds of their epochs."""
    plan = [arm(seed=seed, epochs=len(own), device=device) for seed, own in enumerate(seconds)]
    records = [record(config, "completed") for config in plan]
    for each, own in zip(records, seconds, strict=True):
        for row, (wall, processor) in zip(each.history, own, strict=True):
            row.update(epoch_seconds=wall, processor_seconds=processor, samples_per_second=100 / wall)
            if processor is None:
                del row["processor_seconds"]
    run = write_run(path, plan, records)
    return read_trials(run, run.read_plan(), {})


@pytest.mark.parametrize(("device", "unit"), [("cpu", "processor"), ("cuda", "GPU"), ("mps", "wall")])
def test_times_and_speeds_are_of_the_processor_where_measured(tmp_path: Path, device: str, unit: str) -> None:
    (one,) = trials(tmp_path, [(57.0, 4.0), (9.0, 5.0)], device=device)
    assert (one.train_seconds, one.mean(one.clock)) == (9.0, 4.5)
    assert one.samples_per_second == pytest.approx((100 / 4 + 100 / 5) / 2)
    assert one.time_unit == unit


def test_runs_with_a_trial_without_processor_time_use_wall_time(tmp_path: Path) -> None:
    found = trials(tmp_path, [(57.0, 4.0)], [(5.0, None)])
    assert [trial.train_seconds for trial in found] == [57.0, 5.0]
    assert [trial.samples_per_second for trial in found] == pytest.approx([100 / 57, 20.0])
    assert {trial.time_unit for trial in found} == {"wall"}
    assert busy_machine(found) is None


def test_busy_machine_is_reported_with_the_trials_concerned(tmp_path: Path) -> None:
    warning = busy_machine(trials(tmp_path / "a", [(4.6, 4.5)], [(57.0, 4.5)]))
    assert warning is not None
    assert "aug-on-s0" in warning
    assert "aug-on-s1" in warning
    assert "13 s" in warning
    assert busy_machine(trials(tmp_path / "b", [(4.6, 4.5)], [(60.0, 58.0)])) is None  # slow, but not disturbed
    assert busy_machine([]) is None
