"""Selection of the fused paths of modules, and of the Triton kernels (triton_kernels.py) where they are usable."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor, nn


class HasFusedPath:
    """A module with a fused path; `fused` = False selects the implementation of PEFT and torch instead."""

    fused = True


def use_fused(model: nn.Module, fused: bool) -> None:
    """Enable or disable the fused paths of all modules, to compare the two."""
    for module in model.modules():
        if isinstance(module, HasFusedPath):
            module.fused = fused


def kernels_for(x: Tensor) -> Any:
    """The module of Triton kernels if they support the type and device of a tensor, else None."""
    supported = x.is_cuda and x.dtype == torch.bfloat16 and kernels() is not None and kernels().usable(x.device)
    return kernels() if supported else None


@functools.cache
def kernels() -> Any:
    """The module of Triton kernels; None if Triton, which torch installs for CUDA on Linux, is missing."""
    installed = importlib.util.find_spec("triton") is not None
    return importlib.import_module("sousaphone.kernels.triton_kernels") if installed else None
