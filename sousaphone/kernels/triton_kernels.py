"""Triton kernels for bfloat16 on CUDA, for memory-bound operations: LoRA adapters, and the operations between the large
products of a Transformer.

Each kernel fuses all operations on the numbers that it loads. Dropout is a function of (seed, row, column) that is
computed again wherever it is needed, so that neither masks nor dropped copies are stored. Sums are reproducible: each
program stores a partial sum, and the partial sums are added afterwards in a fixed order.

For tests without a GPU the kernels also run in Triton's interpreter; there in float32, since the interpreter does not
support products of bfloat16.
"""

# Kernel arguments are pointers and numbers of Triton, compile-time constants are upper case.
# ruff: noqa: N803
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import warnings

import torch
import triton
import triton.language as tl
from torch import Tensor

_HALF = 32  # rows; a row and the row at this distance share a random number of 32 bits
_MAX_PARTIAL_SUMS = 1024  # programs that store a partial sum each


@triton.jit
def _words(seed, group, pairs, columns, width):
    """A random word per (group, pair of rows, column): a random affine map, then a finaliser with good avalanche."""
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
    """Set numbers of `x`, the first (`half` 0) or second (1) row of each pair, to zero where the high or low half of
    their word is below `level` of 65,536."""
    draws = words if half == 0 else words << 16
    return tl.where(draws >= (tl.cast(level, tl.uint32) << 16), x, 0.0)


@triton.jit
def _tile(base, first, count: tl.constexpr, column, rows, width):
    """Pointers to `count` rows of a matrix [rows, width] from row `first`, and a mask of those inside the matrix."""
    offset = tl.arange(0, count)
    # A single 64-bit offset for all pointers; one per pointer would exhaust the registers.
    pointers = base + tl.cast(first, tl.int64) * width + (offset[:, None] * width + column[None, :])
    return pointers, (first + offset < rows)[:, None] & (column < width)[None, :]


