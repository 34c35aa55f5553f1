"""A device that runs out of memory: to tell it from other errors, and to give memory back."""

from __future__ import annotations

import gc

import torch


class MemoryExhaustedError(RuntimeError):
    """Out of memory, and the micro-batch cannot be made any smaller."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device's or the system's allocator had nothing left; on a CPU and on mps torch has no class for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error.__context__, torch.OutOfMemoryError):  # a recording that it ended has an error of its own
        return True
    # The last is of cuBLAS and cuDNN, on a card that is full.
    words = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in words)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps of a device's memory for later."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
