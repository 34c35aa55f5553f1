"""Sweeps in Python. Each module defines `sweep(request) -> Sweep`; `--config NAME` selects `tune_configs/NAME.py`.

`request` (`sousaphone.planning.sweep_options.Request`) holds the resolved command line. A variant calls the `sweep` of
another module and changes its result with `dataclasses.replace`.
"""