@triton.jit
def to_rank_kernel(
    x, m, out, seed, rows, width, rank, all_ranks, scale, level,
    DROP: tl.constexpr, GROUPS: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, block = tl.program_id(0) % GROUPS, tl.program_id(0) // GROUPS  # neighbours share their input in the cache
    first = block * 2 * HALF
    upper = tl.zeros((HALF, RANK), dtype=tl.float32)
    lower = tl.zeros((HALF, RANK), dtype=tl.float32)
    r = tl.arange(0, RANK)
    seed_value = tl.load(seed) if DROP else 0
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        pointers, inside = _tile(x, first, HALF, column, rows, width)
        a = tl.load(pointers, mask=inside, other=0.0)
        pointers, inside = _tile(x, first + HALF, HALF, column, rows, width)
        b = tl.load(pointers, mask=inside, other=0.0)
        pointers, inside = _tile(m, group * rank, RANK, column, (group + 1) * rank, width)
        w = tl.trans(tl.load(pointers, mask=inside, other=0.0).to(x.dtype.element_ty))
        if DROP:
            words = _words(seed_value, group, block * HALF + tl.arange(0, HALF), column, width)
            a = _drop(a, words, 0, level)
            b = _drop(b, words, 1, level)
        upper += tl.dot(a, w)
        lower += tl.dot(b, w)
    valid = (r < rank)[None, :]
    pointers, inside = _tile(out + group * rank, first, HALF, r, rows, all_ranks)
    tl.store(pointers, (upper * scale).to(out.dtype.element_ty), mask=inside & valid)
    pointers, inside = _tile(out + group * rank, first + HALF, HALF, r, rows, all_ranks)
    tl.store(pointers, (lower * scale).to(out.dtype.element_ty), mask=inside & valid)


@triton.jit
def from_rank_kernel(
    y, k, m, seed, rows, width, rank, k_stride, m_stride_r, m_stride_c, scale, level,
    DROP: tl.constexpr, GROUPS: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    kind = y.dtype.element_ty
    upper = tl.zeros((HALF, BLOCK), dtype=tl.float32)
    lower = tl.zeros((HALF, BLOCK), dtype=tl.float32)
    seed_value = tl.load(seed) if DROP else 0
    first, r = block * 2 * HALF, tl.arange(0, RANK)
    for group in tl.static_range(GROUPS):
        valid = (r < rank)[:, None] & (column < width)[None, :]
        pointers = m + (group * rank + r)[:, None] * m_stride_r + column[None, :] * m_stride_c
        w = tl.load(pointers, mask=valid, other=0.0).to(kind)
        valid = (r < rank)[None, :]
        pointers, inside = _tile(k + group * rank, first, HALF, r, rows, k_stride)
        a = tl.dot(tl.load(pointers, mask=inside & valid, other=0.0), w)
        pointers, inside = _tile(k + group * rank, first + HALF, HALF, r, rows, k_stride)
        b = tl.dot(tl.load(pointers, mask=inside & valid, other=0.0), w)
        if DROP:
            words = _words(seed_value, group, block * HALF + tl.arange(0, HALF), column, width)
            a = _drop(a, words, 0, level)
            b = _drop(b, words, 1, level)
        upper += a
        lower += b
    pointers, inside = _tile(y, first, HALF, column, rows, width)
    tl.store(pointers, (tl.load(pointers, mask=inside, other=0.0).to(tl.float32) + upper * scale).to(kind), mask=inside)
    pointers, inside = _tile(y, first + HALF, HALF, column, rows, width)
    tl.store(pointers, (tl.load(pointers, mask=inside, other=0.0).to(tl.float32) + lower * scale).to(kind), mask=inside)


@triton.jit
def over_rows_kernel(
    k, x, parts, seed, rows, width, rank, all_ranks, column_blocks, chunk_blocks, scale, level,
    DROP: tl.constexpr, RANK: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    group, chunk = tl.program_id(0) // column_blocks, tl.program_id(1)
    column = (tl.program_id(0) % column_blocks) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((RANK, BLOCK), dtype=tl.float32)
    seed_value = tl.load(seed) if DROP else 0
    r = tl.arange(0, RANK)
    for block in range(chunk * chunk_blocks, (chunk + 1) * chunk_blocks):
        if DROP:
            words = _words(seed_value, group, block * HALF + tl.arange(0, HALF), column, width)
        for half in tl.static_range(2):
            first = (block * 2 + half) * HALF
            row = first + tl.arange(0, HALF)
            valid = (r < rank)[:, None] & (row < rows)[None, :]
            inner = tl.load(k + row[None, :] * all_ranks + (group * rank + r)[:, None], mask=valid, other=0.0)
            pointers, inside = _tile(x, first, HALF, column, rows, width)
            values = tl.load(pointers, mask=inside, other=0.0)
            if DROP:
                values = _drop(values, words, half, level)
            total += tl.dot(inner, values)
    pointers, inside = _tile(parts, chunk * all_ranks + group * rank, RANK, column, 1 << 30, width)
    tl.store(pointers, total * scale, mask=inside & (r < rank)[:, None])


@triton.jit
def add_norm_kernel(
    x, y, weight, bias, total, out, means, rstds, rows, width, alpha, epsilon, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    first, column = tl.program_id(0) * ROWS, tl.arange(0, BLOCK)
    row = first + tl.arange(0, ROWS)
    kind = total.dtype.element_ty
    pointers, inside = _tile(x, first, ROWS, column, rows, width)
    s = tl.load(pointers, mask=inside, other=0.0).to(tl.float32) * alpha
    pointers, inside = _tile(y, first, ROWS, column, rows, width)
    s += tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    pointers, inside = _tile(total, first, ROWS, column, rows, width)
    tl.store(pointers, s.to(kind), mask=inside)
    s = s.to(kind).to(tl.float32)  # the stored sum, the only one known in the backward pass
    mean = tl.sum(s, 1) / width
    centred = tl.where(inside, s - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / width + epsilon)
    tl.store(means + row, mean, mask=row < rows)
    tl.store(rstds + row, rstd, mask=row < rows)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=column < width, other=0.0).to(tl.float32)
    pointers, inside = _tile(out, first, ROWS, column, rows, width)
    tl.store(pointers, (centred * rstd[:, None] * w[None, :] + b[None, :]).to(kind), mask=inside)


@triton.jit
def add_norm_gradients_kernel(
    grad, grad_total, total, weight, means, rstds, grad_y, grad_x, rows, width, alpha,
    ADD_TOTAL: tl.constexpr, SCALED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first, column = tl.program_id(0) * ROWS, tl.arange(0, BLOCK)
    row = first + tl.arange(0, ROWS)
    kind = grad.dtype.element_ty
    mean = tl.load(means + row, mask=row < rows, other=0.0)
    rstd = tl.load(rstds + row, mask=row < rows, other=0.0)
    w = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    pointers, inside = _tile(total, first, ROWS, column, rows, width)
    x_hat = (tl.load(pointers, mask=inside, other=0.0).to(tl.float32) - mean[:, None]) * rstd[:, None]
    x_hat = tl.where(inside, x_hat, 0.0)
    pointers, inside = _tile(grad, first, ROWS, column, rows, width)
    g = tl.load(pointers, mask=inside, other=0.0).to(tl.float32) * w[None, :]
    g = rstd[:, None] * (g - (tl.sum(g, 1) / width)[:, None] - x_hat * (tl.sum(g * x_hat, 1) / width)[:, None])
    if ADD_TOTAL:
        pointers, inside = _tile(grad_total, first, ROWS, column, rows, width)
        g += tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    pointers, inside = _tile(grad_y, first, ROWS, column, rows, width)
    tl.store(pointers, g.to(kind), mask=inside)
    if SCALED:
        pointers, inside = _tile(grad_x, first, ROWS, column, rows, width)
        tl.store(pointers, (g * alpha).to(kind), mask=inside)


def to_rank(x: Tensor, a: Tensor, scale: float, seed: Tensor | None = None, level: int = 0, groups: int = 1) -> Tensor:
    """Compute `scale` * drop(x) a' from bfloat16 [N, C] and float32 [r, C]; bfloat16 [N, r].

    Args:
        seed: seed of dropout, int64 [1]; None disables dropout.
        level: dropout probability in units of 1 / 65,536. Kept numbers are not rescaled.
        groups: number of adapters that `a` contains, one below the other, each with a dropout mask of its own.
    """
    (rows, width), ranks = x.shape, len(a)
    rank = ranks // groups
    out = x.new_empty(rows, ranks)
    to_rank_kernel[(groups * triton.cdiv(rows, 2 * _HALF),)](
        x, a, out, x if seed is None else seed, rows, width, rank, ranks, scale, level,
        DROP=seed is not None, GROUPS=groups, RANK=_padded_rank(rank), HALF=_HALF, BLOCK=_block(width, 64),
    )  # fmt: skip
    return out


def from_rank(
    y: Tensor, k: Tensor, m: Tensor, scale: float = 1.0, seed: Tensor | None = None, level: int = 0, groups: int = 1
) -> Tensor:
    """Add `scale` * drop(k m) to y in place: bfloat16 [N, C] and [N, r], float32 [r, C].

    k may have any row stride, m any strides. For the other arguments see `to_rank`.
    """
    (rows, width), rank = y.shape, len(m) // groups
    block = _block(width, 128 if groups == 1 else 64)
    from_rank_kernel[(triton.cdiv(rows, 2 * _HALF), triton.cdiv(width, block))](
        y, k, m, y if seed is None else seed, rows, width, rank, k.stride(0), m.stride(0), m.stride(1), scale, level,
        DROP=seed is not None, GROUPS=groups, RANK=_padded_rank(rank), HALF=_HALF, BLOCK=block,
    )  # fmt: skip
    return y


def over_rows(
    k: Tensor, x: Tensor, scale: float, seed: Tensor | None = None, level: int = 0, groups: int = 1
) -> Tensor:
    """Compute `scale` * k' drop(x) from bfloat16 [N, r] and [N, C]; float32 [r, C]. Arguments as in `to_rank`."""
    (rows, width), ranks = x.shape, k.shape[1]
    rank, block = ranks // groups, _block(width, 64)
    blocks, column_blocks = triton.cdiv(rows, 2 * _HALF), triton.cdiv(width, block)
    chunk_blocks = max(1, triton.cdiv(blocks * column_blocks * groups, _MAX_PARTIAL_SUMS))
    parts = torch.empty(triton.cdiv(blocks, chunk_blocks), ranks, width, device=x.device, dtype=torch.float32)
    over_rows_kernel[(column_blocks * groups, len(parts))](
        k, x, parts, x if seed is None else seed, rows, width, rank, ranks, column_blocks, chunk_blocks, scale, level,
        DROP=seed is not None, RANK=_padded_rank(rank), HALF=_HALF, BLOCK=block,
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
        means, rstds = (torch.empty(rows, device=x.device, dtype=torch.float32) for _ in range(2))
        add_norm_kernel[(triton.cdiv(rows, 2),)](
            x, y, weight, bias, total, out, means, rstds, rows, width, alpha, epsilon, ROWS=2, BLOCK=block
        )
        ctx.save_for_backward(total, weight, means, rstds)
        ctx.alpha = alpha
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    def backward(ctx, grad_total: Tensor | None, grad: Tensor | None):
        total, weight, means, rstds = ctx.saved_tensors
        if grad is None:
            return (None if grad_total is None else grad_total * ctx.alpha), grad_total, None, None, None, None
        grad = grad.contiguous()
        grad_total = None if grad_total is None else grad_total.contiguous()
        rows, width = total.shape
        grad_y, scaled = torch.empty_like(total), ctx.alpha != 1.0
        grad_x = torch.empty_like(total) if scaled else grad_y
        add_norm_gradients_kernel[(triton.cdiv(rows, 2),)](
            grad, grad if grad_total is None else grad_total, total, weight, means, rstds, grad_y, grad_x, rows, width,
            ctx.alpha, ADD_TOTAL=grad_total is not None, SCALED=scaled, ROWS=2, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
        return grad_x, grad_y, None, None, None, None


def add_norm(x: Tensor, y: Tensor, alpha: float, weight: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """alpha * x + y and its layer norm over the last axis, bfloat16 [..., D] each, with gradients of x and y."""
    width = x.shape[-1]
    total, out = _AddNorm.apply(
        x.reshape(-1, width).contiguous(), y.reshape(-1, width).contiguous(), alpha, weight, bias, epsilon
    )
    return total.view(x.shape), out.view(x.shape)


def _padded_rank(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))  # the minimum of the matrix units


def _block(width: int, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(width)))


@functools.cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run on this GPU: with compute capability 8.0 or higher, and if a C compiler is installed."""
    try:
        if torch.cuda.get_device_capability(device) < (8, 0):
            raise RuntimeError(f"{torch.cuda.get_device_name(device)} is older than Ampere")
        x = torch.ones(1, 16, device=device, dtype=torch.bfloat16)
        to_rank(x, x.float(), 1.0)
    except torch.OutOfMemoryError:  # a problem of the trial, not of the GPU
        raise
    except Exception as error:  # any error of the compiler: torch and PEFT remain available
        warnings.warn(f"the Triton kernels cannot be used, so training is slower: {error}", stacklevel=2)
        return False
    return True
