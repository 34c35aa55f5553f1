"""PEFT's LoRA layers with fewer passes over memory, which limit the speed of adapters: on a CPU in float32 and in
bfloat16, and over a layer in bfloat16 on CUDA (lora_cuda.py).

Products and dropout are those of PEFT (Hu et al., arXiv 2106.09685), with three differences: the output of the adapter
is accumulated in place in the output of the layer; dropout draws 16 bits per number, at a sixth of the cost of a
Bernoulli sample; and in inference in float32, weight and adapter are added before the product. In all other cases
PEFT's own forward runs.
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
from sousaphone.kernels.packed_linear import PackedWeight, can_pack, product

_KINDS = (torch.float32, torch.bfloat16)
_MAX_RANK = 64  # of the Triton kernels, on every GPU


class _Fused(HasFusedPath):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float, float] | None:
        """Weight, bias, A, B, scale and dropout probability; None if PEFT's own forward must run."""
        layer: Any = self
        supported = x.dtype in _KINDS if x.device.type == "cpu" else kernels_for(x) is not None
        if not self.fused or not supported or torch.is_autocast_enabled(x.device.type):
            return None
        if layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
            return None
        (name,), base = layer.active_adapters, layer.get_base_layer()
        if base.weight.requires_grad or base.weight.dtype != x.dtype or layer.use_dora[name]:
            return None
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        if x.is_cuda and len(a) > _MAX_RANK:
            return None
        dropout = layer.lora_dropout[name]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        return base.weight, base.bias, a, b, layer.scaling[name], p


class FusedLinear(_Fused, peft_layer.Linear):
    """A linear layer from [..., I] to [..., O]."""

    _packed: tuple[PackedWeight, PackedWeight] | None = None  # the frozen weight and its transpose

    def pack(self) -> None:
        """Keep the frozen weight, which must not change any more, in the layout of oneDNN as well, if possible."""
        weight = self.get_base_layer().weight
        self._packed = (PackedWeight(weight), PackedWeight(weight.T)) if can_pack(weight.dtype) else None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        parts = None if args or kwargs else self.parts(x)
        if parts is None:
            return super().forward(x, *args, **kwargs)
        weight, bias, a, b, scale, p = parts
        if x.is_cuda:
            return lora_cuda.fan(x, [(weight, bias, a, b)], scale, p)[0]
        if _can_merge(x, p):
            return nn.functional.linear(x, torch.addmm(weight, b, a, alpha=scale), bias)
        return LinearFunction.apply(x, weight, bias, a, b, scale, p, self._packed)

    def fused_with(self, others: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, ...] | None:
        """The outputs of this layer and others for the same input; None if they must be computed separately."""
        layers = [self, *others]
        if not x.is_cuda:
            return None
        every = [layer.parts(x) for layer in layers if isinstance(layer, FusedLinear)]
        fusable = [parts for parts in every if parts is not None]
        # The layers must have equal rank, scale and dropout.
        if len(fusable) < len(layers) or len({(len(a), scale, p) for _, _, a, _, scale, p in fusable}) > 1:
            return None
        *_, scale, p = fusable[0]
        return lora_cuda.fan(x, [parts[:4] for parts in fusable], scale, p)


