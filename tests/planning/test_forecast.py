"""The forecast's arithmetic, worked by hand, and what it makes of limits."""

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

# 800 / 10 + (100 + 100) / 20 = 90 s an epoch, and 100 / 20 = 5 s for the test.
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
    """A speed at which an epoch takes so long, its evaluation next to nothing."""
    return Speed(800 / (epoch_minutes * 60), 1e9, None)


def record(config: TrainConfig, epochs: int, seconds: float) -> TrialRecord:
    history = [{"epoch": i + 1, "wall_seconds": seconds / epochs} for i in range(epochs)]
    return TrialRecord(config.trial_id, {}, "interrupted", seconds=seconds, history=history)


def test_an_epoch_is_its_training_clips_and_twice_the_validation_clips_and_the_test_comes_once() -> None:
    (one,) = forecast_of([trial()]).trials
    assert one.epoch == 90.0
    assert one.left == 20 * 90.0 + 5.0
    assert one.end == one.left


def test_the_probe_is_no_larger_than_the_training_set() -> None:
    forecast = predict([trial()], {"train": 40, "validation": 100, "test": 0}, {workload(trial()): SPEED}, {}, 1)
    assert forecast.trials[0].epoch == 40 / 10 + (40 + 100) / 20


def test_limits_on_batches_shorten_the_epoch() -> None:
    config = trial(micro_batch=8, accumulation=2, limit_train_batches=5, eval_batch=10, limit_eval_batches=3)
    (one,) = forecast_of([config]).trials
    assert one.epoch == 5 * 16 / 10 + (30 + 30) / 20
    assert one.left == 20 * one.epoch + 30 / 20


def test_each_job_takes_the_place_that_is_free_first() -> None:
    assert schedule([5.0, 2.0, 4.0, 1.0], [0.0, 0.0]) == [5.0, 2.0, 6.0, 6.0]
    assert schedule([1.0], [7.0, 3.0]) == [4.0]


def test_the_sweep_takes_the_plans_order_at_its_concurrency() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    forecast = forecast_of(trials, {"ast": slow(3), "beats": slow(1), "htsat": slow(1)}, at_once=2)
    assert [one.end for one in forecast.trials] == pytest.approx([HOUR, 20 * MINUTE, 40 * MINUTE])
    assert forecast.seconds == pytest.approx(HOUR)
    assert forecast_of(trials, slow(1), at_once=8).at_once == 3


def test_of_a_resumed_run_only_what_is_left_counts() -> None:
    config = trial()
    forecast = forecast_of([config], records={config.trial_id: record(config, 15, 1_500.0)})
    (one,) = forecast.trials
    assert (one.done, one.used, one.left) == (15, 1_500.0, 5 * 90.0 + 5.0)


def test_an_arm_that_was_not_timed_goes_by_the_epochs_that_it_trained() -> None:
    begun, other = trial(), trial(seed=1)
    forecast = forecast_of([begun, other], {}, records={begun.trial_id: record(begun, 4, 400.0)})
    assert [one.left for one in forecast.trials] == [16 * 100.0, 20 * 100.0]
    assert forecast_of([trial("beats")], {}, records={begun.trial_id: record(begun, 4, 400.0)}).complete is False


def test_behind_a_trial_of_unknown_length_no_end_is_foretold() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    forecast = forecast_of(trials, {"ast": slow(1), "htsat": slow(1)}, at_once=2)
    assert [one.end is None for one in forecast.trials] == [False, True, True]
    assert not forecast.complete
    lines = describe(forecast)
    assert re.fullmatch(r"beats-lora-aug-on-s0 +not timed", lines[2])
    assert any("at least 20 min of training" in line for line in lines)


def test_the_table_has_a_row_a_trial_and_the_whole() -> None:
    lines = describe(forecast_of([trial(), trial("beats")], at_once=2))
    assert re.fullmatch(r"trial +epoch +whole +ends about", lines[0])
    assert re.fullmatch(r"ast-lora-aug-on-s0 +90 s +30 min +.*\d\d:\d\d(:\d\d)?", lines[1])
    assert re.match(r"about 30 min of training, 2 trials at a time, until about .*\d", lines[3])
    assert lines[4] == "memory: up to 1.0 GB a trial; disk: up to 1 MB"
    assert "stops early" not in lines[3]
    assert "stops early" in describe(forecast_of([dataclasses.replace(trial(), patience=5)]))[2]


