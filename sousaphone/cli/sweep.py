"""The command line of a sweep, made from the options that `sousaphone.planning.sweep_options` declares."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sousaphone.cli.command import Parser
from sousaphone.config import Sweep, settable
from sousaphone.errors import UserError
from sousaphone.planning.resolve_options import config_name, is_file
from sousaphone.planning.sweep_options import Options, Request, flag

_EXAMPLES = """\
examples:
  %(prog)s                                             eight small trials on built-in data, a few minutes
  %(prog)s --dataset small --data-dir SOUSA --plan     forecast the time, train nothing
  %(prog)s --dataset small --data-dir SOUSA --name first --trial-time-limit 12h
  %(prog)s --resume --name first                       resume after a stop or a crash
  %(prog)s --resume --name first --retry-failed        resume, and retry failed trials
  %(prog)s --extend --name first --seeds 0 1 2         add two seeds to the run
  %(prog)s --config search --budget 16 --plan          forecast a search over settings, the same for every backbone
  %(prog)s --promote first --dataset full --epochs 50  train the best trial on all data

exit codes: 0 every trial completed, stopped early, was pruned, or was scored at its time limit; 1 a trial failed or has
no result, Ray stopped, the run was renamed, or the report could not be written; 2 wrong input, or Ray cannot start (no
run is written); 130 interrupted"""


def parse(argv: Sequence[str] | None, prog: str) -> Options:
    """Parse the command line; exit with code 2 and one line on a wrong argument."""
    return Options(**vars(build_parser(prog).parse_args(argv)))


def build_parser(prog: str = "launch.py") -> argparse.ArgumentParser:
    """Build the parser of `Options`."""
    rows = [f"  {name:<20} {f.metadata['help']} (default {f.metadata['shown']})" for name, f in settable().items()]
    parser = Parser(
        prog=prog,
        usage="%(prog)s [options]",
        description="Fine-tune pretrained audio backbones with LoRA on the 40 drum rudiments and compare them.",
        epilog="\n".join(["settings of --set (a sweep may have its own defaults):", *rows, "", _EXAMPLES]),
    )
    groups: dict[str, Any] = {}
    for declared in dataclasses.fields(Options):
        title, arguments = declared.metadata["group"], dict(declared.metadata["parser"])
        if declared.name == "config":
            arguments["help"] += f"; known: {', '.join(config_names())}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument(flag(declared.name), dest=declared.name, default=declared.default, **arguments)
    return parser


def make_sweep(config: str, request: Request) -> Sweep:
    """Make the sweep `tune_configs.CONFIG`, or that of a Python file; raise a UserError if there is none."""
    if is_file(config):
        from sousaphone.sweep.sweep_file import sweep_of_file

        if config_name(config) in config_names():
            raise UserError(f"--config {config}: {config_name(config)!r} is a sweep of this program; rename the file")
        return sweep_of_file(Path(config), request)
    if config not in config_names():
        names = ", ".join(config_names())
        raise UserError(f"--config {config!r} is unknown; choose from: {names}; or give a Python file, NAME.py")
    sweep: Sweep = importlib.import_module(f"tune_configs.{config}").sweep(request)
    return sweep


def config_names() -> list[str]:
    """Return the names that `--config` accepts."""
    import tune_configs

    return [m.name for m in pkgutil.iter_modules(tune_configs.__path__) if m.name != "resources"]
