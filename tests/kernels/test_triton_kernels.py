"""Kernels compute the results of torch: on a GPU in bfloat16, elsewhere in Triton's interpreter in float32."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

kernels = pytest.importorskip("sousaphone.kernels.triton_kernels", reason="Triton is part of torch for CUDA only")

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
KIND = torch.bfloat16 if ON_GPU else torch.float32
LEVEL = 6_554  # of 65,536: a tenth
# Sizes that are not multiples of tile and block; single rows; a rank above the minimum that is not a power of two.
shapes = pytest.mark.parametrize(
    ("rows", "width", "rank"), [(70, 48, 8), (1, 16, 1), pytest.param(300, 200, 20, marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def numbers(*shape: int, kind: torch.dtype = KIND) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(kind)


def random_seed() -> Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (1,), device=DEVICE)


def kept(seed: Tensor, rows: int, width: int, group: int = 0) -> Tensor:
    """The mask of kept numbers, by a numpy implementation of the kernels' rule."""
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


def assert_near(found: Tensor, wanted: Tensor) -> None:
    found, wanted = found.detach().float(), wanted.detach().float()
    error = float((found - wanted).norm() / wanted.norm())
    assert error < (5e-3 if ON_GPU else 1e-6), error


@shapes
def test_to_rank_drops_multiplies_and_scales(rows: int, width: int, rank: int) -> None:
    x, a, seed = numbers(rows, width), numbers(rank, width, kind=torch.float32), random_seed()
    assert_near(kernels.to_rank(x, a, 0.5), 0.5 * x.float() @ a.T)
    assert_near(kernels.to_rank(x, a, 0.5, seed, LEVEL), 0.5 * (x.float() * kept(seed, rows, width)) @ a.T)


@shapes
def test_from_rank_multiplies_drops_and_adds(rows: int, width: int, rank: int) -> None:
    k, b, seed = numbers(rows, rank), numbers(width, rank, kind=torch.float32), random_seed()
    y = numbers(rows, width)
    assert_near(kernels.from_rank(y.clone(), k, b.T), y.float() + k.float() @ b.T)
    wanted = y.float() + 0.3 * kept(seed, rows, width) * (k.float() @ b.T)
    assert_near(kernels.from_rank(y.clone(), k, b.T, 0.3, seed, LEVEL), wanted)


@shapes
def test_over_rows_sums_the_dropped_input(rows: int, width: int, rank: int) -> None:
    k, x, seed = numbers(rows, rank), numbers(rows, width), random_seed()
    assert_near(kernels.over_rows(k, x, 0.4), 0.4 * k.float().T @ x.float())
    assert_near(kernels.over_rows(k, x, 0.4, seed, LEVEL), 0.4 * k.float().T @ (x.float() * kept(seed, rows, width)))


@shapes
def test_groups_have_separate_dropout_masks(rows: int, width: int, rank: int) -> None:
    x, a, seed = numbers(rows, width), numbers(3 * rank, width, kind=torch.float32), random_seed()
    masks = [kept(seed, rows, width, group) for group in range(3)]
    assert not torch.equal(masks[0], masks[1])
    parts = [slice(group * rank, (group + 1) * rank) for group in range(3)]
    dropped = [x.float() * mask for mask in masks]
    k = kernels.to_rank(x, a, 0.5, seed, LEVEL, 3)
    assert_near(k, torch.cat([0.5 * h @ a[part].T for h, part in zip(dropped, parts, strict=True)], 1))
    y = numbers(rows, width)
    added = sum(mask * (k[:, part].float() @ a[part]) for mask, part in zip(masks, parts, strict=True))
    assert_near(kernels.from_rank(y.clone(), k, a, 0.3, seed, LEVEL, 3), y.float() + 0.3 * added)
    summed = [k[:, part].float().T @ h for h, part in zip(dropped, parts, strict=True)]
    assert_near(kernels.over_rows(k, x, 1.0, seed, LEVEL, 3), torch.cat(summed))
    # A single group; its rows are a slice of longer rows.
    k, a = k[:, parts[1]], a[parts[1]]
    assert_near(kernels.from_rank(y.clone(), k, a), y.float() + k.float() @ a)


@shapes
@pytest.mark.parametrize("alpha", [1.0, 2.3])
def test_add_norm_and_its_gradients_equal_those_of_torch(rows: int, width: int, rank: int, alpha: float) -> None:
    x, y = numbers(rows, width).requires_grad_(), numbers(rows, width).requires_grad_()
    weight, bias = numbers(width), numbers(width)
    total, normed = kernels.add_norm(x, y, alpha, weight, bias, 1e-5)
    wanted_total = alpha * x.float() + y.float()
    wanted = F.layer_norm(wanted_total, (width,), weight.float(), bias.float(), 1e-5)
    assert_near(total, wanted_total)
    assert_near(normed, wanted)
    through, grad = numbers(rows, width), numbers(rows, width)
    for used in ((total, normed), (normed,), (total,)):  # unused outputs have no gradient
        grads = (through, grad) if len(used) == 2 else (grad,)
        theirs = tuple({id(total): wanted_total, id(normed): wanted}[id(one)] for one in used)
        found = torch.autograd.grad(used, (x, y), grads, retain_graph=True)
        other = torch.autograd.grad(theirs, (x, y), tuple(one.float() for one in grads), retain_graph=True)
        for one, two in zip(found, other, strict=True):
            assert_near(one, two)


def test_dropout_has_its_probability_and_is_independent() -> None:
    draws = torch.stack([kept(random_seed(), 256, 128) for _ in range(64)])
    dropped = 1.0 - draws
    p = LEVEL / 65_536
    assert float(dropped.mean()) == pytest.approx(p, abs=0.002)
    neighbours = {"row": (1, 1), "pair": (1, 32), "column": (2, 1), "seed": (0, 1)}
    for name, (axis, step) in neighbours.items():
        together = dropped * dropped.roll(step, axis)
        assert float(together.mean()) == pytest.approx(p**2, abs=0.0008), name


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu() -> None:
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compile_kernels"]
    done = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2_000:]
