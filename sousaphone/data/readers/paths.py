"""Where a data set lies, as a user names it: nothing that the system has against a path ends in a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sousaphone.errors import UserError
from sousaphone.text import one_line


def local_path(given: Path | str) -> Path:
    """The absolute path that is meant, with ~ as the home directory. It need not exist.

    Raises:
        UserError: nothing is given; whether it exists cannot even be told; there is no such home directory.
    """
    if given == "":  # would be the current directory
        raise UserError(
            "the path of the data set is '', as of a variable that is not set; give a directory, a CSV file, or "
            "hub:OWNER/NAME"
        )
    with looked_at(given):
        path = Path(given).expanduser().absolute()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path


@contextmanager
def looked_at(path: Path | str) -> Iterator[None]:
    """For looks at what lies at or below a path.

    Raises:
        UserError: one of them failed: no permission, a name that is too long, a link that leads to itself.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # pathlib has RuntimeErrors for links and homes
        raise UserError(
            f"{str(path)!r} cannot be looked at ({one_line(error)}); make it readable, or give another path"
        ) from None