def test_nothing_is_refused_that_fits() -> None:
    forecast = forecast_of([trial()])
    assert refusals(forecast, 1_805.0, 1_805.0, PLENTY) == []
    assert refusals(forecast, None, None, PLENTY) == []
    assert len(refusals(forecast, 1_804.0, 1_804.0, PLENTY)) == 2


def test_a_trial_beyond_its_limit_says_where_it_would_stop_and_what_to_type() -> None:
    assert refusals(forecast_of([trial()], slow(34.5)), 2 * HOUR, None, PLENTY) == [
        "AST needs about 11 h 30 min, the limit is 2 h: it would stop in epoch 4 of 20. "
        "Pass --trial-time-limit 12h, --epochs 3, or --yes to be cut."
    ]


def test_where_no_epoch_fits_fewer_epochs_are_no_way_out() -> None:
    assert refusals(forecast_of([trial()], slow(149)), 2 * HOUR, None, PLENTY) == [
        "AST needs about 2 d 2 h, the limit is 2 h: it would not finish its first epoch. "
        "Pass --trial-time-limit 52h, or --yes to be cut."
    ]


def test_a_resumed_trial_counts_the_seconds_it_has_used_and_its_epochs_are_settled() -> None:
    config = trial()
    forecast = forecast_of([config], slow(10), records={config.trial_id: record(config, 6, HOUR)})
    assert refusals(forecast, 2 * HOUR + 5 * MINUTE, None, PLENTY) == [
        "AST needs about 3 h 20 min, the limit is 2 h 5 min: it would stop in epoch 13 of 20. "
        "Pass --trial-time-limit 3h30m, or --yes to be cut."
    ]


def test_a_backbone_has_one_line_about_its_longest_trial() -> None:
    trials = [trial(augment=True), trial(augment=False), trial("beats")]
    speeds = {workload(trials[0]): slow(9), workload(trials[1]): slow(10), workload(trials[2]): slow(1)}
    forecast = predict(trials, CLIPS, speeds, {}, 1)
    (line,) = refusals(forecast, 2 * HOUR, None, PLENTY)
    assert line.startswith("AST needs about 3 h 20 min")


@pytest.mark.parametrize("minutes", [0.1, 1, 7, 33, 50, 95, 170, 340, 900, 5_000])
def test_a_limit_that_is_suggested_is_kept_with_some_room_but_not_much(minutes: float) -> None:
    forecast = forecast_of([trial()], slow(minutes / 20))
    (line,) = refusals(forecast, 1.0, None, PLENTY)
    suggested = parse_duration("--trial-time-limit", line.partition("--trial-time-limit ")[2].partition(",")[0])
    assert suggested is not None
    assert 1.04 * minutes * 60 <= suggested <= 1.25 * minutes * 60 + MINUTE
    assert refusals(forecast, suggested, None, PLENTY) == []


def test_epochs_that_would_only_just_fit_are_not_suggested() -> None:
    (line,) = refusals(forecast_of([trial()], slow(10)), 31 * MINUTE, None, PLENTY)
    assert "it would stop in epoch 4 of 20" in line
    assert "--epochs 2," in line
    (line,) = refusals(forecast_of([trial()]), 1.05 * 90.0, None, PLENTY)  # an epoch fits, its test does not
    assert "it would stop in epoch 2 of 20" in line
    assert "--epochs" not in line


@pytest.mark.parametrize("limit", [40 * MINUTE, 2 * HOUR, 5 * HOUR, 11 * HOUR])
def test_with_the_epochs_that_are_suggested_the_trial_fits(limit: float) -> None:
    (line,) = refusals(forecast_of([trial()], slow(34.5)), limit, None, PLENTY)
    epochs = int(line.partition("--epochs ")[2].partition(",")[0])
    fewer = dataclasses.replace(trial(), epochs=epochs)
    assert refusals(forecast_of([fewer], slow(34.5)), limit, None, PLENTY) == []


