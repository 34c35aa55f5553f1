"""The error that a user causes: one line with the value, what is allowed and the remedy; and printable text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# A clone has launch.py, constraints.txt and setup.cfg in its root, an installed package only the command.
IS_CLONE = (Path(__file__).parents[1] / "setup.cfg").is_file()
# Of the controls of text direction, those that can reorder other text; marks that Arabic and Hebrew need are kept.
_SPACES = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return text of any origin as one line that is safe on a terminal and in a report.

    Line breaks and tabs become spaces; other control characters, which a terminal would obey, and lone surrogates,
    which cannot be encoded, become U+FFFD.
    """
    return _CONTROLS.sub("\ufffd", _SPACES.sub(" ", text))


class UserError(ValueError):
    """Invalid input: arguments, data directories, weights files. Its text has one line for each argument.

    `launch.py` and the `python -m` tools print only its text and exit with 2; any other exception is a defect and
    keeps its traceback.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(printable, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


def not_installed(what: str, packages: Iterable[str], extra: str) -> UserError:
    """The error that packages of an extra of setup.cfg are missing, with the command that installs them."""
    names = list(packages)
    arguments = f"-c constraints.txt -e '.[{extra}]'" if IS_CLONE else " ".join(names)
    return UserError(f"{what} needs {', '.join(names)}; install: pip install {arguments}")
