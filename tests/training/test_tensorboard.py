"""What TensorBoard shows of a trial beside its curves: a line under HPARAMS and confusion matrices."""

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

from sousaphone.config import TrainConfig
from sousaphone.confusion import confusion_counts, confusion_image
from sousaphone.rudiments import SLUGS
from sousaphone.runs.statuses import Cause
from sousaphone.runs.trial_record import PREDICTIONS_NAME, predictions_name
from sousaphone.training.resumable_trial import _Keeper, with_smaller_micro_batch
from sousaphone.training.tensorboard import SHOWN, settings
from sousaphone.training.watchdog import TimeLimitError, Watchdog
from tests.training.test_resumable_trial import Trial

MakeConfig = Callable[..., TrainConfig]


def read(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"images": 0}).Reload()


def pictures(board: EventAccumulator, tag: str) -> list[tuple[int, np.ndarray]]:
    """(step, pixels [H, W, 3] in 0 to 255) of every image under a tag."""
    found = board.Images(tag)
    return [(e.step, np.rint(255 * imread(io.BytesIO(e.encoded_image_string))[..., :3])) for e in found]


def expected(directory: Path, tested: str = "test") -> np.ndarray:
    table = pd.read_parquet(directory / predictions_name(tested))
    logits = table[[f"logit_{slug}" for slug in SLUGS]].to_numpy()
    return confusion_image(confusion_counts(table["rudiment"].map(SLUGS.index).to_numpy(), logits.argmax(1)))


def hyperparameters(board: EventAccumulator) -> dict[str, str | float]:
    content = board.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


def test_a_trial_that_ends_leaves_its_confusion_matrix_and_a_line_of_settings_and_scores(
    trial_config: MakeConfig, tmp_path: Path
) -> None:
    trial = Trial(trial_config(epochs=2, test_also=trial_config().data_dir), tmp_path)
    trial.start()
    board = read(trial.directory)
    assert set(board.Tags()["images"]) == {"test_confusion", "also_confusion"}
    for tested in ("test", "also"):
        ((step, picture),) = pictures(board, f"{tested}_confusion")
        assert step == 2
        assert (picture == expected(trial.directory, tested)).all()
    shown = hyperparameters(board)
    assert shown == pytest.approx(settings(trial.config))
    assert (shown["model"], shown["augment"], shown["seed"], shown["effective_batch"]) == ("ast", "on", 0, 4)
    columns = metadata.parse_experiment_plugin_data(board.SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content)
    assert [info.name.tag for info in columns.metric_infos] == list(SHOWN)
    assert {info.name for info in columns.hparam_infos} == set(shown)
    end = board.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == api_pb2.STATUS_SUCCESS
    record = trial.record
    scores = {f"best_{name}": record.best[name] for name in ("val_acc", "val_macro_f1")} | record.test
    for name in SHOWN:
        assert board.Scalars(name)[-1].value == pytest.approx(scores[name])
    # One line a trial: its directory holds no other run.
    assert not [path for path in trial.directory.rglob("*tfevents*") if path.parent != trial.directory]


def test_settings_are_those_that_change_results(trial_config: MakeConfig) -> None:
    config = trial_config(micro_batch=32)
    assert settings(with_smaller_micro_batch(config, 2)) == settings(config)
    moved = trial_config(micro_batch=32, threads=2)
    assert settings(moved) == settings(config)
    assert settings(trial_config(learning_rate=0.1)) != settings(config)


def test_a_trial_cut_and_gone_on_with_shows_the_picture_of_its_end_alone(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: Watchdog, epoch: int, share: float) -> None:
        if epoch == 2:
            raise TimeLimitError(Cause.TRIAL_TIME_LIMIT, "cut in epoch 2")

    trial = Trial(trial_config(epochs=3), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Watchdog, "tick", cut)
        for _ in range(2):  # under the same limit the second start comes no further
            trial.start()
            assert trial.record.status == "time_limit"
            ((step, picture),) = pictures(read(trial.directory), "test_confusion")
            assert step == len(trial.record.history) == 1
            assert (picture == expected(trial.directory)).all()
    trial.start()
    assert trial.record.status == "completed"
    board = read(trial.directory)
    ((step, picture),) = pictures(board, "test_confusion")
    assert step == 3
    assert (picture == expected(trial.directory)).all()
    assert [event.step for event in board.Scalars("best_val_acc")] == [3]


def test_predictions_that_cannot_be_read_cost_the_picture_and_not_the_trial(
    trial_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(trial_config(epochs=1), tmp_path)

    def die(self: _Keeper) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_Keeper, "_write", die)  # between the last checkpoint and the record
        with pytest.raises(KeyboardInterrupt):
            trial.start()
    (trial.directory / PREDICTIONS_NAME).write_bytes(b"damaged")
    trial.start()
    assert trial.record.status == "completed"
    assert pictures(read(trial.directory), "test_confusion") == []  # that of the first start is stale
