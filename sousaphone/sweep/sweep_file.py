"""Load a sweep from a Python file that the user names: `--config FILE.py`. The file is executed."""

from __future__ import annotations

import copy
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import NoneType

from ray import cloudpickle
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from sousaphone.config import METRICS, Sweep
from sousaphone.errors import UserError, printable
from sousaphone.planning.sweep_options import Request
from sousaphone.search.design import Search
from sousaphone.sweep.search import SearchProposals
from sousaphone.text import one_line

_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("cpus_per_trial", "gpus_per_trial"), (int, float)),
    **dict.fromkeys(("metric", "mode", "tuning"), (str,)),
    "max_concurrent": (int, NoneType),
    "searcher": (Searcher, NoneType),
    "scheduler": (TrialScheduler, NoneType),
    "search": (Search, NoneType),
    "notes": (tuple,),
}
_CHOICES = {"mode": ("max", "min"), "metric": METRICS}


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
    for name, kinds in _TYPES.items():
        if not isinstance(value := getattr(made, name), kinds):
            allowed = " or ".join("none" if each is NoneType else each.__name__ for each in kinds)
            shown = printable(repr(value))[:100]
            raise UserError(f"--config {path}: {name}={shown} of its Sweep is not of type {allowed}")
    for name, choices in _CHOICES.items():
        if (value := getattr(made, name)) not in choices:
            raise UserError(
                f"--config {path}: {name}={value!r} of its Sweep is unknown; choose one of: {', '.join(choices)}"
            )
    if made.search is not None and not isinstance(made.searcher, SearchProposals):
        raise UserError(
            f"--config {path}: its search has no SearchProposals as its searcher; copy tune_configs/search.py"
        )
    if isinstance(made.scheduler, PopulationBasedTraining):
        raise UserError(f"--config {path}: population based training changes running trials; give another scheduler")
    # Ray asks once, and refuses to run then.
    if made.scheduler is not None and not copy.deepcopy(made.scheduler).set_search_properties(made.metric, made.mode):
        raise UserError(f"--config {path}: leave out metric and mode of the scheduler; those of the Sweep are used")
    return made
