"""The format of a model folder: its config.json, its tensors, and how it is written.

    config.json                   what is needed to rebuild the model and to read its answers (`ModelConfig`)
    adapter_config.json           kind 'adapter': the adapter in PEFT's format,
    adapter_model.safetensors       over base weights that are not in the folder
    model.safetensors             kind 'merged': all tensors
    model.onnx, model.int8.onnx   optional: graphs of the whole model, see `onnx_graph`
    NAME/                         kind 'ensemble': one model folder per member, whose probabilities are averaged
    README.md, results.json       the model card, and the measured results

A folder may come from anybody: config.json is validated, tensors are read from safetensors files only, and nothing in a
folder is executed.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Ge, Gt, Le, Len
from torch import Tensor

from sousaphone.backbones.frontend_spec import FrontendContract
from sousaphone.backbones.state_dicts import misfits, refuse_misfits
from sousaphone.config import TrainConfig
from sousaphone.deploy.onnx_session import GRAPHS
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, expanded
from sousaphone.runs import schema
from sousaphone.text import first_few, one_line
from sousaphone.training import tensor_files

FORMAT, VERSION = "sousaphone-model", 1  # raise VERSION with every change; a new field needs a default
CONFIG, RESULTS, CARD = "config.json", "results.json", "README.md"
ADAPTER_CONFIG, ADAPTER, MERGED = "adapter_config.json", "adapter_model.safetensors", "model.safetensors"
FILES = (CONFIG, RESULTS, CARD, ADAPTER_CONFIG, ADAPTER, MERGED, *GRAPHS.values())
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
# Fields of a trial's configuration that define the network and how it computes.
ARCHITECTURE = (
    *("model", "scale", "strategy", "lora_targets", "lora_r", "lora_alpha", "lora_dropout", "head_dropout"),
    *("clip_seconds", "efficientat_hop", "frontend_mismatch", "seed", "precision"),
)

_Fraction = Annotated[float, Ge(0), Le(1)]
_Temperature = Annotated[float, Gt(0), Le(1e6)]


@dataclass(frozen=True)
class Threshold:
    """A confidence below which answers are 'undecided', and its effect on the validation clips."""

    __pydantic_config__ = schema.STRICT
    most_error: _Fraction  # allowed fraction of wrong ones among the answers that are given
    confidence: _Fraction  # lowest confidence of an answer; 1 if no threshold meets `most_error`
    coverage: _Fraction  # measured: fraction of clips with an answer
    error: _Fraction | None  # measured: fraction of wrong ones among them; None without answers
    clips: schema.Count  # validation clips


@dataclass(frozen=True)
class Calibration:
    """Calibration of the model's confidence on the validation clips; None means not measured."""

    __pydantic_config__ = schema.STRICT
    temperature: _Temperature | None = None  # of a single window's logits
    averaged_temperature: _Temperature | None = None  # of logits averaged over windows
    undecided_below: _Fraction | None = None  # the default threshold, one of `thresholds`
    thresholds: Annotated[tuple[Threshold, ...], Len(0, 100)] | None = None


