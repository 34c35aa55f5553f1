"""Data sets of the Hugging Face hub: `hub:OWNER/NAME` instead of a directory, `hub:OWNER/NAME@REVISION` to pin one.

They are downloaded into the hub's own cache and read there. A complete copy in the cache is used without a network
request, so trials and resumed runs work offline and all read the same files.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sousaphone.data.readers.paths import SUFFIXES
from sousaphone.errors import UserError
from sousaphone.hub import RefusedError, UnreachableError, fetch_snapshot
from sousaphone.text import one_line

_WORD = re.compile(r"hub:[\w.-]+/[\w.-]+?(?:@[\w./-]+)?")
# All readable layouts; of SOUSA this excludes the copies of the labels and the MIDI files without audio.
_PATTERNS = ["audio/*", "data/*.parquet", "labels/samples.parquet", "splits.json"]
_PATTERNS += ["metadata.*", "*/metadata.*", *(f"*{suffix}" for suffix in SUFFIXES)]


def is_word(text: str) -> bool:
    """Return whether the text names a data set of the hub."""
    return text.startswith("hub:")


def check_word(word: str) -> str:
    """Return the word; raise a UserError if it does not have the form hub:OWNER/NAME."""
    if not _WORD.fullmatch(word):
        raise UserError(f"{word!r} is not a data set of the hub; give hub:OWNER/NAME, such as hub:zkeown/sousa")
    return word


def cached(word: str, complete: bool = True) -> Path | None:
    """Return the data set's directory in the hub's cache, None if there is none or it is not known to be `complete`.

    The cache is set by HF_HOME or HF_HUB_CACHE. The hub's library stores the list of a snapshot's files, except in old
    versions and for downloads of single files.
    """
    # Imported here because it takes half a second.
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    name, request = _request(word)
    try:
        directory = Path(snapshot_download(name, **request, local_files_only=True))
        if complete:
            get_cached_repo_tree(name, repo_type=request["repo_type"], revision=request["revision"])
    except (LocalEntryNotFoundError, CachedRepoTreeNotFoundError):
        return None
    except ValueError as error:  # the hub's own rules for names
        raise UserError(f"{word!r} is not a data set of the hub ({one_line(error)}); give hub:OWNER/NAME") from None
    return directory if any(any(directory.rglob(pattern)) for pattern in _PATTERNS) else None


def _request(word: str) -> tuple[str, dict[str, Any]]:
    """Return a data set's name and the arguments of `snapshot_download`."""
    name, _, revision = check_word(word).removeprefix("hub:").partition("@")
    return name, {"repo_type": "dataset", "revision": revision or None, "allow_patterns": _PATTERNS}


def snapshot(word: str) -> Path:
    """Return the data set's directory in the hub's cache; download it if it is not known to be complete.

    An interrupted download is resumed. If the hub is unreachable, a possibly incomplete copy is used, with a message.
    """
    if (directory := cached(word)) is not None:
        return directory
    name, request = _request(word)
    try:
        return fetch_snapshot(f"hub:{name}", name, request["repo_type"], request["allow_patterns"], request["revision"])
    except RefusedError:
        raise UserError(
            f"{word}: the hub has no such data set or revision, or restricts access to it; check the name at "
            f"https://huggingface.co/datasets/{name}, or log in with: hf auth login"
        ) from None
    except UnreachableError as error:
        if (directory := cached(word, complete=False)) is not None:
            print(f"{word}: hub unreachable; using the possibly incomplete copy in {directory}", file=sys.stderr)
            return directory
        raise UserError(
            f"{word} cannot be downloaded ({error}); on a machine with network access run: hf download "
            f"--repo-type dataset {name} --local-dir DIR, and give --data-dir DIR"
        ) from None
