"""PEFT's LoRA layers in fewer passes over memory, which is what an adapter waits for: in float32 on a CPU, and over a
layer in bfloat16 on CUDA (lora_cuda.py).

The same products and the same dropout (Hu et al., arXiv 2106.09685), with three differences: the adapter's share is
added where the layer's output lies instead of in a tensor of its own; dropout draws sixteen bits a number, at a sixth
of the cost of a Bernoulli sample; and where nothing trains on a CPU, weight and adapter are added before the product.
Everywhere else, and in everything else that a layer can do, PEFT's own forward runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import layer as peft_layer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sousaphone.kernels import lora_cuda
from sousaphone.kernels.dispatch import HasFusedPath, kernels_for
from sousaphone.kernels.lora_cuda import LEVELS

_MOST_RANKS = 64  # that the kernels have room for on every card


class _Fused(HasFusedPath):
    """What both kinds of layer ask of themselves."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float, float] | None:
        """Weight, bias, A, B, scale and the share that dropout takes; None where PEFT's own forward is to run."""
        layer: Any = self
        if not self.fused or not _is_fused(x) or torch.is_autocast_enabled(x.device.type):
            return None
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
            return None
        (name,), base = layer.active_adapters, layer.get_base_layer()
        if base.weight.requires_grad or base.weight.dtype != x.dtype or layer.use_dora[name]:
            return None
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        if x.is_cuda and len(a) > _MOST_RANKS:
            return None
        dropout = layer.lora_dropout[name]
        share = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        return base.weight, base.bias, a, b, layer.scaling[name], share


class FusedLinear(_Fused, peft_layer.Linear):
    """[..., I] to [..., O]."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        parts = None if args or kwargs else self.parts(x)
        if parts is None:
            peft: Tensor = super().forward(x, *args, **kwargs)
            return peft
        weight, bias, a, b, scale, share = parts
        if x.is_cuda:
            return lora_cuda.fan(x, [(weight, bias, a, b)], scale, share)[0]
        if not torch.is_grad_enabled() and not share:
            return nn.functional.linear(x, torch.addmm(weight, b, a, alpha=scale), bias)
        y: Tensor = _Rows.apply(x, weight, bias, a, b, scale, share)
        return y

    def beside(self, others: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, ...] | None:
        """What this one and the others make of the same x; None where that is to be done one after the other."""
        layers = [self, *others]
        if not x.is_cuda or not all(isinstance(layer, FusedLinear) for layer in layers):
            return None
        parts = [layer.parts(x) for layer in layers if isinstance(layer, FusedLinear)]
        known = [one for one in parts if one is not None]
        # They must agree in rank, scale and dropout.
        if len(known) < len(layers) or len({(len(a), scale, share) for _, _, a, _, scale, share in known}) > 1:
            return None
        *_, scale, share = known[0]
        return lora_cuda.fan(x, [one[:4] for one in known], scale, share)


class FusedConv2d(_Fused, peft_layer.Conv2d):
    """[B, C, H, W] to [B, O, H, W], through a kernel of one place."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.get_base_layer()
        pointwise = base.kernel_size == base.stride == (1, 1) and base.groups == 1 and base.padding == (0, 0)
        parts = self.parts(x) if pointwise and base.bias is None and not args and not kwargs else None
        if parts is None:
            peft: Tensor = super().forward(x, *args, **kwargs)
            return peft
        weight, _, a, b, scale, share = parts
        weight, a, b = weight.flatten(1), a.flatten(1), b.flatten(1)
        if x.is_cuda:  # channels last there, so that places are rows already
            (y,) = lora_cuda.fan(x.permute(0, 2, 3, 1), [(weight, None, a, b)], scale, share)
            return y.permute(0, 3, 1, 2)
        maps = x.flatten(2)  # [B, C, P]
        if not torch.is_grad_enabled() and not share:
            y = torch.bmm(_each(torch.addmm(weight, b, a, alpha=scale), maps), maps)
        else:
            y = _Maps.apply(maps, weight, a, b, scale, share)
        return y.unflatten(2, x.shape[2:])


def drop(x: Tensor, share: float) -> tuple[Tensor, Tensor | None, float]:
    """`x` with about `share` of its numbers zero, not rescaled; 1 where one was kept, uint8; and what rescales it."""
    level = round(share * LEVELS)
    if not level:
        return x, None, 1.0
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    # Written as a byte at once: a comparison's own bool takes four times as long to make, and to multiply with.
    kept = torch.ge(bits, level - LEVELS // 2, out=torch.empty(x.shape, dtype=torch.uint8))
    return x * kept, kept, LEVELS / (LEVELS - level)


class _Rows(torch.autograd.Function):
    """x W' + bias + scale * drop(x) A' B', row by row; nothing is passed back to the frozen weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, share: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [N, I]
        y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        heard, kept, louder = drop(rows, share)
        inner = heard @ a.T  # [N, r]
        y.addmm_(inner, b.T, alpha=scale * louder)
        ctx.save_for_backward(heard, kept, inner, weight, a, b)
        ctx.scale = scale * louder
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heard, kept, inner, weight, a, b = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])  # [N, O]
        grad_inner = (rows @ b).mul_(ctx.scale)  # [N, r]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_inner @ a  # [N, I]
            if kept is not None:
                grad_x.mul_(kept)
            grad_x = grad_x.addmm_(rows, weight).view(*grad.shape[:-1], -1)
        return grad_x, None, None, grad_inner.T @ heard, (rows.T @ inner).mul_(ctx.scale), None, None


class _Maps(torch.autograd.Function):
    """The same of [B, C, P], place by place, without a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, share: float) -> Tensor:
        heard, kept, louder = drop(x, share)
        inner = torch.bmm(_each(a, x), heard)  # [B, r, P]
        y = torch.bmm(_each(weight, x), x).baddbmm_(_each(b, x), inner, alpha=scale * louder)
        ctx.save_for_backward(heard, kept, inner, weight, a, b)
        ctx.scale = scale * louder
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heard, kept, inner, weight, a, b = ctx.saved_tensors
        grad_inner = torch.bmm(_each(b.T, grad), grad).mul_(ctx.scale)  # [B, r, P]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.bmm(_each(a.T, grad), grad_inner)  # [B, C, P]
            if kept is not None:
                grad_x.mul_(kept)
            grad_x = grad_x.baddbmm_(_each(weight.T, grad), grad)
        grad_a = torch.bmm(grad_inner, heard.transpose(1, 2)).sum(0)
        grad_b = torch.bmm(grad, inner.transpose(1, 2)).sum(0).mul_(ctx.scale)
        return grad_x, None, grad_a, grad_b, None, None


def _is_fused(x: Tensor) -> bool:
    """Whether there is a short way for such numbers on such a device."""
    if x.device.type == "cpu":
        return x.dtype == torch.float32
    return kernels_for(x) is not None


def _each(matrix: Tensor, maps: Tensor) -> Tensor:
    """One matrix for every clip of a batch; `@` would lay all maps out anew to make one product of them."""
    return matrix.expand(len(maps), -1, -1)
