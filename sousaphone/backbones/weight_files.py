"""What all loaders of weights files share: reading a torch file without running it, and saying what does not fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

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
