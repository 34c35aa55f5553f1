"""Importing torch, transformers, PEFT and Ray, which takes seconds in every process, in less time."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


@contextmanager
def garbage_left() -> Iterator[None]:
    """No garbage is collected, in whichever thread."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import without garbage collection: nothing of these libraries becomes garbage, and to look through it all again
    and again takes a sixth of the time."""
    known = len(sys.modules)
    with garbage_left():
        try:
            yield
        finally:
            # Else it is a worker's later trial, and what the one before left is not to be kept.
            if len(sys.modules) > known:
                gc.freeze()


@contextmanager
def imported_beside(*modules: str) -> Iterator[None]:
    """Import these in a thread while the block waits for something else; at its end all of them are there.

    What cannot be imported says so where it is imported by name. Not for modules that the block itself imports: two
    threads in one circle of imports can see half a module.
    """
    stop = threading.Event()

    def load() -> None:
        for module in modules:
            if stop.is_set():
                return
            with suppress(Exception):
                import_module(module)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
        thread.join()
    finally:  # who leaves early waits for the module at hand alone
        stop.set()
        thread.join()
