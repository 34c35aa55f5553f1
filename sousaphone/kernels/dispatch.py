"""Faster ways to compute the same: which modules have one, and where the Triton kernels (triton_kernels.py) can
serve."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor, nn


class HasFusedPath:
    """A module with a short way.

    Attributes:
        fused: False leaves all to PEFT and torch.
    """

    fused = True


def use_fused(model: nn.Module, fused: bool) -> None:
    """Let every module that has a short way take it, or none: to compare the two."""
    for module in model.modules():
        if isinstance(module, HasFusedPath):
            module.fused = fused


def kernels_for(x: Tensor) -> Any:
    """The module of kernels if they take such a tensor on such a device; else None."""
    if not x.is_cuda or x.dtype != torch.bfloat16 or not _has_triton():
        return None
    return kernels() if kernels().usable(x.device) else None


@functools.cache
def _has_triton() -> bool:
    """It comes with torch for CUDA on Linux; elsewhere torch's and PEFT's own ways do."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def kernels() -> Any:
    """The module, imported where it is wanted and Triton is there."""
    return importlib.import_module("sousaphone.kernels.triton_kernels")
