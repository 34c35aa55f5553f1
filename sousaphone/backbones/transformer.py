"""What the layers of Transformers share, each with a short way on CUDA once what is frozen is in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sousaphone.short_ways import kernels_for


def side_by_side(layers: Sequence[Any], x: Tensor) -> tuple[Tensor, ...]:
    """What each layer makes of the same x. A layer that has a `beside` may do all of them at once."""
    first, *others = layers
    ys: tuple[Tensor, ...] | None = first.beside(others, x) if hasattr(first, "beside") else None
    return tuple(layer(x) for layer in layers) if ys is None else ys


def add_norm(x: Tensor, y: Tensor, norm: nn.LayerNorm, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """alpha * x + y [..., D], and that normalised."""
    kernels = kernels_for(y) if x.dtype == y.dtype == norm.weight.dtype and not norm.weight.requires_grad else None
    if kernels is not None:
        both: tuple[Tensor, Tensor] = kernels.add_norm(x, y, alpha, norm.weight, norm.bias, norm.eps)
        return both
    total = torch.add(y, x, alpha=alpha)
    return total, norm(total)
