"""The `sousaphone` command, which runs every command line of the project."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from sousaphone.signals import exit_on_stop, ignore_stops

# Description, and the module whose `main(argv, prog)` runs the command; imported when it is called.
_COMMANDS = {
    "sweep": ("train backbones and compare them (python launch.py)", "launch"),
    "report": ("write the report of a run, or compare two (python -m analysis)", "sousaphone.cli.report"),
    "export": ("export the best trial of a run as a model folder", "sousaphone.cli.export"),
    "predict": ("name the rudiments of recordings", "sousaphone.cli.predict"),
    "serve": ("name the rudiments of recordings on a page in the browser", "sousaphone.cli.serve"),
    "benchmark": ("measure speed, size and memory of a run's models", "sousaphone.cli.benchmark"),
    "evaluate": ("score a model on labelled recordings", "sousaphone.cli.evaluate"),
    "publish": ("publish a model folder on the Hugging Face hub", "sousaphone.cli.publish"),
    "data": ("check, describe, make, preview and cache data sets (python -m sousaphone.data)", "sousaphone.cli.data"),
    "weights": ("list, fetch and verify pretrained weights (python -m sousaphone.weights)", "sousaphone.cli.weights"),
    "runs": ("list runs, and free disk space", "sousaphone.cli.runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if argv is None:  # as a program; before the slow imports
        exit_on_stop("sousaphone: interrupted before anything was started")
    from sousaphone.cli.command import Parser, prepare_process

    prepare_process()
    words = sys.argv[1:] if argv is None else list(argv)
    width = max(map(len, _COMMANDS))
    rows = [f"  {name:<{width}}  {description}" for name, (description, _) in _COMMANDS.items()]
    parser = Parser(
        prog="sousaphone",
        usage="sousaphone COMMAND [arguments]",
        description="Compare pretrained audio backbones under LoRA on drum rudiments, and use the best one.",
        epilog="\n".join(["commands (each has its own --help):", *rows]),
    )
    parser.add_argument("command", choices=_COMMANDS, metavar="COMMAND", help="see below")
    command = parser.parse_args(words[:1]).command
    code: int = importlib.import_module(_COMMANDS[command][1]).main(words[1:], f"sousaphone {command}")
    if argv is None:
        ignore_stops()
    return code
