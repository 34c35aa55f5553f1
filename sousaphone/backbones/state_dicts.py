"""Helpers of the weights loaders: read a torch file without executing code, and report tensors that do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.backbones.frontend_spec import FrontendOverrides
from sousaphone.errors import UserError
from sousaphone.text import first_few


def read_torch_file(path: Path, remedy: str) -> Any:
    """Read a torch file of tensors and plain data; code in it is never executed. Raises a UserError that ends with
    `remedy` if the file is missing, damaged or of another kind."""
    if not path.is_file():
        raise UserError(f"{path} is not a file; {remedy}")
    try:
        with warnings.catch_warnings():  # about unusual pickles
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling arbitrary bytes can raise anything
        raise UserError(
            f"{path} is not a torch file of plain tensors, or damaged ({type(error).__name__}); {remedy}"
        ) from error


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Names of the tensors in which a file differs from a network, by kind of difference."""
    return {
        "missing": wanted.keys() - state.keys(),
        "unknown": state.keys() - wanted.keys(),
        "of another shape": {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape},
    }


def refuse_misfits(what: str, names_by_kind: Mapping[str, Collection[str]], remedy: str = "") -> None:
    """Raise a UserError that lists the first few names of each kind, if there are any; see `misfits`."""
    kinds = [f"{kind}: {first_few(sorted(names), 5)}" for kind, names in names_by_kind.items() if names]
    if kinds:
        raise UserError("; ".join([what, *kinds, *([remedy] if remedy else [])]))


def refuse_other_features(
    spec: BackboneSpec, path: Path, stated: Mapping[str, Any], overrides: FrontendOverrides
) -> tuple[str, ...]:
    """The differences between the features that weights were trained on (`stated` in their files, as fields of
    FrontendContract) and those of the front end; raises a UserError unless `overrides` accepts them."""
    differences = spec.frontend.differences(stated)
    if differences and spec.name not in overrides.mismatch:
        raise UserError(
            f"{path} was trained on other features than {spec.title}'s front end computes: {', '.join(differences)}; "
            f"give weights trained on these, or accept it with --set frontend_mismatch={spec.name}, which the report "
            "will note"
        )
    return differences
