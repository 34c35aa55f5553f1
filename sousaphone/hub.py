"""Files of the Hugging Face hub, fetched into its own cache; what is missing is told, and must fit, before it comes.

The hub's library shows progress, resumes what was cut and gives a file its name when it is whole.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sousaphone.errors import UserError
from sousaphone.text import counted, one_line


class RefusedError(Exception):
    """The hub has no such repository or revision, or grants access to its members only."""


class UnreachableError(Exception):
    """Anything else that kept files from coming, in one line."""


def fetch_snapshot(
    title: str,
    repository: str,
    kind: str,
    patterns: Sequence[str],
    revision: str | None = None,
    choose: Callable[[list[str]], list[str]] = list,
) -> Path:
    """The directory of a repository's snapshot with the wanted files in it.

    Args:
        title: what it is called on the terminal.
        kind: 'model' or 'dataset'.
        choose: which of the files that match the patterns are wanted.

    Raises:
        UserError: it has no such files, or there is no room for them.
        RefusedError, UnreachableError: it cannot be had.
    """
    # Imported here: it takes half a second, and whoever has the files does without.
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    wanted: dict[str, Any] = {"repo_type": kind, "revision": revision}
    try:
        files = snapshot_download(repository, **wanted, allow_patterns=list(patterns), dry_run=True)
        names = choose([file.filename for file in files])
        if not names:
            raise UserError(f"{title} holds none of {', '.join(patterns)}")
        coming = [file for file in files if file.filename in set(names) and file.will_download]
        cache, size = Path(HF_HUB_CACHE), sum(file.file_size or 0 for file in coming)
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
        if size > free:
            raise UserError(
                f"{title} needs {size / 1e9:.2f} GB more and {cache} has {free / 1e9:.2f} GB free; free some space "
                "there, or set HF_HUB_CACHE to a directory with more"
            )
        told = f"{counted(len(coming), 'file')}, {size / 1e6:,.1f} MB"
        print(f"fetching {title} to {cache}: {told}", file=sys.stderr)
        return Path(snapshot_download(repository, **wanted, allow_patterns=names))
    except (OSError, HTTPError, RuntimeError) as error:  # hf_xet, which moves the bytes, raises RuntimeErrors
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403, 404):
            raise RefusedError from None
        raise UnreachableError(one_line(cause, 300)) from None
