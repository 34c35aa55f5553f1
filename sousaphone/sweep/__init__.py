"""The use of Ray: its processes, the trainable, building, restoring and monitoring an experiment."""

import importlib
import os
from typing import Any

# Ray reads these at import. Trials write their own TensorBoard files (live, without gaps after a restart), so Ray's are
# off; `ray_process` handles Ctrl-C; no usage statistics are sent.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
# A trial cut before its first epoch reports no metric, which Tune would treat as an error.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Ray's tables; `callback` and `status_page` replace them
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def __getattr__(name: str) -> Any:
    """Import `train_fn`, and with it Ray, on first use; `signals` needs no Ray."""
    if name == "train_fn":
        return importlib.import_module("sousaphone.sweep.trainable").train_fn
    raise AttributeError(name)
