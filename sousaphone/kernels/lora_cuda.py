"""LoRA layers over a frozen one in bfloat16, on CUDA; A and B are in float32.

The products are torch's, all else is the kernels' (triton_kernels.py). What is dropped is drawn again wherever it is
asked for, so nothing but the layer's input is kept for the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sousaphone.kernels.dispatch import kernels

LEVELS = 2**16  # of the random numbers that dropout compares with

# Frozen weight and bias, A and B.
Layer = tuple[Tensor, Tensor | None, Tensor, Tensor]


def fan(x: Tensor, layers: Sequence[Layer], scale: float, share: float) -> tuple[Tensor, ...]:
    """What layers make of the same x: x W' + bias + scale * drop(x) A' B' each, bfloat16 [..., I] to [..., O].

    x passes through memory once for the adapters of all, and so does its gradient. Nothing is passed back to the
    frozen weights and biases.

    Args:
        layers: of equal rank.
        share: that dropout takes, drawn for each.
    """
    ys: tuple[Tensor, ...] = _Fan.apply(x, scale, share, *(tensor for layer in layers for tensor in layer))
    return ys


class _Fan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, share: float, *parts: Any) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1]).contiguous()  # [N, I]
        weights, biases, all_a, all_b = (parts[kind::4] for kind in range(4))
        level = round(share * LEVELS)
        seed = torch.empty(1, dtype=torch.int64, device=x.device).random_(-(2**63), None) if level else None
        scale = scale * LEVELS / (LEVELS - level)
        stacked = _joined(all_a, 0)  # [layers * r, I]
        inner = kernels().to_rank(rows, stacked, scale, seed, level, len(weights))  # [N, layers * r]
        ys = []
        for weight, bias, b, own in zip(weights, biases, all_b, inner.chunk(len(weights), 1), strict=True):
            y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
            ys.append(kernels().from_rank(y, own, b.T).view(*x.shape[:-1], -1))
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
        # Short of the scale, which what follows puts in.
        grad_inner = _joined([out @ b.to(out.dtype) for out, b in zip(outs, all_b, strict=True)], 1)
        grads_b = [(out.T @ own).float() for out, own in zip(outs, inner.chunk(count, 1), strict=True)]
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


def _joined(tensors: Sequence[Tensor], dim: int) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)
