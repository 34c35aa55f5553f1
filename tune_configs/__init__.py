"""Sweeps as Python. Each module has `sweep(request) -> Sweep`; `--config NAME` picks `tune_configs/NAME.py`.

`request` (`sousaphone.planning.sweep_options.Request`) is what the command line says, resolved. A variant calls another
module's `sweep` and changes what differs with `dataclasses.replace`.
"""
