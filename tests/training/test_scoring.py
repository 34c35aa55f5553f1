"""Scores over whole clips: the mean logits over windows, for every set, at the end of a trial."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from sousaphone.config import TrainConfig
from sousaphone.data.prepare import TrialData, open_trial_data
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.training import metrics
from sousaphone.training.device_clock import DeviceClock
from sousaphone.training.loop import cut_short, fit
from sousaphone.training.scoring import evaluate, final_metrics, mean_over_windows, score_all

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def long_clips(make_sousa: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clips of 7 s and shorter ones in every split."""
    root = make_sousa(tmp_path_factory.mktemp("long"), players=4, takes=2, long_clips=24)
    return str(root)


def opened(config: TrainConfig) -> tuple[RudimentClassifier, TrialData]:
    model = build_model(config, len(SLUGS))
    return model, open_trial_data(config, model.backbone.spec.sample_rate)


@pytest.mark.parametrize("name", ["ast", "efficientat"])
def test_averaged_logits_are_the_mean_over_windows_cut_by_hand(
    name: str, trial_config: MakeConfig, long_clips: str
) -> None:
    config = trial_config(model=name, eval_batch=5)
    config = dataclasses.replace(config, data_dir=long_clips, clip_seconds=3.0)
    model, data = opened(config)
    scores = score_all(config, model, data)["test"]
    rate, clips = model.backbone.spec.sample_rate, data.test
    whole = dataclasses.replace(config, clip_seconds=7.0)
    (batch,) = open_trial_data(whole, rate).test.evaluation_batches(99)
    starts = (0.0, 1.5, 3.0, 4.0)
    for row in range(len(clips)):
        assert int(batch.lengths[row]) == 7 * rate
        parts = [batch.wave[row, round(s * rate) :][: 3 * rate] for s in starts]
        with torch.inference_mode():
            logits = model(torch.stack(parts) / 32768, torch.full((4,), 3 * rate))
        torch.testing.assert_close(scores.averaged.logits[row], logits.mean(0), atol=1e-4, rtol=1e-4)
    assert scores.windows.tolist() == [4] * len(clips)


def test_clips_that_fit_keep_the_logits_of_their_centre(trial_config: MakeConfig) -> None:
    config = trial_config(eval_batch=3)  # one clip of 7 s, in training; others of up to 1.1 s; windows of 1 s
    model, data = opened(config)
    scores = score_all(config, model, data)["test"]
    one = scores.windows == 1
    assert 0 < one.sum() < len(one)
    assert torch.equal(scores.averaged.logits[one], scores.centre.logits[one])
    assert not torch.equal(scores.averaged.logits[~one], scores.centre.logits[~one])
    assert torch.equal(scores.centre.logits, evaluate(config, model, data.test).logits)


def test_mean_ignores_the_centre_of_clips_with_windows() -> None:
    centre, windows = torch.tensor([[1.0], [9.0], [5.0]]), torch.tensor([[2.0], [4.0], [-torch.inf]])
    assert mean_over_windows(centre, windows, torch.tensor([1, 1, 2])).flatten().tolist() == [1.0, 3.0, -torch.inf]


def test_limited_evaluation_averages_only_the_scored_clips(trial_config: MakeConfig, long_clips: str) -> None:
    config = dataclasses.replace(trial_config(eval_batch=2), data_dir=long_clips, limit_eval_batches=2)
    final = score_all(config, *opened(config))
    assert {name: len(scores.windows) for name, scores in final.items()} == {"val": 4, "test": 4}
    assert all(len(scores.averaged.logits) == 4 and (scores.windows > 1).all() for scores in final.values())


def test_last_epoch_has_both_kinds_of_scores_of_the_best_state(trial_config: MakeConfig, long_clips: str) -> None:
    config = dataclasses.replace(trial_config(epochs=2, learning_rate=3e-3), data_dir=long_clips)
    model, data = opened(config)
    first, last = fit(config, model, data)
    assert not any("averaged" in name or "temperature" in name for name in first.metrics)
    best = build_model(config, len(SLUGS))
    best.load_trained_state(last.state["best"]["model"])
    expected = final_metrics(score_all(config, best, data))
    assert {name: last.metrics[name] for name in expected} == expected
    names = {f"{split}_averaged_{metric}" for split in ("val", "test") for metric in ("acc", "macro_f1", "loss")}
    assert names | {"temperature", "averaged_temperature", "test_acc"} <= expected.keys()
    assert "val_acc" not in expected  # that of the last epoch must stay
    cut = cut_short(config, build_model(config, len(SLUGS)), data, first.state, last.end)
    assert cut.metrics.keys() - {"wall_seconds"} == last.metrics.keys() - {"wall_seconds"}


