"""Compile every kernel for NVIDIA GPUs, without one: `python -m tests.kernels.compile_kernels`.

This finds errors that the interpreter does not report.
"""

from __future__ import annotations

import itertools
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sousaphone.kernels import triton_kernels

NUMBERS = ("scale", "alpha", "epsilon")
FLOATS = ("m", "parts", "means", "rstds")  # pointers to float32; all others except the seed are to bfloat16
INTEGERS = (
    *("rows", "width", "rank", "all_ranks", "column_blocks", "chunk_blocks", "level"),
    *("k_stride", "m_stride_r", "m_stride_c"),
)


def compile_for(kernel: Any, capability: int, **constants: Any) -> None:
    kinds = {}
    for name in kernel.arg_names:
        if name in constants:
            kinds[name] = "constexpr"
        elif name in NUMBERS:
            kinds[name] = "fp32"
        elif name in INTEGERS:
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
    # Triton treats integers that are 1 as constants.
    ones = dict.fromkeys(INTEGERS, 1)
    for kernel in (triton_kernels.to_rank_kernel, triton_kernels.from_rank_kernel, triton_kernels.over_rows_kernel):
        constants = {"DROP": True, "GROUPS": 1, **shape, **ones}
        compile_for(kernel, 90, **{name: value for name, value in constants.items() if name in kernel.arg_names})
    for capability, flag in itertools.product((80, 90), (False, True)):
        compile_for(triton_kernels.over_rows_kernel, capability, DROP=flag, **shape)
        for groups in (1, 3):
            compile_for(triton_kernels.to_rank_kernel, capability, DROP=flag, GROUPS=groups, **shape)
            compile_for(triton_kernels.from_rank_kernel, capability, DROP=flag, GROUPS=groups, **shape)
        compile_for(triton_kernels.add_norm_gradients_kernel, capability, ADD_TOTAL=flag, SCALED=not flag, **row)
        compile_for(triton_kernels.add_norm_kernel, capability, **row)


if __name__ == "__main__":
    main()
