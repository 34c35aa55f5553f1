"""The deploy card of a model: its costs in each runtime, and its accuracy there on the run's test clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from sousaphone.data.dataset import Dataset
from sousaphone.deploy.evaluation import evaluate, results
from sousaphone.deploy.loading import Member
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.deploy.predictor import Predictor, load
from sousaphone.deploy.runtime_cost import measure
from sousaphone.deploy.trained_trials import TrainedTrial
from sousaphone.errors import UserError
from sousaphone.hardware import device_name
from sousaphone.lora import is_adapter
from sousaphone.runs.deployment import TITLES, DeployCard, Runtime, RuntimeCost
from sousaphone.runs.predictions import DAMAGED, NEEDED, read_table
from sousaphone.runs.trial_record import PREDICTIONS_NAME
from sousaphone.text import one_line, tracked

_BUSY_PERCENT = 20  # of all cores


def deploy_card(
    trials: Sequence[TrainedTrial],
    members: Sequence[Member],
    directory: Path,
    runtimes: Sequence[Runtime],
    tested: Mapping[str, Any],
    weights: Path | None = None,
) -> DeployCard:
    """Measure the exported model of a trial, or of the seeds of an arm, on the CPU of this machine.

    Args:
        directory: its model folder, with the graphs of the `runtimes`.
        tested: the summary of its centre windows in training (`accuracy`, `clips`); empty without test clips.
        weights: the base weights, if they are not where the trials were trained.
    """
    folders = [directory / name for name in ModelConfig.read(directory).members] or [directory]
    costs, remarks = [], dict[str, None]()
    names = ", ".join(trial.record.trial_id for trial in trials)
    busy = psutil.cpu_percent(interval=0.5)
    begun = f"measuring speed, size and memory of {names}: about half a minute at nano scale, minutes at base"
    for runtime in tracked(runtimes, f"measuring {names}", len(runtimes), begun):
        scored = tested.get("accuracy"), tested.get("clips", 0)
        if runtime == "torch":
            size = sum(map(_tensor_bytes, members))
        else:
            size = sum((folder / GRAPHS[runtime]).stat().st_size for folder in folders)
            if tested:
                try:
                    scored = _score(load(directory, runtime=runtime), runtime, test_clips(trials[0]))
                except (UserError, OSError) as error:
                    scored = None, 0
                    remarks[f"Accuracy with ONNX Runtime was not measured: {one_line(error, 300)}."] = None
        costs.append(RuntimeCost(runtime, *scored, disk_bytes=size, **measure(folders, runtime, weights)))
    seconds = members[0].config.clip_seconds
    busy = round(busy) if busy > _BUSY_PERCENT else 0
    return DeployCard(names, seconds, device_name("cpu"), tuple(costs), " ".join(remarks), busy)


def test_clips(trial: TrainedTrial) -> Dataset:
    """Return the test clips that a trial was scored on; raises a UserError if they are not known or not trusted."""
    root = trial.data.get("root")
    if not root or not trial.run.is_own:
        raise UserError(f"{trial.run.path} does not name its recordings, or was not written on this machine")
    path = trial.directory / PREDICTIONS_NAME
    try:
        return Dataset(Path(root), read_table(path, [*NEEDED, "audio_path"]))
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read ({one_line(error, 200)})") from None


def _score(model: Predictor, runtime: Runtime, clips: Dataset) -> tuple[float, int]:
    """Return the accuracy on the centre windows of clips, and their number."""
    title = f"scoring {len(clips.clips):,} test clips with {TITLES[runtime]}"
    rows = list(tracked(evaluate(model, clips), title, len(clips.clips)))
    return results(model, rows)["centre_window"]["accuracy"], len(rows)


def _tensor_bytes(member: Member) -> int:
    """Size of the tensors of a model whose adapters are added to the base weights."""
    state = member.network.state_dict()
    return sum(tensor.nbytes for name, tensor in state.items() if not is_adapter(name))
