"""Export trained trials of a run as a model folder."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sousaphone import lora
from sousaphone.backbones.registry import REGISTRY
from sousaphone.deploy import model_folder
from sousaphone.deploy.calibration import Predictions, calibrated, probabilities, read_predictions
from sousaphone.deploy.deploy_card import deploy_card
from sousaphone.deploy.evaluation import summary
from sousaphone.deploy.loading import Member, load_members, load_trial, merged_network, peft_name
from sousaphone.deploy.model_card import Statement, model_card
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.onnx_graph import quantize, write_graph
from sousaphone.deploy.onnx_session import GRAPHS, OnnxSession, missing_packages
from sousaphone.deploy.trained_trials import TrainedTrial
from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.model import RudimentClassifier
from sousaphone.runs.deployment import DeployCard, Runtime
from sousaphone.runs.directory import RunDirectory
from sousaphone.runs.trial_record import PREDICTIONS_NAME, plain
from sousaphone.training import tensor_files
from sousaphone.weights.check import fixed_clip

_CENTRE = "test_centre_window"  # in results.json
_MOST_DIFFERENCE = 1e-3  # between logits of the trial and of its folder, which are computed in another order


def export(
    trials: Sequence[TrainedTrial],
    target: Path,
    statement: Statement,
    *,
    merged: bool = False,
    runtimes: Sequence[Runtime] = ("torch",),
    measured: bool = False,
    overwrite: bool = False,
    weights: Path | None = None,
) -> ModelConfig:
    """Write a trial as a model folder, or several of one arm as an ensemble, and return the content of config.json.

    The folder is read again before it gets its name: its logits must be those of the trials.

    Args:
        target: a new or empty directory, not in a run.
        statement: banner and verdict of the run's report, for the model card.
        merged: store all tensors, with adapters merged into the base weights; the base is then not needed for loading.
            A model without adapters is always stored so.
        runtimes: 'onnx' and 'int8' write graphs for ONNX Runtime (the latter needs the former).
        measured: measure the deploy card, on this machine.
        overwrite: replace `target` if it is a model folder without other files.
        weights: the base weights, if they are not where the trials were trained.

    Raises:
        UserError: the trials or their base weights are missing or damaged, or `target` cannot be written.
    """
    inside = Path(os.path.realpath(expanded(target)))
    if runs := [each for each in (inside, *inside.parents) if RunDirectory(each).exists]:
        raise UserError(f"{target} is in the run {runs[0]}; give a directory outside of it")
    spec = REGISTRY[trials[0].config.model]
    if not spec.onnx and set(runtimes) != {"torch"}:
        raise UserError(f"{spec.title} cannot be exported to ONNX; leave out --onnx and --quantize")
    members = [load_trial(trial, weights) for trial in trials]
    tested = _tested(trials)
    results = {"verdict": dataclasses.asdict(statement), "trials": list(map(_measured, trials)), **tested}
    with model_folder.new_folder(target, overwrite) as directory:
        if len(members) == 1:
            config = _write_member(members[0], directory, merged, runtimes)
        else:
            names = tuple(f"seed-{trial.config.seed}" for trial in trials)
            for name, member in zip(names, members, strict=True):
                (directory / name).mkdir()
                _write_member(member, directory / name, merged, runtimes)
            config = dataclasses.replace(
                members[0].config,
                kind="ensemble",
                members=names,
                calibration=_joint_calibration(trials),
                trained={**members[0].config.trained, "trial": ", ".join(t.record.trial_id for t in trials)},
            )
            config.write(directory)
        _check(members, directory, weights, runtimes)
        card = None
        if measured:
            card = deploy_card(trials, members, directory, runtimes, tested.get(_CENTRE, {}), weights)
            results["deployment"] = dataclasses.asdict(card)
        (directory / model_folder.RESULTS).write_text(model_folder.as_json(plain(results)), encoding="utf-8")
        written = model_card(config, results, statement, expanded(target).absolute().name, card)
        (directory / model_folder.CARD).write_text(written, encoding="utf-8")
    return config


def measure_trial(trial: TrainedTrial, directory: Path) -> DeployCard:
    """Export a trial to a new directory and measure its deploy card, with ONNX Runtime if possible and installed."""
    exportable = REGISTRY[trial.config.model].onnx and not missing_packages()
    runtimes: tuple[Runtime, ...] = ("torch", "onnx", "int8") if exportable else ("torch",)
    member = load_trial(trial)
    directory.mkdir()
    _write_member(member, directory, False, runtimes)
    return deploy_card([trial], [member], directory, runtimes, _tested([trial]).get(_CENTRE, {}))


def _write_member(member: Member, directory: Path, merged: bool, runtimes: Sequence[Runtime]) -> ModelConfig:
    network, config = member.network, member.config
    if merged or not network.targets.modules:
        config = dataclasses.replace(config, kind="merged")
        tensors, wanted = merged_state(network), merged_network(config).state_dict()
        if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in wanted.items()}:
            raise UserError(
                f"{network.backbone.spec.title}'s weights {config.base_weights.get('source')} have another size than "
                f"scale {config.architecture['scale']}; export them without --merged"
            )
        name = model_folder.MERGED
    else:
        adapter = lora.adapter_config(
            config.trial(),
            network.targets,
            modules_to_save=list(network.fresh),
            base_model_name_or_path=str(config.base_weights.get("source")),
            inference_mode=True,
        )
        adapter.save_pretrained(str(directory))
        tensors = {peft_name(name): tensor for name, tensor in network.trained_tensors().items()}
        name = model_folder.ADAPTER
    tensor_files.write(directory / name, {key: tensor.detach() for key, tensor in tensors.items()})
    config.write(directory)
    if "onnx" in runtimes:
        write_graph(member, directory / GRAPHS["onnx"])
    if "int8" in runtimes:
        quantize(directory / GRAPHS["onnx"], directory / GRAPHS["int8"])
    return config


def merged_state(network: RudimentClassifier) -> dict[str, Tensor]:
    """The state dict of the same network without adapters: each is merged into the weight of its layer."""
    merged = copy.deepcopy(network)
    lora.merge(merged)
    return merged.state_dict()


def _check(members: Sequence[Member], directory: Path, weights: Path | None, runtimes: Sequence[Runtime]) -> None:
    """Raise a UserError if the folder does not compute the logits of the trials."""
    config, loaded = load_members(directory, weights)
    folders = [directory / name for name in config.members] or [directory]
    for member, reread, folder in zip(members, loaded, folders, strict=True):
        window = round(member.config.clip_seconds * member.config.sample_rate)
        clip = torch.from_numpy(np.resize(fixed_clip(member.config.sample_rate), window)).float()[None] / 32768
        with torch.inference_mode():
            expected = member.network(clip)
            found = {"--merged": reread.network(clip)}
        if "onnx" in runtimes:
            found["--onnx"] = torch.from_numpy(OnnxSession(folder / GRAPHS["onnx"]).logits(clip.numpy()))
        for option, logits in found.items():
            if not (difference := (logits - expected).abs().max().item()) <= _MOST_DIFFERENCE:
                raise UserError(
                    f"the exported model differs from {member.config.trained['trial']} (logits by {difference:.2g}): "
                    f"its base weights have settings that {option} does not keep; export it without"
                )


def _joint_calibration(trials: Sequence[TrainedTrial]) -> model_folder.Calibration:
    """Thresholds of the averaged probabilities of an ensemble; each member has its own temperatures."""
    rows = [(trial.validation, trial.calibration.averaged_temperature or 1.0) for trial in trials]
    known = [(each, temperature) for each, temperature in rows if each is not None]
    same = len(known) == len(rows) and len({tuple(each.sample_ids) for each, _ in known}) == 1
    return calibrated(None, None, known if same else None)


def _measured(trial: TrainedTrial) -> dict[str, Any]:
    """Return the results of a trial: on validation at the best epoch, and on the test clips."""
    return {
        "trial": trial.record.trial_id,
        "status": str(trial.record.status),
        "best_epoch": trial.record.best.get("epoch"),
        "validation": {name: value for name, value in trial.record.best.items() if name.startswith("val_")},
        "test": trial.record.test,
        # Without its notes, which may name players and directories.
        "data": {name: trial.record.data.get(name) for name in ("fingerprint", "clips")},
    }


def _tested(trials: Sequence[TrainedTrial]) -> dict[str, dict[str, Any]]:
    """Return the summaries of the probabilities on the test clips, averaged over the trials: of centre windows, and of
    the mean over windows; empty without test predictions."""
    results: dict[str, dict[str, Any]] = {}
    tests = [_test(trial) for trial in trials]
    known = [test for test in tests if test is not None]
    if len(known) == len(tests) and len({tuple(test.sample_ids) for test in known}) == 1:
        calibrations = [trial.calibration for trial in trials]
        centre = [probabilities(t.centre, c.temperature) for t, c in zip(known, calibrations, strict=True)]
        results[_CENTRE] = summary(np.mean(centre, axis=0), known[0].labels, known[0].players)
        averaged = [
            probabilities(t.averaged, c.averaged_temperature)
            for t, c in zip(known, calibrations, strict=True)
            if t.averaged is not None
        ]
        if len(averaged) == len(known):
            results["test_averaged"] = summary(np.mean(averaged, axis=0), known[0].labels, known[0].players)
    return results


def _test(trial: TrainedTrial) -> Predictions | None:
    path = trial.directory / PREDICTIONS_NAME
    return read_predictions(path) if path.is_file() else None
