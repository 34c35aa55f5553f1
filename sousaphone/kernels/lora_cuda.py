"""LoRA layers over a frozen bfloat16 layer on CUDA; A and B are in float32.

torch computes the large products, Triton kernels (triton_kernels.py) everything else. The dropout mask is generated
again wherever it is needed, so only the input of the layer is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sousaphone.kernels.dispatch import kernels

LEVELS = 2**16  # of the random numbers used for dropout

# Frozen weight and bias, A and B.
Layer = tuple[Tensor, Tensor | None, Tensor, Tensor]


def fan(x: Tensor, layers: Sequence[Layer], scale: float, p: float) -> tuple[Tensor, ...]:
    """Apply layers to the same input: x W' + bias + scale * drop(x) A' B' each, from bfloat16 [..., I] to [..., O].

    The layers have equal rank; each has its own dropout mask. All adapters together read x once, and its gradient once.
    The frozen weights and biases get no gradients.
    """
    return _Fan.apply(x, scale, p, *(tensor for layer in layers for tensor in layer))


class _Fan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, p: float, *parts: Any) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1]).contiguous()  # [N, I]
        weights, biases, all_a, all_b = (parts[kind::4] for kind in range(4))
        level = round(p * LEVELS)
        seed = torch.empty(1, dtype=torch.int64, device=x.device).random_(-(2**63), None) if level else None
        scale = scale * LEVELS / (LEVELS - level)
        stacked = _concatenate(all_a, 0)  # [layers * r, I]
        inner = kernels().to_rank(rows, stacked, scale, seed, level, len(weights))  # [N, layers * r]
        ys = []
        for weight, bias, b, part in zip(weights, biases, all_b, inner.chunk(len(weights), 1), strict=True):
            y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
            ys.append(kernels().from_rank(y, part, b.T).view(*x.shape[:-1], -1))
        ctx.save_for_backward(rows, inner, stacked, seed, *weights, *all_b)
        ctx.scale, ctx.level = scale, level
        return tuple(ys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, stacked, seed, *rest = ctx.saved_tensors
        count = len(grads)
        weights, all_b = rest[:count], rest[count:]
        outs = [grad.reshape(-1, grad.shape[-1]).contiguous() for grad in grads]  # [N, O] each
        # Without the scale, which the kernels below apply.
        grad_inner = _concatenate([out @ b.to(out.dtype) for out, b in zip(outs, all_b, strict=True)], 1)
        grads_b = [(out.T @ part).float() for out, part in zip(outs, inner.chunk(count, 1), strict=True)]
        grads_a = kernels().over_rows(grad_inner, rows, ctx.scale, seed, ctx.level, count).chunk(count)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = outs[0] @ weights[0]
            for out, weight in zip(outs[1:], weights[1:], strict=True):
                grad_x.addmm_(out, weight)
            kernels().from_rank(grad_x, grad_inner, stacked, ctx.scale, seed, ctx.level, count)
            grad_x = grad_x.view(*grads[0].shape[:-1], -1)
        each = zip(grads_a, grads_b, strict=True)
        return grad_x, None, None, *(grad for a, b in each for grad in (None, None, a, b))


def _concatenate(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)
