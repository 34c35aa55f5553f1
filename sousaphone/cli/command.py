"""What all command lines of the package have in common."""

from __future__ import annotations

import argparse
import getpass
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sousaphone.errors import UserError
from sousaphone.runs.provenance import package_version
from sousaphone.sweep.signals import ignore_stops, interrupts, stops_deferred
from sousaphone.text import one_line

# 1: what a command was to do did not end well.
EXIT_OK, EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

# A pair that loads, as setup.cfg asks for it.
TORCHAUDIO_REMEDY = "pip install 'torch>=2.11,<2.13' torchaudio==2.11.0"


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line (the rest of the usage is a `--help` away) and whose texts keep lines."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **given})

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (see --help)\n")


def prepare_process() -> None:
    """Make this process, and those that it will start, independent of the user's terminal, notebook and account."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Line by line, so that a log file is in order and in time. An ASCII or Latin-1 terminal lacks some characters.
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    os.environ["PYTHONIOENCODING"] = "utf-8"  # of Ray's workers, whose output goes to files
    # A notebook's names a package that this environment may lack; then Matplotlib does not import.
    os.environ.pop("MPLBACKEND", None)
    # Where HOME cannot be written to it advises another place for its fonts, and works all the same.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        getpass.getuser()
    except (OSError, KeyError, ImportError):  # `docker run --user 54321`; torch names its cache after the user
        os.environ["USER"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:  # such a user with HOME unset; Ray does not import without one
        os.environ["HOME"] = "/"


def require_torchaudio() -> None:
    """Import torchaudio, which is bound to torch by its binary interface; transformers and PEFT import it as well.

    Raises:
        UserError: the installed torchaudio does not load beside the installed torch.
    """
    try:
        with stops_deferred():  # an exception amid torch's import may abort the process in its C++
            import torch  # noqa: F401
        import torchaudio  # noqa: F401
    except Exception as error:  # whatever a library built for another torch raises
        raise UserError(
            f"torchaudio {package_version('torchaudio')} does not load beside torch {package_version('torch')} "
            f"({one_line(error, 200)}); install a pair that does: {TORCHAUDIO_REMEDY}"
        ) from error


def run_command(prog: str, command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """A command's exit code; what goes wrong is one line.

    Args:
        interrupted: what to say after Ctrl-C or SIGTERM.
    """
    with interrupts():
        try:
            code = command()
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return EXIT_INPUT
        except BrokenPipeError:
            stop_talking()
            return EXIT_OK
        except KeyboardInterrupt:
            ignore_stops()
            print(f"\n{prog}: {interrupted}", file=sys.stderr)
            return EXIT_INTERRUPTED


def stop_talking() -> None:
    """Whoever read the output, as `| head` does, has seen enough; the interpreter must not try to flush once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
