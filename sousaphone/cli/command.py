"""Parts shared by all command lines: exit codes, the parser, the preparation of the process, error handling."""

from __future__ import annotations

import argparse
import atexit
import gc
import getpass
import io
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sousaphone.errors import UserError, printable
from sousaphone.files import expanded
from sousaphone.runs.provenance import package_version
from sousaphone.signals import ignore_stops, interrupts, stops_deferred
from sousaphone.text import one_line

EXIT_OK, EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130

# The compatible pair that setup.cfg requires.
TORCHAUDIO_REMEDY = "pip install 'torch>=2.11,<2.13' torchaudio==2.11.0"


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, without the usage, and whose texts keep their line breaks.

    An empty word is refused, since the empty path would be the current directory.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.register("type", None, _word)
        self.register("type", Path, lambda text: Path(_word(text)))

    def add_subparsers(self, **options: Any) -> Any:
        commands = super().add_subparsers(**options)
        commands.type = str  # the words after the command are its own parser's
        return commands

    def refuse_with(self, options: argparse.Namespace, first: str, *others: str) -> None:
        """Exit with an error if one of the other options is given, which have no effect with the first one."""
        given = {name: value for name, value in vars(options).items() if value is not None and value is not False}
        if first in given and (unused := [name for name in others if name in given]):
            words = [f"--{name.replace('_', '-')}" for name in (unused[0], first)]
            value = "" if given[first] is True else f" {given[first]}"
            self.error(f"{words[0]} has no effect with {words[1]}{value}; leave it out")

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message} (see --help)\n")


def _word(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is empty (perhaps an unset variable); give a value")
    return text


def existing_directory(text: str) -> Path:
    """The argparse type of a directory that is read."""
    path = expanded(_word(text))
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
        problem = "not a directory"
    except OSError as error:
        problem = str(error.strerror).lower()
    raise argparse.ArgumentTypeError(f"{text} cannot be used ({problem}); give an existing directory")


def prepare_process() -> None:
    """Make this process and its children independent of the user's terminal, notebook and account, and let it start and
    end fast."""
    # What torch and its libraries allocate at import remains to the end. To examine it takes a second, and another
    # second at the exit.
    gc.set_threshold(*gc.get_threshold()[:2], 1_000)
    atexit.register(gc.freeze)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`)
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115, open until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Log files are written line by line. An ASCII or Latin-1 terminal lacks some characters.
        sys.stdout.reconfigure(line_buffering=True, errors="replace")
    os.environ["PYTHONIOENCODING"] = "utf-8"  # for Ray's workers, whose output goes to files
    # A notebook sets a backend whose package may not be installed; Matplotlib then fails to import.
    os.environ.pop("MPLBACKEND", None)
    # If HOME is not writable, Matplotlib warns about its font cache but works.
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
    """Raise a UserError if torchaudio, which transformers and PEFT import, does not load with the installed torch."""
    try:
        with stops_deferred():  # an exception during torch's import may abort the process in its C++ code
            import torch  # noqa: F401
        import torchaudio  # noqa: F401
    except Exception as error:  # a library built for another torch may raise anything
        raise UserError(
            f"torchaudio {package_version('torchaudio')} does not load with torch {package_version('torch')} "
            f"({one_line(error, 200)}); install a compatible pair: {TORCHAUDIO_REMEDY}"
        ) from error


def run_command(prog: str, command: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a command and return its exit code; print an error, or `interrupted` after a stop signal, as one line."""
    with interrupts():
        try:
            code = command()
            sys.stdout.flush()
            return code
        except UserError as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return EXIT_INPUT
        except BrokenPipeError:
            discard_output()
            return EXIT_OK
        except OSError as error:
            print(f"{prog}: error: {refusal_of_system(error)}", file=sys.stderr)
            if error.filename is None:
                discard_output()  # of which the rest would fail again at the end of the process
            return EXIT_INPUT
        except KeyboardInterrupt:
            ignore_stops()
            print(f"\n{prog}: {interrupted}", file=sys.stderr)
            return EXIT_INTERRUPTED


def refusal_of_system(error: OSError) -> str:
    """What the operating system refused, in one line: a name that is too long, no access, a full disk."""
    remedy = "make it accessible to you" if isinstance(error, PermissionError) else "fix that, or give another path"
    what = printable(str(error.filename or "the output, or a temporary file"))
    return f"{what}: {error.strerror or one_line(error, 200)}; {remedy}"


def discard_output() -> None:
    """Discard further output, once its reader (such as `| head`) has closed the pipe and a flush would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
