"""Sweeps as Python. Each module has `sweep(choices) -> Sweep`; `--config NAME` picks `tune_configs/NAME.py`.

`choices` (`sousaphone.planning.options.Choices`) is what the command line says, resolved. A variant calls another
module's `sweep` and changes what differs with `dataclasses.replace`.
"""
