"""Data sets of the Hugging Face hub: `hub:OWNER/NAME` instead of a directory, `hub:OWNER/NAME@REVISION` to pin one.

They are downloaded into the hub's own cache and read there. What is known to be whole in that cache is taken without a
look at the network, so trials and resumed runs work offline and all see the same files.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sousaphone.errors import UserError
from sousaphone.hub import RefusedError, UnreachableError, fetch_snapshot
from sousaphone.text import one_line

_PREFIX = "hub:"
_WORD = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
# The forms that can be read; of SOUSA this leaves out the copies of the labels and the MIDI files without audio.
_WANTED = ["audio/*", "data/*.parquet", "labels/samples.parquet", "splits.json", "metadata.csv"]


def is_word(text: str) -> bool:
    """Whether this means a data set of the hub."""
    return text.startswith(_PREFIX)


def check_word(word: str) -> str:
    """The word itself, without a look at the network; a UserError where it is not of the form hub:OWNER/NAME."""
    if not _WORD.fullmatch(word):
        raise UserError(f"{word!r} is no data set of the hub; give hub:OWNER/NAME, such as hub:zkeown/sousa")
    return word


def cached(word: str) -> Path | None:
    """The data set's directory in the hub's cache (HF_HOME, HF_HUB_CACHE); None if it is not known to be whole there.

    The hub's library keeps a list of what belongs to a snapshot, but for those of old versions and single files.

    Raises:
        UserError: a wrong word.
    """
    # Imported here: it takes half a second, and only this form needs it.
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    there = found(word)
    if there is None:
        return None
    name, wanted = _request(word)
    try:
        get_cached_repo_tree(name, repo_type=wanted["repo_type"], revision=wanted["revision"])
    except CachedRepoTreeNotFoundError:
        return None
    return there


def found(word: str) -> Path | None:
    """The directory in the hub's cache that holds anything of the data set, whole or not; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, wanted = _request(word)
    try:
        there = Path(snapshot_download(name, **wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except ValueError as error:  # the hub's own rules for names
        raise UserError(f"{word!r} is no data set of the hub ({one_line(error)}); give hub:OWNER/NAME") from None
    return there if any(any(there.glob(pattern)) for pattern in _WANTED) else None


def _request(word: str) -> tuple[str, dict[str, Any]]:
    """A data set's name and what is asked of the hub about it."""
    match = _WORD.fullmatch(check_word(word))
    assert match is not None
    return match["name"], {"repo_type": "dataset", "revision": match["revision"], "allow_patterns": _WANTED}


def snapshot(word: str) -> Path:
    """The data set's directory in the hub's cache, downloaded if it is not known to be whole there.

    A download that was cut short goes on where it was. Without the hub what may be whole is taken, and that is said.

    Raises:
        UserError: a wrong word, no network, no such data set, no room for it.
    """
    if (there := cached(word)) is not None:
        return there
    name, wanted = _request(word)
    try:
        return fetch_snapshot(f"hub:{name}", name, wanted["repo_type"], wanted["allow_patterns"], wanted["revision"])
    except RefusedError:
        raise UserError(
            f"{word}: the hub has no such data set or revision, or grants access to its members only; check the "
            f"name at https://huggingface.co/datasets/{name}, or log in with: hf auth login"
        ) from None
    except UnreachableError as error:
        if (there := found(word)) is not None:
            print(f"{word} is read as it lies in {there}, whole or not: the hub cannot be reached", file=sys.stderr)
            return there
        raise UserError(
            f"{word} cannot be downloaded ({error}); download it where there is a network with: hf download "
            f"--repo-type dataset {name} --local-dir DIR, and give --data-dir DIR"
        ) from None