def test_search_over_settings_scores_validation_clips_only(trial_config: MakeConfig) -> None:
    config = trial_config(epochs=1, score_test=False)
    (epoch,) = fit(config, *opened(config))
    assert set(epoch.final) == {"val"}
    assert epoch.test is None
    assert not any(name.startswith("test") for name in epoch.metrics)


def planted(clips: int, classes: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a model that is calibrated once they are divided by the temperature, and labels."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 2, (clips, classes)))
    uniform = torch.from_numpy(rng.random((clips, 1)))
    labels = (logits.softmax(1).cumsum(1) < uniform).sum(1).clamp(max=classes - 1)
    return logits * temperature, labels


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0, 10.0])
def test_planted_temperature_is_recovered_within_5_percent(temperature: float) -> None:
    logits, labels = planted(8_000, 12, temperature)
    fitted = metrics.fitted_temperature(logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert metrics.accuracy(logits / fitted, labels) == metrics.accuracy(logits, labels)
    assert metrics.cross_entropy(logits / fitted, labels) <= metrics.cross_entropy(logits, labels)


@pytest.mark.parametrize(
    "logits",
    [torch.eye(3) * 50, -torch.eye(3) * 50, torch.zeros(3, 3), torch.tensor([[1.0, 0.0, 0.0]] * 3), torch.eye(3) * 1e6],
    ids=["all right", "all wrong", "equal", "one class", "huge"],
)
def test_temperature_of_degenerate_logits_is_within_its_limits(logits: torch.Tensor) -> None:
    low, high = metrics.TEMPERATURES
    assert low <= metrics.fitted_temperature(logits, torch.arange(3)) <= high
    assert low <= metrics.fitted_temperature(logits[:1], torch.arange(1)) <= high


def test_processor_time_counts_work_and_not_waiting() -> None:
    idle, busy = DeviceClock(torch.device("cpu")), DeviceClock(torch.device("cpu"))
    time.sleep(0.2)
    waited = idle.seconds()
    end = time.process_time() + 0.2
    while time.process_time() < end:
        busy.begin_step()
        busy.end_step()
    assert waited < 0.2 <= busy.seconds()


def test_gpu_time_is_that_of_the_steps_without_the_gaps_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 300.0, 1_000.0, 1_200.0])  # milliseconds on the GPU: begin and end of two steps

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.time = next(now)

        def elapsed_time(self, end: Event) -> float:
            return end.time - self.time

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = DeviceClock(torch.device("cuda"))
    for _ in range(2):
        clock.begin_step()
        clock.end_step()
    assert clock.seconds() == 0.5


def test_saved_predictions_reproduce_every_final_metric(trial_config: MakeConfig, tmp_path: Path) -> None:
    from sousaphone.runs.directory import DriverWatch, Limits, RunDirectory
    from sousaphone.runs.trial_record import TrialRecord, predictions_name
    from sousaphone.training.resumable_trial import run_trial

    config, run = trial_config(epochs=2), RunDirectory(tmp_path)
    directory = run.trial(config.trial_id)
    with run.held(Limits()):
        run_trial(config, directory, DriverWatch.begin(run.path), lambda metrics: None)
    record = TrialRecord.read(directory)
    assert record is not None
    last, best = record.history[-1], record.best
    for name in ("val", "test"):
        table = pd.read_parquet(directory / predictions_name(name))
        for prefix in ("", "averaged_"):
            logits = table[[f"{prefix}logit_{slug}" for slug in SLUGS]].to_numpy()
            right = np.array(SLUGS)[logits.argmax(1)] == table.rudiment.to_numpy()
            row = best if (name, prefix) == ("val", "") else last
            assert row[f"{name}_{prefix}acc"] == right.mean()
        assert (table.windows == 1).equals(table.duration_sec <= 1.0)