class FusedConv2d(_Fused, peft_layer.Conv2d):
    """A 1 x 1 convolution from [B, C, H, W] to [B, O, H, W]."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.get_base_layer()
        pointwise = base.kernel_size == base.stride == (1, 1) and base.groups == 1 and base.padding == (0, 0)
        parts = self.parts(x) if pointwise and base.bias is None and not args and not kwargs else None
        if parts is None:
            return super().forward(x, *args, **kwargs)
        weight, _, a, b, scale, p = parts
        weight, a, b = weight.flatten(1), a.flatten(1), b.flatten(1)
        if x.is_cuda:  # in channels-last layout, so that pixels are rows
            (y,) = lora_cuda.fan(x.permute(0, 2, 3, 1), [(weight, None, a, b)], scale, p)
            return y.permute(0, 3, 1, 2)
        maps = x.flatten(2)  # [B, C, P]
        if _can_merge(x, p):
            y = torch.bmm(_expand(torch.addmm(weight, b, a, alpha=scale), maps), maps)
        else:
            y = ConvFunction.apply(maps, weight, a, b, scale, p)
        return y.unflatten(2, x.shape[2:])


def _can_merge(x: Tensor, p: float) -> bool:
    """Whether weight and adapter can be added before the product with x. In bfloat16, the sum would lose the changes
    that are smaller than half the last digit of a weight."""
    return x.dtype == torch.float32 and not torch.is_grad_enabled() and not p


def drop(x: Tensor, p: float) -> tuple[Tensor, Tensor | None, float]:
    """Set each number to zero with probability `p`, without rescaling. Return the result, a uint8 mask of the kept
    numbers (None if `p` is 0), and the factor that rescales the result."""
    level = round(p * LEVELS)
    if not level:
        return x, None, 1.0
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    # Comparison into uint8: a bool result takes four times as long to compute and to multiply with.
    kept = torch.ge(bits, level - LEVELS // 2, out=torch.empty(x.shape, dtype=torch.uint8))
    return x * kept, kept, LEVELS / (LEVELS - level)


class LinearFunction(torch.autograd.Function):
    """x W' + bias + scale * drop(x) A' B' per row, without gradients of the frozen weight and bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        p: float,
        packs: tuple[PackedWeight, PackedWeight] | None = None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # [N, I]
        if packs is not None:
            y = product(rows, packs[0], bias)
        else:
            y = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        a, b = a.to(x.dtype), b.to(x.dtype)
        dropped, kept, rescale = drop(rows, p)
        inner = dropped @ a.T  # [N, r]
        y.addmm_(inner, b.T, alpha=scale * rescale)
        ctx.save_for_backward(dropped, kept, inner, weight, a, b)
        ctx.scale, ctx.packs = scale * rescale, packs
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dropped, kept, inner, weight, a, b = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])  # [N, O]
        grad_inner = (rows @ b).mul_(ctx.scale)  # [N, r]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_inner @ a  # [N, I]
            if kept is not None:
                grad_x.mul_(kept)
            if ctx.packs is not None:
                grad_x += product(rows, ctx.packs[1])
            else:
                grad_x.addmm_(rows, weight)
            grad_x = grad_x.view(*grad.shape[:-1], -1)
        return grad_x, None, None, grad_inner.T @ dropped, (rows.T @ inner).mul_(ctx.scale), None, None, None


class ConvFunction(torch.autograd.Function):
    """The same per pixel of [B, C, P], without a bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, p: float) -> Tensor:
        a, b = a.to(x.dtype), b.to(x.dtype)
        dropped, kept, rescale = drop(x, p)
        inner = torch.bmm(_expand(a, x), dropped)  # [B, r, P]
        y = torch.bmm(_expand(weight, x), x).baddbmm_(_expand(b, x), inner, alpha=scale * rescale)
        ctx.save_for_backward(dropped, kept, inner, weight, a, b)
        ctx.scale = scale * rescale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dropped, kept, inner, weight, a, b = ctx.saved_tensors
        grad_inner = torch.bmm(_expand(b.T, grad), grad).mul_(ctx.scale)  # [B, r, P]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.bmm(_expand(a.T, grad), grad_inner)  # [B, C, P]
            if kept is not None:
                grad_x.mul_(kept)
            grad_x = grad_x.baddbmm_(_expand(weight.T, grad), grad)
        grad_a = torch.bmm(grad_inner, dropped.transpose(1, 2)).sum(0)
        grad_b = torch.bmm(grad, inner.transpose(1, 2)).sum(0).mul_(ctx.scale)
        return grad_x, None, grad_a, grad_b, None, None


def _expand(matrix: Tensor, maps: Tensor) -> Tensor:
    """Expand a matrix to the batch size; `@` would copy the maps to compute a single product."""
    return matrix.expand(len(maps), -1, -1)
