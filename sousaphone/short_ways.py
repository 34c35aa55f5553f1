"""Where the project's own Triton kernels (kernels.py) can take the place of torch's."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor


def kernels_for(x: Tensor) -> Any:
    """The module of kernels if they take such a tensor on such a device; else None."""
    if not x.is_cuda or x.dtype != torch.bfloat16:
        return None
    return kernels() if kernels().usable(x.device) else None


@functools.cache
def kernels() -> Any:
    """The module, imported where it is wanted: Triton comes with torch for CUDA alone."""
    return importlib.import_module("sousaphone.kernels")
