"""Triton kernels for bfloat16 on CUDA, for what waits for memory rather than for arithmetic: the adapters of LoRA, and
what stands between the large products of a Transformer.

Each does all that it can while it has its numbers. Dropout is a function of (seed, row, column) that is computed anew
wherever it is wanted: neither a mask nor a dropped copy is ever written. Sums are of a fixed order, the same numbers
every time: whoever holds a part of a sum leaves it, and the parts are added afterwards.

All of them run under Triton's interpreter as well, which is how they are tested without a GPU; there in float32, since
it knows no products of bfloat16.
"""

# A kernel's arguments are pointers and numbers of Triton's, its constants are written large.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

_HALF = 32  # rows; a row and the one so many after it share a random number of 32 bits
_MOST_SUMS = 1024  # programs that leave a part of a sum each


@triton.jit
def _words(seed, group, pairs, columns, width):
    """A random word for each (pair of rows, column), others for each group: a random affine map, then a finaliser of
    good avalanche."""
    index = pairs.to(tl.uint32)[:, None] * width + columns.to(tl.uint32)[None, :]
    odd = (seed >> 32).to(tl.uint32) | 1
    h = index * odd + (seed & 0xFFFFFFFF).to(tl.uint32) + tl.cast(group, tl.uint32) * 0x9E3779B9
    h ^= h >> 16
    h *= 0x7FEB352D
    h ^= h >> 15
    h *= 0x846CA68B
    h ^= h >> 16
    return h


@triton.jit
def _drop(x, words, half, level):
    """`x` with zeros where the first (0) or second (1) row of each pair is dropped: by the high or the low half of its
    word, below `level` of 65,536."""
    draws = words if half == 0 else words << 16
    return tl.where(draws >= (tl.cast(level, tl.uint32) << 16), x, 0.0)


@triton.jit
def _tile(base, first, count: tl.constexpr, column, rows, width):
    """Of a matrix [rows, width], `count` rows from `first` on: where they lie, and what of them is inside."""
    line = tl.arange(0, count)
    # One long number for all of them: each with its own would fill the registers.
    place = base + tl.cast(first, tl.int64) * width + (line[:, None] * width + column[None, :])
    return place, (first + line < rows)[:, None] & (column < width)[None, :]


