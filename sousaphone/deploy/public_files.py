"""The files of a model folder as they are published: without paths, names of players and notes of this machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Required

from annotated_types import Len

from sousaphone.deploy import model_folder
from sousaphone.deploy.model_card import Statement, model_card
from sousaphone.deploy.model_folder import ModelConfig, as_json
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.errors import UserError
from sousaphone.files import read_small
from sousaphone.runs import schema
from sousaphone.runs.deployment import DeployCard
from sousaphone.text import one_line
from sousaphone.training import tensor_files
from sousaphone.weights import RANDOM

Files = Mapping[str, Path | bytes]  # a file, or its content, by its path in the repository

_SCORES = schema.fields(
    True,
    "allow",
    player_accuracy_interval=tuple[schema.Number, schema.Number] | None,
    **dict.fromkeys(("clips", "players"), schema.Count),
    **dict.fromkeys(("accuracy", "player_accuracy", "macro_f1", "ece"), schema.Number),
)
# Other fields are not published: earlier versions stored notes, which may name players and directories.
_DATA = schema.fields(fingerprint=schema.Text | None, clips=dict[schema.Text, schema.Count] | None)
_TRIAL = schema.fields(True, "allow", data=Annotated[Any, _DATA])
_VERDICT = schema.fields(
    banner=Required[schema.Text | None],
    headline=Required[schema.Text],
    details=Required[list[schema.Text]],
    baseline=tuple[schema.Text, schema.Number] | None,
)
# results.json, which `export` wrote
_RESULTS = schema.fields(
    False,
    "allow",
    verdict=Required[Annotated[Any, _VERDICT]],
    trials=Required[Annotated[list[Annotated[Any, _TRIAL]], Len(1, 100)]],
    test_centre_window=Annotated[Any, _SCORES],
    test_averaged=Annotated[Any, _SCORES],
    deployment=DeployCard,
)


def published_files(folder: Path, config: ModelConfig, name: str, licence: str | None) -> Files:
    """Return the files of a model folder for OWNER/NAME on the hub; other files in it are left out.

    Raises:
        UserError: a file could be a pickle, or contains the user's home directory or token.
        ValueError, OSError: a file is missing or damaged, or a link out of the folder.
    """
    model_folder.refuse_pickles(folder)
    results = schema.parse(_read(folder / model_folder.RESULTS, folder), _RESULTS, model_folder.RESULTS)
    public = _published(config, licence)
    files: dict[str, Path | bytes] = {
        model_folder.CARD: _card(folder, config, public, results, name).encode(),
        model_folder.CONFIG: as_json(dataclasses.asdict(public)).encode(),
    }
    if "deployment" in results:
        card = dataclasses.replace(results["deployment"], remark="")  # which may name directories
        results["deployment"] = dataclasses.asdict(card)
    files[model_folder.RESULTS] = as_json(results).encode()
    members = {f"{member}/": folder / member for member in config.members} or {"": folder}
    for prefix, directory in members.items():
        if prefix:
            model_folder.refuse_pickles(directory)
            member = _published(ModelConfig.read(directory), licence)
            files[prefix + model_folder.CONFIG] = as_json(dataclasses.asdict(member)).encode()
        else:
            member = public
        if member.kind == "adapter":
            content = _read(directory / model_folder.ADAPTER_CONFIG, folder)
            peft = schema.parse(content, dict[str, Any], model_folder.ADAPTER_CONFIG)
            peft |= {"base_model_name_or_path": member.base_weights.get("source")}
            files[prefix + model_folder.ADAPTER_CONFIG] = as_json(peft).encode()
        tensors = model_folder.ADAPTER if member.kind == "adapter" else model_folder.MERGED
        tensor_files.read(directory / tensors, folder)  # raises a ValueError if it is damaged or leads elsewhere
        files[prefix + tensors] = directory / tensors
        for graph in GRAPHS.values():
            if (directory / graph).exists():
                tensor_files.refuse_outside(directory / graph, folder)
                files[prefix + graph] = directory / graph
    _refuse_private(files)
    return files


def base_name(base: Mapping[str, Any]) -> str:
    """The name of the file or directory of base weights."""
    return re.sub(r".*[/\\]", "", str(base.get("source", RANDOM)).rstrip("/\\"))


def _read(path: Path, folder: Path) -> bytes:
    tensor_files.refuse_outside(path, folder)
    return read_small(path)


def _published(config: ModelConfig, licence: str | None) -> ModelConfig:
    """The configuration without the path of the base weights on this machine, with the licence of the model."""
    base = {**config.base_weights, "source": base_name(config.base_weights)}
    given = {} if licence is None else {"model": licence}
    return dataclasses.replace(config, base_weights=base, licences={**config.licences, **given})


def _card(folder: Path, old: ModelConfig, new: ModelConfig, results: Mapping[str, Any], name: str) -> str:
    """The model card for this name on the hub. The text of a card that the user has edited is kept."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    text = _read(folder / model_folder.CARD, folder).decode()
    deployment: DeployCard | None = results.get("deployment")
    statement = Statement(**results["verdict"])
    title = re.search(r"^# (.*)$", text, re.MULTILINE)
    if title and text == model_card(old, results, statement, title[1], deployment):
        public = deployment and dataclasses.replace(deployment, remark="")
        return model_card(new, results, statement, name, public)
    if old.licences == new.licences:
        return text
    try:
        card: Any = ModelCard(text)
    except YAMLError as error:
        raise UserError(f"{folder / model_folder.CARD}: {one_line(error, 200)}; correct its header") from None
    card.data.license = new.licences["model"]
    return str(card)


def _refuse_private(files: Files) -> None:
    """Raise a UserError if a file names the user's home directory or contains the token."""
    from huggingface_hub import get_token

    home = str(Path.home()).rstrip("/")
    secrets = {"your home directory": home and f"{home}/", "your token": get_token()}
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        for what, secret in secrets.items():
            if secret and secret.encode() in data:
                remedy = (
                    "export the model again" if name.endswith(tuple(GRAPHS.values())) else "remove it from that file"
                )
                raise UserError(f"{name} contains {what}, which would be published; {remedy}")
