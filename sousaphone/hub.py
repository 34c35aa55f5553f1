"""Downloads from the Hugging Face hub into its own cache, after a message and a check of the free disk space; errors of
the hub's library.

The library shows progress, resumes interrupted downloads and names a file only once it is complete.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from sousaphone.errors import UserError
from sousaphone.text import counted, one_line


class RefusedError(Exception):
    """The hub refused a request, in one line: it does not have the repository or revision, or restricts access to it.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(Exception):
    """Any other reason why a transfer failed, in one line."""


def fetch_snapshot(
    title: str,
    repository: str,
    kind: str,
    patterns: Sequence[str],
    revision: str | None = None,
    choose: Callable[[list[str]], list[str]] = list,
) -> Path:
    """Download files of a repository and return the directory of its snapshot.

    Args:
        title: name of the repository in messages.
        kind: 'model' or 'dataset'.
        choose: selects from the names of the files that match the patterns.

    Raises:
        UserError: no file matches, or the disk has no room for the files.
        RefusedError, UnreachableError: the download failed.
    """
    # Imported here since it takes half a second and is not needed for files that exist already.
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    source: dict[str, Any] = {"repo_type": kind, "revision": revision}
    with hub_errors():
        files = snapshot_download(repository, **source, allow_patterns=list(patterns), dry_run=True)
        names = choose([file.filename for file in files])
        if not names:
            raise UserError(f"{title} holds none of {', '.join(patterns)}")
        missing = [file for file in files if file.filename in set(names) and file.will_download]
        cache, size = Path(HF_HUB_CACHE), sum(file.file_size or 0 for file in missing)
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
        if size > free:
            raise UserError(
                f"{title} needs {size / 1e9:.2f} GB more and {cache} has {free / 1e9:.2f} GB free; free some space "
                "there, or set HF_HUB_CACHE to a directory with more"
            )
        print(f"fetching {title} to {cache}: {counted(len(missing), 'file')}, {size / 1e6:,.1f} MB", file=sys.stderr)
        return Path(snapshot_download(repository, **source, allow_patterns=names))


@contextmanager
def hub_errors(refusals: Sequence[int] = (401, 403, 404)) -> Iterator[None]:
    """Raise a RefusedError (for these HTTP statuses) or an UnreachableError in place of an error of the hub's library.
    Their text never contains the user's token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        yield
    except HFValidationError as error:  # no repository can have this name
        raise RefusedError(one_line(error, 300), 404) from None
    # hf_xet, which transfers the data, raises RuntimeErrors; a proxy may answer with something other than JSON.
    except (OSError, HTTPError, RuntimeError, JSONDecodeError) as error:
        # The library wraps some of its own errors, which are themselves caused by less clear ones of its dependencies.
        wrapped = None if isinstance(error, HfHubHTTPError) else error.__cause__
        cause = wrapped if isinstance(wrapped, Exception) else error
        message = one_line(cause)
        if token := get_token():
            message = message.replace(token, "***")
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code in refusals:
            raise RefusedError(message[:300], cause.response.status_code) from None
        raise UnreachableError(message[:300]) from None
    except (LookupError, AttributeError, TypeError) as error:  # the library trusts the form of an answer
        raise UnreachableError(f"the server's answer is not one of the hub: {type(error).__name__}") from None
