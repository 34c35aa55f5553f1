"""The TensorBoard file of a trial contains a row under HPARAMS and confusion matrices."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from torch.utils.tensorboard import SummaryWriter

from sousaphone.config import TrainConfig
from sousaphone.confusion import confusion_counts, confusion_image
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import PREDICTIONS_NAME, TrialRecord, predictions_name
from sousaphone.training.resumable_trial import with_smaller_micro_batch
from sousaphone.training.tensorboard import SHOWN, draw_epoch, settings
from sousaphone.training.watchdog import TimeLimitError, Watchdog
from tests.training.test_resumable_trial import Trial

MakeConfig = Callable[..., TrainConfig]


def read(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()


def images(events: EventAccumulator, tag: str) -> list[tuple[int, np.ndarray]]:
    """(step, pixels [H, W, 3] in 0 to 255) of every image under a tag."""
    found = events.Images(tag)
    return [(e.step, np.rint(255 * imread(io.BytesIO(e.encoded_image_string))[..., :3])) for e in found]


def expected(directory: Path, tested: str = "test") -> np.ndarray:
    table = pd.read_parquet(directory / predictions_name(tested))
    logits = table[[f"logit_{slug}" for slug in SLUGS]].to_numpy()
    return confusion_image(confusion_counts(table["rudiment"].map(SLUGS.index).to_numpy(), logits.argmax(1)))


def hyperparameters(events: EventAccumulator) -> dict[str, str | float]:
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def test_completed_trial_has_confusion_matrices_and_a_row_of_options_and_scores(
    trial_config: MakeConfig, tmp_path: Path
) -> None:
    trial = Trial(trial_config(epochs=2, test_also=trial_config().data_dir), tmp_path)
    trial.start()
    events = read(trial.directory)
    assert set(events.Tags()["images"]) == {"test_confusion", "also_confusion"}
    for tested in ("test", "also"):
        ((step, image),) = images(events, f"{tested}_confusion")
        assert step == 2
        assert (image == expected(trial.directory, tested)).all()
    shown = hyperparameters(events)
    assert shown == pytest.approx(settings(trial.config))
    assert (shown["model"], shown["augment"], shown["seed"], shown["effective_batch"]) == ("ast", "on", 0, 4)
    columns = metadata.parse_experiment_plugin_data(events.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content)
    assert [info.name.tag for info in columns.metric_infos] == list(SHOWN)
    assert {info.name for info in columns.hparam_infos} == set(shown)
    end = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == api_pb2.STATUS_SUCCESS
    record = trial.record
    scores = {f"best_{name}": record.best[name] for name in ("val_acc", "val_macro_f1")} | record.test
    for name in SHOWN:
        assert events.Scalars(name)[-1].value == pytest.approx(scores[name])
    # One row per trial: its directory contains no other TensorBoard run.
    assert not [path for path in trial.directory.rglob("*tfevents*") if path.parent != trial.directory]


def test_hparams_contain_only_options_that_change_results(trial_config: MakeConfig) -> None:
    config = trial_config(micro_batch=32)
    assert settings(with_smaller_micro_batch(config, 2)) == settings(config)
    assert settings(trial_config(micro_batch=32, threads=2)) == settings(config)
    assert settings(trial_config(learning_rate=0.1)) != settings(config)


def test_resumed_trial_shows_only_its_last_confusion_matrix(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Watchdog, epoch: int, fraction: float) -> None:
        if epoch == 2:
            raise TimeLimitError(Cause.TRIAL_TIME_LIMIT, "epoch 2")

    trial = Trial(trial_config(epochs=3), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Watchdog, "tick", cut)
        for _ in range(2):  # under the same limit the second start trains no further
            trial.start()
            assert trial.record.status == "time_limit"
            ((step, image),) = images(read(trial.directory), "test_confusion")
            assert step == len(trial.record.history) == 1
            assert (image == expected(trial.directory)).all()
    trial.start()
    assert trial.record.status == "completed"
    events = read(trial.directory)
    ((step, image),) = images(events, "test_confusion")
    assert step == 3
    assert (image == expected(trial.directory)).all()
    assert [event.step for event in events.Scalars("best_val_acc")] == [3]


def test_unreadable_predictions_only_omit_the_confusion_matrix(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(trial_config(epochs=1), tmp_path)

    write = TrialRecord.write

    def kill(self: TrialRecord, directory: Path) -> None:
        if self.history:  # between the last checkpoint and the record
            raise KeyboardInterrupt
        write(self, directory)

    with monkeypatch.context() as patched:
        patched.setattr(TrialRecord, "write", kill)
        with pytest.raises(KeyboardInterrupt):
            trial.start()
    (trial.directory / PREDICTIONS_NAME).write_bytes(b"damaged")
    trial.start()
    assert trial.record.status == "completed"
    assert images(read(trial.directory), "test_confusion") == []  # the one of the first start is purged


def test_metric_that_is_not_finite_has_no_point(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        draw_epoch(writer, 1, {"epoch": 1, "val_acc": 0.5, "train_ce": None})
    assert read(tmp_path).Tags()["scalars"] == ["val_acc"]


def test_settings_that_the_sweep_varies_come_first(trial_config: MakeConfig) -> None:
    searched = ["lora_r", "augment", "efficientat_hop"]  # the last has no value here
    shown = settings(trial_config(), searched)
    assert list(shown)[:2] == ["lora_r", "augment"]
    assert shown == settings(trial_config())
