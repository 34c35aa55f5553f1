"""Operations shared by Transformer layers, with fused paths for frozen weights in bfloat16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.kernels import attention_cpu
from sousaphone.kernels.dispatch import kernels_for


def to_heads(x: Tensor, heads: int, *layers: Any) -> list[Tensor]:
    """Apply each layer to x [B, L, D] and split by heads: [B, H, L, D / H]; `fused_with`, if present, fuses them."""
    first, *others = layers
    ys: tuple[Tensor, ...] | None = first.fused_with(others, x) if hasattr(first, "fused_with") else None
    each = [layer(x) for layer in layers] if ys is None else ys
    return [y.unflatten(-1, (heads, -1)).transpose(1, 2) for y in each]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout: float,
    scale: float,
    gate: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Attention of queries [B, H, Q, D / H] to keys and values [B, H, L, D / H], which returns [B, H, Q, D / H]. A bias
    [1, H, Q, L] is added to the scores, multiplied by the gate [B, H, Q, 1] if there is one."""
    # torch's fused attention takes three times as long in bfloat16 on a CPU; its fallback for masks with gradients
    # takes half as long again as these operations.
    if (q.device.type == "cpu" and q.dtype == torch.bfloat16) or (gate is not None and q.device.type != "cuda"):
        q = q * scale
        if not dropout and attention_cpu.usable(q, k):
            return attention_cpu.attend_in_blocks(q, k, v, gate, bias)
        scores = q @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias if gate is None else torch.addcmul(scores, gate, bias)
        return F.dropout(scores.softmax(-1), dropout) @ v
    bias = gate * bias if gate is not None and bias is not None else bias
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)


def add_norm(x: Tensor, y: Tensor, norm: nn.LayerNorm, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return alpha * x + y [..., D], and the norm of it."""
    kernels = kernels_for(y) if x.dtype == y.dtype == norm.weight.dtype and not norm.weight.requires_grad else None
    if kernels is not None:
        both: tuple[Tensor, Tensor] = kernels.add_norm(x, y, alpha, norm.weight, norm.bias, norm.eps)
        return both
    total = torch.add(y, x, alpha=alpha)
    return total, norm(total)
