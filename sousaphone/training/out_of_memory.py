"""Detection of out-of-memory errors, and release of cached memory."""

from __future__ import annotations

import gc

import torch


class MemoryExhaustedError(RuntimeError):
    """Out of memory after the last retry with a smaller micro-batch."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory ran out; on a CPU and on mps torch has no error class for it."""
    # A CUDA graph capture that runs out of memory raises an error of its own, with this one as context.
    if isinstance(error, MemoryError) or torch.OutOfMemoryError in (type(error), type(error.__context__)):
        return True
    # cuBLAS and cuDNN report a full GPU as alloc_failed.
    messages = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in messages)


def free_memory(device: torch.device) -> None:
    """Release the device memory that torch caches."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