@dataclass(frozen=True)
class ModelConfig:
    """The content of config.json."""

    __pydantic_config__ = schema.STRICT
    kind: Literal["adapter", "merged", "ensemble"]
    architecture: dict[schema.Text, schema.Scalar]  # the fields of TrainConfig in `ARCHITECTURE`
    classes: Annotated[tuple[schema.Id, ...], Len(2, 10_000)]  # in the order of the logits
    sample_rate: Annotated[int, Ge(1_000), Le(400_000)]  # Hz
    clip_seconds: Annotated[float, Gt(0), Le(60)]  # length of a window
    front_end: FrontendContract
    base_weights: Annotated[dict[str, Any], schema.WEIGHTS]  # see `sousaphone.weights.record_of`
    calibration: Calibration = field(default_factory=Calibration)
    members: Annotated[tuple[schema.Id, ...], Len(0, 100)] = ()  # folders of an ensemble
    trained: dict[schema.Text, schema.Scalar] = field(default_factory=dict)  # run, trial, data and its fingerprint
    licences: dict[schema.Text, schema.Text | None] = field(default_factory=dict)
    software: dict[schema.Text, schema.Text | None] = field(default_factory=dict)
    format: Literal["sousaphone-model"] = "sousaphone-model"
    version: Annotated[int, Ge(1)] = VERSION

    def __post_init__(self) -> None:
        if (self.kind == "ensemble") != bool(self.members) or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"kind {self.kind} with {len(self.members)} members and {len(set(self.classes))} classes")
        if len(set(self.members)) < len(self.members):
            raise ValueError(f"members has a folder twice: {first_few(self.members)}")
        if self.sample_rate != self.front_end.sample_rate:
            raise ValueError(f"sample_rate {self.sample_rate} is not that of front_end, {self.front_end.sample_rate}")
        if self.trial().clip_seconds != self.clip_seconds:
            raise ValueError(f"clip_seconds {self.clip_seconds} is not that of the architecture")

    def trial(self, **changes: Any) -> TrainConfig:
        """The configuration that builds the network; raises a UserError for an invalid architecture."""
        known = {name: value for name, value in self.architecture.items() if name in ARCHITECTURE}
        return TrainConfig(**{**known, **changes})

    @property
    def graph_metadata(self) -> dict[str, str]:
        """The metadata by which an ONNX graph belongs to this config.json, see `onnx_graph`."""
        origin = f"{self.trained.get('run')}/{self.trained.get('trial')}"
        numbers = {"sample_rate": str(self.sample_rate), "clip_seconds": str(self.clip_seconds)}
        return {"classes": json.dumps(self.classes), **numbers, "origin": origin}

    def write(self, directory: Path) -> None:
        (directory / CONFIG).write_text(as_json(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read config.json of this or an earlier version of the format; raises a UserError if that fails."""
        path = directory / CONFIG
        if not path.is_file():
            raise UserError(
                f"{directory} is not a model folder: it has no {CONFIG}; give one that `sousaphone export` wrote"
            )
        try:
            about = schema.read(path, schema.fields(format=Any, version=Any))
            if about.get("format") != FORMAT:
                raise UserError(f"{path} is not of a model folder: its format is {about.get('format')!r:.40}")
            version = about.get("version")
            if isinstance(version, int) and version > VERSION:
                raise UserError(f"{path} has version {version} of the format, later than {VERSION}; update sousaphone")
            config: Self = schema.read(path, cls)
        except UserError:
            raise
        except (ValueError, OSError) as error:
            raise UserError(f"{one_line(error, 400)}; export the model again, or copy the folder again") from None
        return config


def as_json(content: Any) -> str:
    """Return the text of a JSON file of a model folder."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def refuse_pickles(directory: Path) -> None:
    """Raise a UserError if a folder contains a file that could be a pickle."""
    found = sorted(path.name for path in directory.iterdir() if path.suffix.lower() in PICKLES)
    if found:
        raise UserError(
            f"{directory / found[0]} may be a pickle, which can execute code; a model folder has only safetensors: "
            "remove the file if you do not need it"
        )


def read_tensors(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a safetensors file that has exactly the `wanted` names, shapes and kinds of number, all of them finite;
    raises a UserError otherwise."""
    remedy = "export the model again, or copy the folder again"
    if not path.is_file():
        raise UserError(f"{path} is missing; {remedy}")
    try:
        state = tensor_files.read(path, path.resolve().parent)  # in the hub's cache, files are links
    except ValueError as error:
        raise UserError(f"{error}; {remedy}") from None
    refuse_wrong_tensors(path, wanted, state, remedy)
    return state


def refuse_wrong_tensors(path: Path, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], remedy: str) -> None:
    """Raise a UserError unless tensors of a file have exactly the `wanted` names, shapes and kinds of number, and are
    finite."""
    kinds = misfits(wanted, state)
    known = wanted.keys() & state.keys()
    kinds["of another type"] = {n for n in known if wanted[n].is_floating_point() != state[n].is_floating_point()}
    kinds["not finite"] = {n for n in known if not bool(torch.isfinite(state[n]).all())}
    refuse_misfits(f"{path} does not fit its model", kinds, remedy)


@contextmanager
def new_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary directory next to `target`, which gets that name at the end of the block.

    Raises a UserError if `target` is a file or not empty, or cannot be written. With `overwrite`, an existing model
    folder without other files is replaced. A link is followed.
    """
    final = Path(os.path.realpath(expanded(target)))  # of a link, the directory that it leads to
    if final.exists() and not final.is_dir():
        raise UserError(f"{target} is a file; give a new directory")
    if not final.exists() and (left := next(final.parent.glob(f".{glob.escape(final.name)}.*.old"), None)):
        left.rename(final)  # a kill between the two renames below left the former model under that name
    replaces = final.is_dir() and any(final.iterdir())
    if replaces and not overwrite:
        raise UserError(f"{target} is not empty; give a new directory, or --overwrite to replace a model folder")
    if replaces and _format(final) != FORMAT:
        raise UserError(f"{target} is not a model folder, and --overwrite replaces nothing else; give a new directory")
    if replaces and (other := _other_file(final)):
        raise UserError(f"{other} is not of a model folder; move it away, or give a new directory")
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(final, aside=old if replaces else None) as temporary:
            temporary.mkdir()
            yield temporary
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror or error}); give another directory") from error
    finally:
        if old.exists() and final.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(final)


def _other_file(directory: Path) -> Path | None:
    """Return a file or directory that `export` has not written, which may be the user's own."""
    for path in sorted(directory.rglob("*")):
        if not ((path / CONFIG).is_file() if path.is_dir() and not path.is_symlink() else path.name in FILES):
            return path
    return None


def _format(directory: Path) -> Any:
    with suppress(ValueError, OSError):
        return schema.read(directory / CONFIG, schema.fields(format=Any)).get("format")
    return None
