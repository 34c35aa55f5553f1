"""Rebuild trained models: from a model folder, a run or a repository of the hub."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sousaphone.backbones import nano
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.deploy import model_folder
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.deploy.trained_trials import TrainedTrial, best_arm
from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.hub import RefusedError, UnreachableError, fetch_snapshot
from sousaphone.model import RudimentClassifier, build_model
from sousaphone.rudiments import SLUGS
from sousaphone.runs.deployment import Runtime
from sousaphone.runs.directory import RunDirectory
from sousaphone.weights import RANDOM, content_fingerprint
from sousaphone.weights.resolve import resolve_all

_HUB_ID = re.compile(r"(?:hub:)?([\w-][\w.-]*/[\w-][\w.-]*)")
_TENSOR_FILES = (model_folder.ADAPTER_CONFIG, model_folder.ADAPTER, model_folder.MERGED)


@dataclass(frozen=True)
class Member:
    """A trained network and its configuration."""

    config: ModelConfig
    network: RudimentClassifier


def load_members(source: Path | str, weights: Path | str | None = None) -> tuple[ModelConfig, list[Member]]:
    """Load the networks of a model, on the CPU: one, or the members of an ensemble.

    Args:
        source: a model folder, a run directory (its best trial), or a repository of the hub (OWNER/NAME).
        weights: the base weights, if they are not where the model was trained.

    Raises:
        UserError: the source is none of these or damaged, or the base weights are missing or differ.
    """
    path = located(source)
    if RunDirectory(path).exists:
        member = load_trial(best_arm(RunDirectory(path))[0], weights)
        return member.config, [member]
    config, folders = _read(path)
    return config, [_load_folder(folder, own, weights) for folder, own in folders.items()]


def find_graphs(source: Path | str, runtime: Runtime) -> tuple[ModelConfig, dict[Path, ModelConfig]]:
    """Find the ONNX graphs of a model: its configuration, and that of each of its members by the graph's path. Raises
    a UserError if there are none."""
    file = GRAPHS[runtime]
    path = located(source, (file,))
    if RunDirectory(path).exists:
        raise UserError(f"{path} is a run, without ONNX graphs; export it with --onnx, and give the model folder")
    config, folders = _read(path)
    for folder in folders:
        if not (folder / file).is_file():
            option = "--quantize" if runtime == "int8" else "--onnx"
            raise UserError(f"{folder} has no {file}; export the model with {option}")
    return config, {folder / file: own for folder, own in folders.items()}


def _read(path: Path) -> tuple[ModelConfig, dict[Path, ModelConfig]]:
    """Read the configuration of a model folder, and that of each folder with tensors: itself, or its members."""
    config = ModelConfig.read(path)
    model_folder.refuse_pickles(path)
    if not config.members:
        return config, {path: config}
    members = {path / name: ModelConfig.read(path / name) for name in config.members}
    for folder, own in members.items():
        model_folder.refuse_pickles(folder)
        if own.members:
            raise UserError(f"{folder} is an ensemble in an ensemble; export it again")
        if _inputs(own) != _inputs(config):
            raise UserError(f"{folder} has other classes, windows or features than {path}; export the ensemble again")
    return config, members


def _inputs(config: ModelConfig) -> tuple[Any, ...]:
    """What the members of an ensemble share."""
    return config.classes, config.front_end, config.clip_seconds, config.architecture.get("model")


def load_trial(trial: TrainedTrial, weights: Path | str | None = None) -> Member:
    """Load the network of a trial from its run."""
    path = _base_path(trial.config, trial.record.weights, weights)
    network = build_model(dataclasses.replace(trial.config, weights=path), len(SLUGS))
    _refuse_other_base(network, trial.record.weights, trial.directory, path)
    network.load_trained_state(trial.trained_state(network.trained_tensors()))
    return Member(trial.model_config(network), network.eval())


def base_model(source: Path | str, weights: Path | str | None = None) -> RudimentClassifier:
    """Build the network that an exported adapter belongs to, with untrained new layers and without adapters, as the
    base of `peft.PeftModel.from_pretrained`."""
    path = located(source)
    config = ModelConfig.read(path)
    if config.kind != "adapter":
        raise UserError(f"{path} is of kind {config.kind}, without an adapter; export it without --merged")
    return _base(config, path, weights, strategy="head")


def located(source: Path | str, wanted: Sequence[str] = _TENSOR_FILES) -> Path:
    """Return the directory of a model; download the configuration and the `wanted` files from the hub if there is no
    such directory."""
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"{source!r:.80} is not a path; give a model folder, a run directory, or OWNER/NAME on the hub")
    path, match = expanded(source), _HUB_ID.fullmatch(str(source))
    if path.is_dir():
        return path
    if match is None or (path.parent.is_dir() and not str(source).startswith("hub:")):
        raise UserError(f"{source} is not a directory; give a model folder, a run directory, or OWNER/NAME on the hub")
    files = [name for file in (model_folder.CONFIG, *wanted) for name in (file, f"*/{file}")]
    try:
        return fetch_snapshot(f"the model {match[1]}", match[1], "model", files)
    except RefusedError:
        raise UserError(
            f"{match[1]}: the hub has no such model, or restricts access to it; give a model folder, a run directory, "
            "or OWNER/NAME (to log in: hf auth login)"
        ) from None
    except UnreachableError as error:
        if (cached := _cached(match[1], files)) is not None:
            print(f"{match[1]}: hub unreachable; using the copy in {cached}", file=sys.stderr)
            return cached
        raise UserError(f"{match[1]} cannot be downloaded ({error}); give a model folder or a run directory") from None


def _cached(name: str, files: Sequence[str]) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with suppress(LocalEntryNotFoundError, ValueError):
        return Path(snapshot_download(name, allow_patterns=list(files), local_files_only=True))
    return None


def _load_folder(directory: Path, config: ModelConfig, weights: Path | str | None) -> Member:
    if config.kind == "adapter":
        network = _base(config, directory, weights)
        names = {peft_name(name): name for name in network.trained_tensors()}
        wanted = {peft_name(name): tensor for name, tensor in network.trained_tensors().items()}
        state = model_folder.read_tensors(directory / model_folder.ADAPTER, wanted)
        network.load_trained_state({names[peft]: tensor for peft, tensor in state.items()})
    else:
        network = merged_network(config)
        _refuse_other_features(network, config, directory)
        network.load_state_dict(model_folder.read_tensors(directory / model_folder.MERGED, network.state_dict()))
    return Member(config, network.eval())


def peft_name(name: str) -> str:
    """Return the name of a trained tensor in PEFT's files, which omit the adapter's name."""
    # PEFT's DoRA stores its vectors by the names of its earlier versions.
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return f"base_model.model.{name.replace('.default.', '.').removesuffix('.default')}"


def merged_network(config: ModelConfig) -> RudimentClassifier:
    """Build the network into which merged tensors are loaded: without adapters, with random weights."""
    # Base weights may have set the hop; front ends without that option ignore it. A backbone that has one strategy only
    # is built with it.
    strategy = REGISTRY[config.trial().model].strategy or "head"
    trial = config.trial(strategy=strategy, weights=RANDOM, efficientat_hop=config.front_end.hop)
    return build_model(trial, len(config.classes))


def _base(config: ModelConfig, directory: Path, weights: Path | str | None, **changes: Any) -> RudimentClassifier:
    """Build the network of an adapter as before training, on the base weights with which it was trained."""
    trial = config.trial()
    path = _base_path(trial, config.base_weights, weights)
    network = build_model(dataclasses.replace(trial, weights=path, **changes), len(config.classes))
    _refuse_other_base(network, config.base_weights, directory, path)
    _refuse_other_features(network, config, directory)
    return network


def _base_path(trial: TrainConfig, base: Mapping[str, Any], given: Path | str | None) -> str:
    """Return 'random' or the path of the base weights: the given file, the file shipped with this package, the recorded
    file if its content has not changed, or the published file, which is downloaded if necessary."""
    source, title = str(base.get("source", RANDOM)), REGISTRY[trial.model].title
    if given is not None:
        return str(expanded(given).absolute())
    if source == RANDOM:
        return RANDOM
    if base.get("origin") == nano.ORIGIN and (shipped := nano.shipped(trial.model)) is not None:
        return str(shipped)
    with suppress(OSError):
        if Path(source).exists() and content_fingerprint(source) == base.get("sha256"):
            return source
    if base.get("published"):
        return resolve_all({trial.model: "auto"}, trial.scale)[trial.model]
    raise UserError(
        f"the {title} weights {source} (SHA-256 {str(base.get('sha256'))[:12]}), on which this model was trained, are"
        " not on this machine; give --weights PATH"
    )


def _refuse_other_base(network: RudimentClassifier, base: Mapping[str, Any], model: Path, path: str) -> None:
    wanted, found = str(base.get("fingerprint", "")), network.base_fingerprint
    if found == wanted:
        return
    remedy = "give --weights PATH with the weights on which it was trained"
    if path == RANDOM:  # another version of torch may draw other numbers
        remedy = "export it with --merged on the machine where it was trained"
    raise UserError(f"{model} was trained on other base weights ({wanted[:12]}) than {path} ({found[:12]}); {remedy}")


def _refuse_other_features(network: RudimentClassifier, config: ModelConfig, directory: Path) -> None:
    used = network.backbone.frontend.contract
    if differences := used.differences(dataclasses.asdict(config.front_end)):
        raise UserError(
            f"{directory / model_folder.CONFIG}: front_end differs from that of {network.backbone.spec.title} here "
            f"({', '.join(differences)}); use the version of sousaphone that exported the model, or export it again"
        )
