"""The file of a trial's trained weights at the best epoch: adapters and head, or all layers under 'full'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.runs.trial_record import ADAPTER_NAME, OLDER_ADAPTER_NAME, adapter_file
from sousaphone.training import tensor_files


def write(trial: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the trained weights, atomically; they replace those of an earlier version."""
    with atomic_write(trial / ADAPTER_NAME) as temporary:
        tensor_files.write(temporary, tensors)
    (trial / OLDER_ADAPTER_NAME).unlink(missing_ok=True)


def read(trial: Path) -> dict[str, Tensor]:
    """Map the trained weights of a trial into memory, for `RudimentClassifier.load_trained_state`, which compares them
    with the model. Raise a UserError if they are missing, damaged, or lead out of the directory `trial`."""
    path = adapter_file(trial)
    if path is None:
        raise UserError(
            f"{trial} has no trained weights ({ADAPTER_NAME}); give the directory of a trial that has ended"
        )
    try:
        if path.name == ADAPTER_NAME:
            return tensor_files.read(path, trial)
        return tensor_files.as_tensors(tensor_files.read_older(path, trial), path)
    except ValueError as error:
        raise UserError(f"{error}; restore it from a copy, or train again") from error
