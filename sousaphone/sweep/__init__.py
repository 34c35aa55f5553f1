"""All that knows Ray: the trainable, and building, restoring and watching an experiment."""

import importlib
import os
from typing import Any

# Ours to choose, and Ray reads them at import: trials write their own TensorBoard file (live, gap-free after a
# restart), so Ray's automatic ones stay off; a Ctrl-C is handled in `runtime`; nothing is sent anywhere.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# A trial that is cut before its first epoch has nothing to report, which Tune would take for a mistake.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its tables; ours are in `status`
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def __getattr__(name: str) -> Any:
    """`train_fn` brings Ray, which whoever only handles signals does without."""
    if name == "train_fn":
        return importlib.import_module("sousaphone.sweep.trainable").train_fn
    raise AttributeError(name)