def test_a_trial_of_a_search_goes_on_at_the_pace_that_it_had() -> None:
    config = trial(learning_rate=5e-3, score_test=False)
    (going_on,) = forecast_of([config], {}, records={config.trial_id: record(config, 4, 400.0)}).trials
    assert going_on.epoch == 100.0


def test_a_sweep_beyond_its_limit_is_refused() -> None:
    trials = [trial(name) for name in ("ast", "beats", "htsat")]
    forecast = forecast_of(trials, slow(6), at_once=2)
    assert refusals(forecast, None, 3 * HOUR, PLENTY) == [
        "the sweep needs about 4 h at 2 trials at a time, --time-limit is 3 h: it would not be done. "
        "Pass --time-limit 4h30m, fewer --epochs, or --yes to be cut."
    ]
    (line,) = refusals(forecast_of(trials, {"ast": slow(6)}), None, HOUR, PLENTY)
    assert "at least about 2 h at 1 trial at a time" in line
    assert "Pass --time-limit 2h15m or more, fewer --epochs, or" in line
    (line,) = refusals(forecast_of(trials, slow(6), records={}), None, HOUR, PLENTY)
    assert "--epochs" not in line


def test_trials_that_do_not_fit_in_memory_together_are_refused() -> None:
    trials = [trial("ast"), trial("beats"), trial("htsat")]
    speeds = {"ast": Speed(10, 20, 1_024.0), "beats": Speed(10, 20, 4_096.0), "htsat": Speed(10, 20, 2_048.0)}
    forecast = forecast_of(trials, speeds, at_once=3)
    # The two largest fit in exactly 6 GB.
    assert refusals(forecast, None, None, Room(6_144.0, 2, 1e6)) == []
    assert refusals(forecast, None, None, Room(6_144.0, 3, 1e6)) == [
        "3 trials at a time need about 7.0 GB of memory, this machine has 6.0 GB. Pass --max-concurrent 2."
    ]


def test_where_a_single_trial_is_too_large_a_smaller_micro_batch_is_the_way() -> None:
    cpu, gpu = trial(micro_batch=32), trial(micro_batch=1, device="cuda")
    (line,) = refusals(forecast_of([cpu]), None, None, Room(500.0, 1, 1e6))
    assert line.endswith("of memory, this machine has 500 MB. Pass --set micro_batch=16 accumulation=2.")
    (line,) = refusals(forecast_of([gpu]), None, None, Room(500.0, 1, 1e6))
    assert "of GPU memory, the GPU has 500 MB. Pass --models without ast." in line
    (line,) = refusals(forecast_of([gpu, trial("beats", device="cuda")]), None, None, Room(1_500.0, 2, 1e6))
    assert line.endswith("Pass --gpus-per-trial 1.")


def test_disk_is_three_checkpoints_the_adapter_and_the_predictions() -> None:
    # (3 × 16 + 4) × 1 Mi parameters = 52 MB; 100 clips × 40 classes × 8 bytes = 0.03 MB; 0.2 MB of logs.
    forecast = forecast_of([trial(), trial("beats")], trainable=2**20)
    assert forecast.disk_mb == pytest.approx(2 * (52 + 32_000 / 2**20 + 0.2))
    assert refusals(forecast, None, None, Room(1e6, 1, 105.0)) == []
    assert refusals(forecast, None, None, Room(1e6, 1, 100.0)) == [
        "the run needs up to 105 MB on disk, 100 MB are free. Free some, or give a --storage with more."
    ]


def test_the_checkpoints_of_a_trial_that_has_begun_are_there_already() -> None:
    config = trial()
    forecast = forecast_of([config], records={config.trial_id: record(config, 1, 90.0)}, trainable=2**20)
    assert forecast.disk_mb == pytest.approx(20 + 32_000 / 2**20 + 0.2)
