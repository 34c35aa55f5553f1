"""What all loaders of weights files share: reading a torch file without running it, and saying what does not fit."""

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

_SHOWN = 5


def read_torch_file(path: Path, remedy: str) -> Any:
    """The content of a torch file that holds tensors and plain data only; no code in it is ever run.

    Raises:
        UserError: it is no such file, or damaged; the message ends with `remedy`.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; {remedy}")
    try:
        with warnings.catch_warnings():  # of its own about odd pickles: what matters becomes an error of ours
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # The unpickler meets arbitrary bytes here and can fail in any way at all.
    except Exception as error:
        raise UserError(
            f"{path} is not a torch file of plain tensors, or damaged ({type(error).__name__}); {remedy}"
        ) from error


def misfits(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Names of the tensors of a file that do not fit those of a network, by what is wrong with them."""
    return {
        "missing": wanted.keys() - state.keys(),
        "unknown": state.keys() - wanted.keys(),
        "of another shape": {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape},
    }


def refuse_misfits(what: str, amiss: Mapping[str, Collection[str]], remedy: str = "") -> None:
    """
    Args:
        amiss: names of tensors by what is wrong with them; see `misfits`.

    Raises:
        UserError: a tensor is amiss; the message lists the first few of each kind.
    """
    kinds = [
        f"{kind}: {', '.join(sorted(names)[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for kind, names in amiss.items()
        if names
    ]
    if kinds:
        raise UserError("; ".join([f"{what}; {'; '.join(kinds)}", *([remedy] if remedy else [])]))


def refuse_other_features(
    spec: BackboneSpec, path: Path, stated: Mapping[str, Any], overrides: FrontendOverrides
) -> tuple[str, ...]:
    """In what the features that weights were trained on differ from those that the backbone will hear.

    Args:
        stated: what the files say of them, as fields of FrontendContract.

    Raises:
        UserError: in anything, unless it was asked for by the backbone's name.
    """
    differences = spec.frontend.differences(stated)
    if differences and spec.name not in overrides.mismatch:
        raise UserError(
            f"{path} was trained on other features than {spec.title}'s front end computes: {', '.join(differences)}; "
            f"give weights that were trained on these, or accept it with --set frontend_mismatch={spec.name}, and the "
            "report will say so"
        )
    return differences
