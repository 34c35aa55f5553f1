"""Downloads from the Hugging Face hub into its own cache, after a message and a check of the free disk space.

The hub's library shows progress, resumes interrupted downloads and names a file only once it is complete.
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
    """The hub does not have the repository or revision, or restricts access to it."""


class UnreachableError(Exception):
    """Any other reason why the download failed, in one line."""


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
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    source: dict[str, Any] = {"repo_type": kind, "revision": revision}
    try:
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
    except (OSError, HTTPError, RuntimeError) as error:  # hf_xet, which transfers the data, raises RuntimeErrors
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403, 404):
            raise RefusedError from None
        raise UnreachableError(one_line(cause, 300)) from None
