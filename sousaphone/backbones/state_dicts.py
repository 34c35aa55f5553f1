"""What all loaders of weights files share: reading a torch file without running it, and saying what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from sousaphone.backbones.frontend_spec import FrontendChoice
from sousaphone.backbones.spec import BackboneSpec
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


def refuse_misfits(what: str, misfits: Mapping[str, Collection[str]], remedy: str = "") -> None:
    """Raise if any tensor is amiss, listing the first few of each kind.

    Args:
        misfits: names of tensors by what is wrong with them ('missing', 'unknown', 'of another shape').

    Raises:
        UserError: any of the collections has a member.
    """
    kinds = [
        f"{kind}: {', '.join(sorted(names)[:_SHOWN])}{' ...' if len(names) > _SHOWN else ''}"
        for kind, names in misfits.items()
        if names
    ]
    if kinds:
        raise UserError("; ".join([f"{what}; {'; '.join(kinds)}", *([remedy] if remedy else [])]))


def refuse_other_features(
    spec: BackboneSpec, path: Path, stated: Mapping[str, Any], choice: FrontendChoice
) -> tuple[str, ...]:
    """In what the features that weights were trained on differ from those that the backbone will hear.

    Args:
        stated: what the files say of them, as fields of FrontendContract.

    Raises:
        UserError: in anything, unless it was asked for by the backbone's name.
    """
    differences = spec.frontend.differences(stated)
    if differences and spec.name not in choice.mismatch:
        raise UserError(
            f"{path} was trained on other features than {spec.title}'s front end computes: {', '.join(differences)}; "
            f"give weights that were trained on these, or accept it with --set frontend_mismatch={spec.name}, and the "
            "report will say so"
        )
    return differences
