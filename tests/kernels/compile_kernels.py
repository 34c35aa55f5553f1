"""Compile every kernel for an NVIDIA GPU, where none is: `python -m tests.kernels.compile_kernels`.

What a kernel may not say shows here; the interpreter forgives it.
"""

from __future__ import annotations

import itertools
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sousaphone.kernels import triton_kernels

NUMBERS = ("scale", "alpha", "epsilon")
FLOATS = ("m", "parts", "means", "rates")  # pointers to float32; all others are to bfloat16, but for the seed
WHOLE = (
    *("rows", "width", "rank", "all_ranks", "across", "blocks_each", "level"),
    *("by_row", "by_rank", "by_width"),
)


def compile_for(kernel: Any, capability: int, **constants: Any) -> None:
    kinds = {}
    for name in kernel.arg_names:
        if name in constants:
            kinds[name] = "constexpr"
        elif name in NUMBERS:
            kinds[name] = "fp32"
        elif name in WHOLE:
            kinds[name] = "i32"
        else:
            kinds[name] = "*fp32" if name in FLOATS else "*bf16"
    if constants.get("DROP"):
        kinds["seed"] = "*i64"
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    triton.compile(ASTSource(fn=kernel, signature=kinds, constexprs=places), target=GPUTarget("cuda", capability, 32))


def main() -> None:
    shape = {"RANK": 16, "HALF": 32, "BLOCK": 64}
    row = {"ROWS": 2, "BLOCK": 1024}
    # Triton makes constants of whole numbers that are 1.
    ones = dict.fromkeys(WHOLE, 1)
    for kernel in (triton_kernels._to_rank, triton_kernels._from_rank, triton_kernels._over_rows):
        known = {"DROP": True, "GROUPS": 1, **shape, **ones}
        compile_for(kernel, 90, **{name: value for name, value in known.items() if name in kernel.arg_names})
    for capability, flag in itertools.product((80, 90), (False, True)):
        compile_for(triton_kernels._over_rows, capability, DROP=flag, **shape)
        for groups in (1, 3):
            compile_for(triton_kernels._to_rank, capability, DROP=flag, GROUPS=groups, **shape)
            compile_for(triton_kernels._from_rank, capability, DROP=flag, GROUPS=groups, **shape)
        compile_for(triton_kernels._add_norm_gradients, capability, THROUGH=flag, TWO=not flag, **row)
        compile_for(triton_kernels._add_norm, capability, **row)


if __name__ == "__main__":
    main()
