"""What all command lines of the package have in common."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

# 1 is of each command: what it was asked to do did not end well.
EXIT_OK, EXIT_INPUT, EXIT_INTERRUPTED = 0, 2, 130


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line: the rest of the usage is a `--help` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (see --help)\n")


def stop_talking() -> None:
    """Whoever read the output, as `| head` does, has seen enough; the interpreter must not try to flush once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
