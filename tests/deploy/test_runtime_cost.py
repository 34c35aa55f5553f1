"""The process that measures a model ends with the one that started it, and its failures are errors of one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sousaphone.deploy.runtime_cost import measure
from sousaphone.errors import UserError


def measuring() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


@contextmanager
def once_it_measures(action: Callable[[psutil.Process], object]) -> Iterator[None]:
    def act() -> None:
        while not (found := measuring()):
            time.sleep(0.01)
        time.sleep(0.5)
        action(found[0])

    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def test_interruption_ends_the_measurement(model: Path) -> None:
    with once_it_measures(lambda _: os.kill(os.getpid(), signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        measure([model], "torch")
    assert not measuring()


def test_killed_measurement_is_a_user_error(model: Path) -> None:
    with once_it_measures(lambda process: process.kill()), pytest.raises(UserError, match="PyTorch"):
        measure([model], "torch")


def test_model_that_cannot_be_loaded_is_a_user_error(model: Path) -> None:
    with pytest.raises(UserError, match=r"model\.onnx"):
        measure([model], "onnx")
