"""Each kernel computes what torch does: on a GPU in bfloat16, elsewhere in Triton's interpreter in float32."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

kernels = pytest.importorskip("sousaphone.kernels.triton_kernels", reason="Triton comes with torch for CUDA alone")

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
KIND = torch.bfloat16 if ON_GPU else torch.float32
LEVEL = 6_554  # of 65,536: a tenth
# Rows that fill no tile, columns that fill no block; one of each; a rank of no power of two, beyond the least tile.
shapes = pytest.mark.parametrize(
    ("rows", "width", "rank"), [(70, 48, 8), (1, 16, 1), pytest.param(300, 200, 20, marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def _fixed_chance() -> None:
    torch.manual_seed(0)


def numbers(*shape: int, kind: torch.dtype = KIND) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(kind)


def a_seed() -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (1,), device=DEVICE)


def kept(seed: Tensor, rows: int, width: int, group: int = 0) -> Tensor:
    """1 where a number is kept, by the rule that the kernels follow, in numpy."""
    row = np.arange(rows, dtype=np.uint64)
    pair, second = row // 64 * 32 + row % 32, row // 32 % 2
    words, low = np.uint64(0xFFFFFFFF), np.uint64(int(seed) & 0xFFFFFFFF)
    odd = np.uint64((int(seed) >> 32) & 0xFFFFFFFF | 1)
    h = (pair[:, None] * np.uint64(width) + np.arange(width, dtype=np.uint64)) * odd + low
    h = (h + np.uint64(group * 0x9E3779B9)) & words
    h ^= h >> np.uint64(16)
    h = h * np.uint64(0x7FEB352D) & words
    h ^= h >> np.uint64(15)
    h = h * np.uint64(0x846CA68B) & words
    h ^= h >> np.uint64(16)
    draws = np.where(second[:, None] == 0, h >> np.uint64(16), h & np.uint64(0xFFFF))
    return torch.from_numpy((draws >= LEVEL).astype(np.float32)).to(DEVICE)


def near(found: Tensor, wanted: Tensor) -> None:
    found, wanted = found.detach().float(), wanted.detach().float()
    error = float((found - wanted).norm() / wanted.norm())
    assert error < (5e-3 if ON_GPU else 1e-6), error


@shapes
def test_what_goes_to_the_adapters_rank_is_dropped_and_scaled(rows: int, width: int, rank: int) -> None:
    x, a, seed = numbers(rows, width), numbers(rank, width, kind=torch.float32), a_seed()
    near(kernels.to_rank(x, a, 0.5), 0.5 * x.float() @ a.T)
    near(kernels.to_rank(x, a, 0.5, seed, LEVEL), 0.5 * (x.float() * kept(seed, rows, width)) @ a.T)


@shapes
def test_what_comes_from_the_adapters_rank_is_dropped_and_added(rows: int, width: int, rank: int) -> None:
    k, b, seed = numbers(rows, rank), numbers(width, rank, kind=torch.float32), a_seed()
    y = numbers(rows, width)
    near(kernels.from_rank(y.clone(), k, b.T), y.float() + k.float() @ b.T)
    wanted = y.float() + 0.3 * kept(seed, rows, width) * (k.float() @ b.T)
    near(kernels.from_rank(y.clone(), k, b.T, 0.3, seed, LEVEL), wanted)


@shapes
def test_sums_over_rows_are_of_what_was_heard(rows: int, width: int, rank: int) -> None:
    k, x, seed = numbers(rows, rank), numbers(rows, width), a_seed()
    near(kernels.over_rows(k, x, 0.4), 0.4 * k.float().T @ x.float())
    near(kernels.over_rows(k, x, 0.4, seed, LEVEL), 0.4 * k.float().T @ (x.float() * kept(seed, rows, width)))


@shapes
def test_several_adapters_at_once_have_each_a_dropout_of_its_own(rows: int, width: int, rank: int) -> None:
    x, a, seed = numbers(rows, width), numbers(3 * rank, width, kind=torch.float32), a_seed()
    masks = [kept(seed, rows, width, group) for group in range(3)]
    assert not torch.equal(masks[0], masks[1])
    parts = [slice(group * rank, (group + 1) * rank) for group in range(3)]
    heard = [x.float() * mask for mask in masks]
    k = kernels.to_rank(x, a, 0.5, seed, LEVEL, 3)
    near(k, torch.cat([0.5 * h @ a[part].T for h, part in zip(heard, parts, strict=True)], 1))
    y = numbers(rows, width)
    added = sum(mask * (k[:, part].float() @ a[part]) for mask, part in zip(masks, parts, strict=True))
    near(kernels.from_rank(y.clone(), k, a, 0.3, seed, LEVEL, 3), y.float() + 0.3 * added)
    summed = [k[:, part].float().T @ h for h, part in zip(heard, parts, strict=True)]
    near(kernels.over_rows(k, x, 1.0, seed, LEVEL, 3), torch.cat(summed))
    # One of them apart, its rows three ranks long.
    near(kernels.from_rank(y.clone(), k[:, parts[1]], a[parts[1]]), y.float() + k[:, parts[1]].float() @ a[parts[1]])


@shapes
@pytest.mark.parametrize("alpha", [1.0, 2.3])
def test_a_sum_and_its_norm_are_torchs_with_their_gradients(rows: int, width: int, rank: int, alpha: float) -> None:
    x, y = numbers(rows, width).requires_grad_(), numbers(rows, width).requires_grad_()
    weight, bias = numbers(width), numbers(width)
    total, normed = kernels.add_norm(x, y, alpha, weight, bias, 1e-5)
    wanted_total = alpha * x.float() + y.float()
    wanted = F.layer_norm(wanted_total, (width,), weight.float(), bias.float(), 1e-5)
    near(total, wanted_total)
    near(normed, wanted)
    through, grad = numbers(rows, width), numbers(rows, width)
    for used in ((total, normed), (normed,), (total,)):  # what is not used further passes nothing back
        grads = (through, grad) if len(used) == 2 else (grad,)
        theirs = tuple({id(total): wanted_total, id(normed): wanted}[id(one)] for one in used)
        found = torch.autograd.grad(used, (x, y), grads, retain_graph=True)
        other = torch.autograd.grad(theirs, (x, y), tuple(one.float() for one in grads), retain_graph=True)
        for one, two in zip(found, other, strict=True):
            near(one, two)


def test_dropout_takes_its_share_and_knows_no_pattern() -> None:
    draws = torch.stack([kept(a_seed(), 256, 128) for _ in range(64)])
    dropped = 1.0 - draws
    share = LEVEL / 65_536
    assert float(dropped.mean()) == pytest.approx(share, abs=0.002)
    neighbours = {"row": (1, 1), "pair": (1, 32), "column": (2, 1), "seed": (0, 1)}
    for name, (axis, step) in neighbours.items():
        together = dropped * dropped.roll(step, axis)
        assert float(together.mean()) == pytest.approx(share**2, abs=0.0008), name


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_that_is_not_there() -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compile_kernels"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
