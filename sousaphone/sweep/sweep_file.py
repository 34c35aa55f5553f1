"""Load a sweep from a Python file that the user names: `--config FILE.py`. The file is executed."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from ray import cloudpickle
from ray.tune.schedulers import PopulationBasedTraining

from sousaphone.config import Sweep
from sousaphone.errors import UserError
from sousaphone.planning.sweep_options import Request
from sousaphone.text import one_line


def sweep_of_file(path: Path, request: Request) -> Sweep:
    """Execute the file and return the result of its `sweep(request)`; raise a UserError if that fails."""
    if not path.is_file():
        raise UserError(f"--config {path}: there is no such file")
    # Its classes are sent by value to the process that drives Ray, which cannot import them.
    spec = importlib.util.spec_from_file_location(f"sweep_file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    cloudpickle.register_pickle_by_value(module)
    try:
        spec.loader.exec_module(module)
        function: Callable[[Request], object] = module.sweep
        made = function(request)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    except Exception as error:  # of the user's code
        frames = [
            f"line {frame.lineno}: "
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        raise UserError(
            f"--config {path}: {frames[-1] if frames else ''}{type(error).__name__}: {one_line(error, 300)}"
        ) from error
    if not isinstance(made, Sweep):
        raise UserError(f"--config {path}: sweep(request) returned a {type(made).__name__}; return a Sweep")
    if isinstance(made.scheduler, PopulationBasedTraining):
        raise UserError(f"--config {path}: population based training changes running trials; give another scheduler")
    return made
