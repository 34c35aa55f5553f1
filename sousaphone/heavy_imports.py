"""Importing torch, transformers, PEFT and Ray, which takes seconds in every process, in less time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import without garbage collection: nothing of these libraries becomes garbage, and to look through it all again
    and again takes a sixth of the time."""
    known, collecting = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if (
            len(sys.modules) > known
        ):  # else it is a worker's later trial, and what the one before left is not to be kept
            gc.freeze()
        if collecting:
            gc.enable()
