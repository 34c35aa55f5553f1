"""Operations shared by Transformer layers, each with a fused path on CUDA for frozen weights in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.kernels.dispatch import kernels_for


def to_heads(x: Tensor, heads: int, *layers: Any) -> list[Tensor]:
    """Apply each layer to x [B, L, D] and split by heads: [B, H, L, D / H]; `fused_with`, if present, fuses them."""
    first, *others = layers
    ys: tuple[Tensor, ...] | None = first.fused_with(others, x) if hasattr(first, "fused_with") else None
    each = [layer(x) for layer in layers] if ys is None else ys
    return [y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in each]


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float, scale: float) -> Tensor:
    """Attention of queries [B, H, Q, D / H] to keys and values [B, H, L, D / H], which returns [B, H, Q, D / H]."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:  # torch's fused attention takes three times as long
        return F.dropout(((q * scale) @ k.transpose(-1, -2)).softmax(-1), dropout) @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scale)


def add_norm(x: Tensor, y: Tensor, norm: nn.LayerNorm, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return alpha * x + y [..., D], and the norm of it."""
    kernels = kernels_for(y) if x.dtype == y.dtype == norm.weight.dtype and not norm.weight.requires_grad else None
    if kernels is not None:
        both: tuple[Tensor, Tensor] = kernels.add_norm(x, y, alpha, norm.weight, norm.bias, norm.eps)
        return both
    total = torch.add(y, x, alpha=alpha)
    return total, norm(total)
