"""The forecast's arithmetic, compared with hand calculations, and the suggested options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sousaphone.config import TrainConfig
from sousaphone.planning.forecast import Forecast, Room, describe, predict, refusals
from sousaphone.planning.schedule import schedule
from sousaphone.planning.throughput import Speed, workload
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import parse_duration

# 800 / 10 + (100 + 100) / 20 = 90 s an epoch. At the end, 200 clips are scored at their centre and in the 4 windows of
# 2.5 s that cover 6 s: 5 * 200 / 20 = 50 s.
CLIPS = {"train": 800, "validation": 100, "test": 100}
SPEED = Speed(10.0, 20.0, 1_000.0)
PLENTY = Room(memory_mb=1e6, sharing=1, disk_mb=1e6)
MINUTE, HOUR = 60.0, 3_600.0


def trial(model: str = "ast", **changes: Any) -> TrainConfig:
    return TrainConfig(model=model, epochs=20, patience=20, **changes)


def forecast_of(
    trials: Sequence[TrainConfig],
    speeds: Mapping[str, Speed | None] | Speed = SPEED,
    at_once: int = 1,
    records: Mapping[str, TrialRecord] | None = None,
    trainable: int = 1_000,
) -> Forecast:
    by_arm = {workload(t): speeds if isinstance(speeds, Speed) else speeds.get(t.model) for t in trials}
    return predict(trials, CLIPS, by_arm, dict.fromkeys(by_arm, trainable), at_once, records)


def slow(epoch_minutes: float) -> Speed:
    """Return a speed at which an epoch takes so long, almost all of it training."""
    return Speed(800 / (epoch_minutes * 60), 1e9, None)


def record(config: TrainConfig, epochs: int, seconds: float) -> TrialRecord:
    history = [{"epoch": i + 1, "wall_seconds": seconds / epochs} for i in range(epochs)]
    return TrialRecord(config.trial_id, dataclasses.asdict(config), "interrupted", seconds=seconds, history=history)


def test_epoch_time_counts_training_clips_and_twice_the_validation_clips() -> None:
    (one,) = forecast_of([trial()]).trials
    assert one.epoch == 90.0
    assert one.left == 20 * 90.0 + 50.0
    assert one.end == one.left


def test_training_clips_that_are_scored_are_no_more_than_the_training_set() -> None:
    forecast = predict([trial()], {"train": 40, "validation": 100, "test": 0}, {workload(trial()): SPEED}, {}, 1)
    assert forecast.trials[0].epoch == 40 / 10 + (40 + 100) / 20


def test_batch_limits_shorten_the_epoch() -> None:
    config = trial(micro_batch=8, accumulation=2, limit_train_batches=5, eval_batch=10, limit_eval_batches=3)
    (one,) = forecast_of([config]).trials
    assert one.epoch == 5 * 16 / 10 + (30 + 30) / 20
    assert one.left == 20 * one.epoch + 5 * 60 / 20


def test_clips_that_fit_into_the_window_are_scored_once() -> None:
    (one,) = forecast_of([trial(clip_seconds=6.0)]).trials
    assert one.left == 20 * 90.0 + 200 / 20


def test_each_job_takes_the_first_free_place() -> None:
    assert schedule([5.0, 2.0, 4.0, 1.0], [0.0, 0.0]) == [5.0, 2.0, 6.0, 6.0]
    assert schedule([1.0], [7.0, 3.0]) == [4.0]


def test_sweep_time_follows_the_order_and_number_of_trials_at_a_time() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    forecast = forecast_of(trials, {"ast": slow(3), "beats": slow(1), "htsat": slow(1)}, at_once=2)
    assert [one.end for one in forecast.trials] == pytest.approx([HOUR, 20 * MINUTE, 40 * MINUTE])
    assert forecast.seconds == pytest.approx(HOUR)
    assert forecast_of(trials, slow(1), at_once=8).at_once == 3


def test_resumed_trial_counts_only_the_epochs_left() -> None:
    config = trial()
    forecast = forecast_of([config], records={config.trial_id: record(config, 15, 1_500.0)})
    (one,) = forecast.trials
    assert (one.done, one.used, one.left) == (15, 1_500.0, 5 * 90.0 + 50.0)


def test_untimed_arm_uses_the_time_of_its_finished_epochs() -> None:
    begun, other = trial(), trial(seed=1)
    forecast = forecast_of([begun, other], {}, records={begun.trial_id: record(begun, 4, 400.0)})
    assert [one.left for one in forecast.trials] == [16 * 100.0, 20 * 100.0]
    assert forecast_of([trial("beats")], {}, records={begun.trial_id: record(begun, 4, 400.0)}).complete is False


def test_trial_behind_one_of_unknown_length_has_no_end() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    forecast = forecast_of(trials, {"ast": slow(1), "htsat": slow(1)}, at_once=2)
    assert [one.end is None for one in forecast.trials] == [False, True, True]
    assert not forecast.complete
    lines = describe(forecast)
    assert re.fullmatch(r"beats-lora-aug-on-s0 +not timed", lines[2])
    assert "at least 20 min" in lines[-2]


def test_table_has_a_row_per_trial_and_the_totals() -> None:
    lines = describe(forecast_of([trial(), trial("beats")], at_once=2))
    assert lines[0].split() == ["trial", "epoch", "total", "ends", "about"]
    assert re.fullmatch(r"ast-lora-aug-on-s0 +90 s +31 min +.*\d\d:\d\d(:\d\d)?", lines[1])
    assert "31 min" in lines[3]
    assert "2 trials at a time" in lines[3]
    assert "1.0 GB" in lines[4]
    assert "1 MB" in lines[4]
    assert "stops early" not in lines[3]
    assert "stops early" in describe(forecast_of([dataclasses.replace(trial(), patience=5)]))[2]


def options_in(line: str) -> dict[str, str]:
    """Return the options that a line suggests, with their values."""
    return dict(re.findall(r"(--[a-z-]+) ([^\s,.]+)", line.partition("Pass ")[2]))


def test_sweep_that_fits_is_not_refused() -> None:
    forecast = forecast_of([trial()])
    assert refusals(forecast, 1_850.0, 1_850.0, PLENTY) == []
    assert refusals(forecast, None, None, PLENTY) == []
    assert len(refusals(forecast, 1_849.0, 1_849.0, PLENTY)) == 2


def test_refused_trial_names_the_epoch_of_its_stop_and_the_options() -> None:
    (line,) = refusals(forecast_of([trial()], slow(34.5)), 2 * HOUR, None, PLENTY)
    assert line.startswith("AST needs about 11 h 30 min")
    assert "epoch 4 of 20" in line
    assert options_in(line) == {"--trial-time-limit": "12h", "--epochs": "3", "--yes": "to"}


def test_fewer_epochs_are_not_suggested_if_no_epoch_fits() -> None:
    (line,) = refusals(forecast_of([trial()], slow(149)), 2 * HOUR, None, PLENTY)
    assert "2 d 2 h" in line
    assert "first epoch" in line
    assert "--epochs" not in line
    assert options_in(line)["--trial-time-limit"] == "52h"


def test_resumed_trial_counts_its_used_seconds_and_keeps_its_epochs() -> None:
    config = trial()
    forecast = forecast_of([config], slow(10), records={config.trial_id: record(config, 6, HOUR)})
    (line,) = refusals(forecast, 2 * HOUR + 5 * MINUTE, None, PLENTY)
    assert "3 h 20 min" in line
    assert "epoch 13 of 20" in line
    assert "--epochs" not in line
    assert options_in(line)["--trial-time-limit"] == "3h30m"


def test_backbone_has_one_line_about_its_longest_trial() -> None:
    trials = [trial(augment=True), trial(augment=False), trial("beats")]
    speeds = {workload(trials[0]): slow(9), workload(trials[1]): slow(10), workload(trials[2]): slow(1)}
    forecast = predict(trials, CLIPS, speeds, {}, 1)
    (line,) = refusals(forecast, 2 * HOUR, None, PLENTY)
    assert line.startswith("AST needs about 3 h 20 min")


@pytest.mark.parametrize("minutes", [0.1, 1, 7, 33, 50, 95, 170, 340, 900, 5_000])
def test_suggested_limit_exceeds_the_forecast_by_a_small_margin(minutes: float) -> None:
    forecast = forecast_of([trial()], slow(minutes / 20))
    (line,) = refusals(forecast, 1.0, None, PLENTY)
    suggested = parse_duration("--trial-time-limit", options_in(line)["--trial-time-limit"])
    assert suggested is not None
    assert 1.04 * minutes * 60 <= suggested <= 1.25 * minutes * 60 + MINUTE
    assert refusals(forecast, suggested, None, PLENTY) == []


def test_suggested_epochs_leave_a_margin() -> None:
    (line,) = refusals(forecast_of([trial()], slow(10)), 31 * MINUTE, None, PLENTY)
    assert "epoch 4 of 20" in line
    assert options_in(line)["--epochs"] == "2"
    (line,) = refusals(forecast_of([trial()]), 1.05 * 90.0, None, PLENTY)  # an epoch fits, its test does not
    assert "epoch 2 of 20" in line
    assert "--epochs" not in line


@pytest.mark.parametrize("limit", [40 * MINUTE, 2 * HOUR, 5 * HOUR, 11 * HOUR])
def test_trial_with_the_suggested_epochs_fits(limit: float) -> None:
    (line,) = refusals(forecast_of([trial()], slow(34.5)), limit, None, PLENTY)
    fewer = dataclasses.replace(trial(), epochs=int(options_in(line)["--epochs"]))
    assert refusals(forecast_of([fewer], slow(34.5)), limit, None, PLENTY) == []


def test_resumed_search_trial_uses_the_time_of_its_finished_epochs() -> None:
    config = trial(learning_rate=5e-3, score_test=False)
    (resumed,) = forecast_of([config], {}, records={config.trial_id: record(config, 4, 400.0)}).trials
    assert resumed.epoch == 100.0


def test_sweep_beyond_its_limit_is_refused() -> None:
    trials = [trial(name) for name in ("ast", "beats", "htsat")]
    (line,) = refusals(forecast_of(trials, slow(6), at_once=2), None, 3 * HOUR, PLENTY)
    assert "4 h with 2 trials" in line
    assert "--epochs" in line
    assert options_in(line)["--time-limit"] == "4h30m"
    (line,) = refusals(forecast_of(trials, {"ast": slow(6)}), None, HOUR, PLENTY)
    assert "at least about 2 h" in line
    assert options_in(line)["--time-limit"] == "2h15m"
    (line,) = refusals(forecast_of(trials, slow(6), records={}), None, HOUR, PLENTY)
    assert "--epochs" not in line


def test_trials_that_exceed_the_memory_together_are_refused() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    speeds = {"ast": Speed(10, 20, 1_024.0), "beats": Speed(10, 20, 4_096.0), "htsat": Speed(10, 20, 2_048.0)}
    forecast = forecast_of(trials, speeds, at_once=3)
    # The two largest fit in exactly 6 GB.
    assert refusals(forecast, None, None, Room(6_144.0, 2, 1e6)) == []
    (line,) = refusals(forecast, None, None, Room(6_144.0, 3, 1e6))
    assert "7.0 GB" in line
    assert "6.0 GB" in line
    assert options_in(line) == {"--max-concurrent": "2"}


def test_trial_that_exceeds_the_memory_alone_needs_a_smaller_micro_batch() -> None:
    cpu, gpu = trial(micro_batch=32), trial(micro_batch=1, device="cuda")
    (line,) = refusals(forecast_of([cpu]), None, None, Room(500.0, 1, 1e6))
    assert "--set micro_batch=16 accumulation=2" in line
    assert "500 MB" in line
    (line,) = refusals(forecast_of([gpu]), None, None, Room(500.0, 1, 1e6))
    assert "GPU" in line
    assert "--models without ast" in line
    (line,) = refusals(forecast_of([gpu, trial("beats", device="cuda")]), None, None, Room(1_500.0, 2, 1e6))
    assert options_in(line) == {"--gpus-per-trial": "1"}


def test_disk_space_counts_three_checkpoints_adapter_and_predictions() -> None:
    # (3 × 16 + 4) × 1 Mi parameters = 52 MB; 200 clips × 40 classes × 2 × 8 bytes = 0.12 MB; 0.2 MB of logs.
    forecast = forecast_of([trial(), trial("beats")], trainable=2**20)
    assert forecast.disk_mb == pytest.approx(2 * (52 + 128_000 / 2**20 + 0.2))
    assert refusals(forecast, None, None, Room(1e6, 1, 105.0)) == []
    (line,) = refusals(forecast, None, None, Room(1e6, 1, 100.0))
    assert "105 MB" in line
    assert "100 MB" in line
    assert "--storage" in line


def test_disk_space_of_a_resumed_trial_excludes_its_checkpoints() -> None:
    config = trial()
    forecast = forecast_of([config], records={config.trial_id: record(config, 1, 90.0)}, trainable=2**20)
    assert forecast.disk_mb == pytest.approx(20 + 128_000 / 2**20 + 0.2)