@triton.jit
def _to_rank(
    x, m, out, seed, rows, width, rank, all_ranks, scale, level,
    DROP: tl.constexpr, GROUPS: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, block = tl.program_id(0) % GROUPS, tl.program_id(0) // GROUPS  # side by side they share what they read
    first = block * 2 * HALF
    upper = tl.zeros((HALF, RANK), dtype=tl.float32)
    lower = tl.zeros((HALF, RANK), dtype=tl.float32)
    r = tl.arange(0, RANK)
    drawn = tl.load(seed) if DROP else 0
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        place, inside = _tile(x, first, HALF, column, rows, width)
        a = tl.load(place, mask=inside, other=0.0)
        place, inside = _tile(x, first + HALF, HALF, column, rows, width)
        b = tl.load(place, mask=inside, other=0.0)
        place, inside = _tile(m, group * rank, RANK, column, (group + 1) * rank, width)
        w = tl.trans(tl.load(place, mask=inside, other=0.0).to(x.dtype.element_ty))
        if DROP:
            words = _words(drawn, group, block * HALF + tl.arange(0, HALF), column, width)
            a = _drop(a, words, 0, level)
            b = _drop(b, words, 1, level)
        upper += tl.dot(a, w)
        lower += tl.dot(b, w)
    known = (r < rank)[None, :]
    place, inside = _tile(out + group * rank, first, HALF, r, rows, all_ranks)
    tl.store(place, (upper * scale).to(out.dtype.element_ty), mask=inside & known)
    place, inside = _tile(out + group * rank, first + HALF, HALF, r, rows, all_ranks)
    tl.store(place, (lower * scale).to(out.dtype.element_ty), mask=inside & known)


@triton.jit
def _from_rank(
    y, k, m, seed, rows, width, rank, by_row, by_rank, by_width, scale, level,
    DROP: tl.constexpr, GROUPS: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    kind = y.dtype.element_ty
    upper = tl.zeros((HALF, BLOCK), dtype=tl.float32)
    lower = tl.zeros((HALF, BLOCK), dtype=tl.float32)
    drawn = tl.load(seed) if DROP else 0
    first, r = block * 2 * HALF, tl.arange(0, RANK)
    for group in tl.static_range(GROUPS):
        known = (r < rank)[:, None] & (column < width)[None, :]
        place = m + (group * rank + r)[:, None] * by_rank + column[None, :] * by_width
        w = tl.load(place, mask=known, other=0.0).to(kind)
        known = (r < rank)[None, :]
        place, inside = _tile(k + group * rank, first, HALF, r, rows, by_row)
        a = tl.dot(tl.load(place, mask=inside & known, other=0.0), w)
        place, inside = _tile(k + group * rank, first + HALF, HALF, r, rows, by_row)
        b = tl.dot(tl.load(place, mask=inside & known, other=0.0), w)
        if DROP:
            words = _words(drawn, group, block * HALF + tl.arange(0, HALF), column, width)
            a = _drop(a, words, 0, level)
            b = _drop(b, words, 1, level)
        upper += a
        lower += b
    place, inside = _tile(y, first, HALF, column, rows, width)
    tl.store(place, (tl.load(place, mask=inside, other=0.0).to(tl.float32) + upper * scale).to(kind), mask=inside)
    place, inside = _tile(y, first + HALF, HALF, column, rows, width)
    tl.store(place, (tl.load(place, mask=inside, other=0.0).to(tl.float32) + lower * scale).to(kind), mask=inside)


@triton.jit
def _over_rows(
    k, x, parts, seed, rows, width, rank, all_ranks, across, blocks_each, scale, level,
    DROP: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, chunk = tl.program_id(0) // across, tl.program_id(1)
    column = (tl.program_id(0) % across) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((RANK, BLOCK), dtype=tl.float32)
    drawn = tl.load(seed) if DROP else 0
    r = tl.arange(0, RANK)
    for block in range(chunk * blocks_each, (chunk + 1) * blocks_each):
        if DROP:
            words = _words(drawn, group, block * HALF + tl.arange(0, HALF), column, width)
        for half in tl.static_range(2):
            first = (block * 2 + half) * HALF
            row = first + tl.arange(0, HALF)
            known = (r < rank)[:, None] & (row < rows)[None, :]
            inner = tl.load(k + row[None, :] * all_ranks + (group * rank + r)[:, None], mask=known, other=0.0)
            place, inside = _tile(x, first, HALF, column, rows, width)
            heard = tl.load(place, mask=inside, other=0.0)
            if DROP:
                heard = _drop(heard, words, half, level)
            total += tl.dot(inner, heard)
    place, inside = _tile(parts, chunk * all_ranks + group * rank, RANK, column, 1 << 30, width)
    tl.store(place, total * scale, mask=inside & (r < rank)[:, None])


@triton.jit
def _add_norm(
    x, y, weight, bias, total, out, means, rates, rows, width, alpha, epsilon, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    first, column = tl.program_id(0) * ROWS, tl.arange(0, BLOCK)
    row = first + tl.arange(0, ROWS)
    kind = total.dtype.element_ty
    place, inside = _tile(x, first, ROWS, column, rows, width)
    s = tl.load(place, mask=inside, other=0.0).to(tl.float32) * alpha
    place, inside = _tile(y, first, ROWS, column, rows, width)
    s += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    place, inside = _tile(total, first, ROWS, column, rows, width)
    tl.store(place, s.to(kind), mask=inside)
    s = s.to(kind).to(tl.float32)  # of what is kept, which is all that the way back knows
    mean = tl.sum(s, 1) / width
    away = tl.where(inside, s - mean[:, None], 0.0)
    rate = 1.0 / tl.sqrt(tl.sum(away * away, 1) / width + epsilon)
    tl.store(means + row, mean, mask=row < rows)
    tl.store(rates + row, rate, mask=row < rows)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)
    place, inside = _tile(out, first, ROWS, column, rows, width)
    tl.store(place, (away * rate[:, None] * w[None, :] + b[None, :]).to(kind), mask=inside)


@triton.jit
def _add_norm_gradients(
    grad, through, total, weight, means, rates, grad_y, grad_x, rows, width, alpha,
    THROUGH: tl.constexpr, TWO: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, column = tl.program_id(0) * ROWS, tl.arange(0, BLOCK)
    row = first + tl.arange(0, ROWS)
    kind = grad.dtype.element_ty
    mean = tl.load(means + row, mask=row < rows, other=0.0)
    rate = tl.load(rates + row, mask=row < rows, other=0.0)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    place, inside = _tile(total, first, ROWS, column, rows, width)
    there = (tl.load(place, mask=inside, other=0.0).to(tl.float32) - mean[:, None]) * rate[:, None]
    there = tl.where(inside, there, 0.0)
    place, inside = _tile(grad, first, ROWS, column, rows, width)
    g = tl.load(place, mask=inside, other=0.0).to(tl.float32) * w[None, :]
    g = rate[:, None] * (g - (tl.sum(g, 1) / width)[:, None] - there * (tl.sum(g * there, 1) / width)[:, None])
    if THROUGH:
        place, inside = _tile(through, first, ROWS, column, rows, width)
        g += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    place, inside = _tile(grad_y, first, ROWS, column, rows, width)
    tl.store(place, g.to(kind), mask=inside)
    if TWO:
        place, inside = _tile(grad_x, first, ROWS, column, rows, width)
        tl.store(place, (g * alpha).to(kind), mask=inside)


def to_rank(x: Tensor, a: Tensor, scale: float, seed: Tensor | None = None, level: int = 0, groups: int = 1) -> Tensor:
    """`scale` * drop(x) a': bfloat16 [N, C] and float32 [r, C] to bfloat16 [N, r].

    Args:
        seed: int64 [1] that dropout is drawn from; None: nothing is dropped.
        level: of 65,536, how many are dropped. What is kept is not rescaled.
        groups: so many adapters, one below the other in `a`, each with a dropout of its own.
    """
    (rows, width), ranks = x.shape, len(a)
    rank = ranks // groups
    out = x.new_empty(rows, ranks)
    _to_rank[(groups * triton.cdiv(rows, 2 * _HALF),)](
        x, a, out, x if seed is None else seed, rows, width, rank, ranks, scale, level,
        DROP=seed is not None, GROUPS=groups, RANK=_padded(rank), HALF=_HALF, BLOCK=_block(width, 64),
    )  # fmt: skip
    return out


def from_rank(
    y: Tensor, k: Tensor, m: Tensor, scale: float = 1.0, seed: Tensor | None = None, level: int = 0, groups: int = 1
) -> Tensor:
    """y + `scale` * drop(k m) in place: bfloat16 [N, C] and [N, r], float32 [r, C].

    Args:
        k: its rows may lie apart.
        m: of any strides.
        seed, level, groups: as in `to_rank`.
    """
    (rows, width), rank = y.shape, len(m) // groups
    block = _block(width, 128 if groups == 1 else 64)
    _from_rank[(triton.cdiv(rows, 2 * _HALF), triton.cdiv(width, block))](
        y, k, m, y if seed is None else seed, rows, width, rank, k.stride(0), m.stride(0), m.stride(1), scale, level,
        DROP=seed is not None, GROUPS=groups, RANK=_padded(rank), HALF=_HALF, BLOCK=block,
    )  # fmt: skip
    return y


def over_rows(
    k: Tensor, x: Tensor, scale: float, seed: Tensor | None = None, level: int = 0, groups: int = 1
) -> Tensor:
    """`scale` * k' drop(x): bfloat16 [N, r] and [N, C] to float32 [r, C]; seed, level, groups as in `to_rank`."""
    (rows, width), ranks = x.shape, k.shape[1]
    rank, block = ranks // groups, _block(width, 64)
    blocks, across = triton.cdiv(rows, 2 * _HALF), triton.cdiv(width, block)
    each = max(1, triton.cdiv(blocks * across * groups, _MOST_SUMS))
    parts = torch.empty(triton.cdiv(blocks, each), ranks, width, device=x.device, dtype=torch.float32)
    _over_rows[(across * groups, len(parts))](
        k, x, parts, x if seed is None else seed, rows, width, rank, ranks, across, each, scale, level,
        DROP=seed is not None, RANK=_padded(rank), HALF=_HALF, BLOCK=block,
    )  # fmt: skip
    return parts.sum(0)


class _AddNorm(torch.autograd.Function):
    """alpha * x + y [N, D] and its layer norm; weight and bias are frozen."""

    @staticmethod
    def forward(
        ctx, x: Tensor, y: Tensor, alpha: float, weight: Tensor, bias: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        (rows, width), block = x.shape, triton.next_power_of_2(x.shape[1])
        total, out = torch.empty_like(y), torch.empty_like(y)
        means, rates = (torch.empty(rows, device=x.device, dtype=torch.float32) for _ in range(2))
        _add_norm[(triton.cdiv(rows, 2),)](
            x, y, weight, bias, total, out, means, rates, rows, width, alpha, epsilon, ROWS=2, BLOCK=block
        )
        ctx.save_for_backward(total, weight, means, rates)
        ctx.alpha = alpha
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    def backward(ctx, through: Tensor | None, grad: Tensor | None):
        total, weight, means, rates = ctx.saved_tensors
        if grad is None:
            return (None if through is None else through * ctx.alpha), through, None, None, None, None
        grad = grad.contiguous()
        through = None if through is None else through.contiguous()
        rows, width = total.shape
        grad_y, two = torch.empty_like(total), ctx.alpha != 1.0
        grad_x = torch.empty_like(total) if two else grad_y
        _add_norm_gradients[(triton.cdiv(rows, 2),)](
            grad, grad if through is None else through, total, weight, means, rates, grad_y, grad_x, rows, width,
            ctx.alpha, THROUGH=through is not None, TWO=two, ROWS=2, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
        return grad_x, grad_y, None, None, None, None


def add_norm(x: Tensor, y: Tensor, alpha: float, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """alpha * x + y, and the layer norm of that over the last axis: bfloat16 [..., D] each; x and y get gradients."""
    width = x.shape[-1]
    total, out = _AddNorm.apply(
        x.reshape(-1, width).contiguous(), y.reshape(-1, width).contiguous(), alpha, weight, bias, epsilon
    )
    return total.view(x.shape), out.view(x.shape)


def _padded(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))  # the least that a matrix unit takes


def _block(width: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(width)))


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run on this GPU: from compute capability 8.0 on, and where a C compiler is at hand."""
    try:
        if torch.cuda.get_device_capability(device) < (8, 0):
            raise RuntimeError(f"{torch.cuda.get_device_name(device)} is older than Ampere")
        x = torch.ones(1, 16, device=device, dtype=torch.bfloat16)
        to_rank(x, x.float(), 1.0)
    except torch.OutOfMemoryError:  # the trial's matter, and none of the card's
        raise
    except Exception as error:  # whatever the compiler raises: torch's and PEFT's own way is always there
        warnings.warn(f"training goes on without the project's own kernels, and slower: {error}", stacklevel=2)
        return False
    return True
