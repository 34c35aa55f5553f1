"""Publish a model folder on the Hugging Face hub, with a Space that runs its page.

The files of an upload are planned first, by their path in a repository (`Repository`), so that a dry run writes what an
upload sends. A commit is atomic: a reader of the hub sees the whole model or none of it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sousaphone.backbones import nano
from sousaphone.deploy import model_folder
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.public_files import Files, base_name, published_files
from sousaphone.deploy.space import space_files
from sousaphone.errors import UserError
from sousaphone.files import atomic_write, expanded
from sousaphone.hub import RefusedError, hub_errors
from sousaphone.runs.directory import RunDirectory
from sousaphone.text import one_line
from sousaphone.weights import RANDOM

# Licences that allow anybody to pass on weights, as identifiers of the hub.
_FREE = ("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0")
_NON_COMMERCIAL = ("cc-by-nc-4.0", "cc-by-nc-sa-4.0")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")
_SILENCE_SECONDS = 120.0  # without an answer of the hub; its library waits for ever


@dataclass(frozen=True)
class Repository:
    """A repository of the hub and the files that it gets."""

    kind: Literal["model", "space"]
    files: Files

    def sizes(self) -> dict[str, int]:
        """The bytes of each file."""
        return {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}


@dataclass(frozen=True)
class Plan:
    """Repositories to upload, and what is known about the right to publish them."""

    name: str  # OWNER/NAME
    repositories: tuple[Repository, ...]
    notes: tuple[str, ...]


def plan(folder: Path, name: str, *, space: bool = False, licence: str | None = None) -> Plan:
    """Plan the publication of a model folder.

    Args:
        name: OWNER/NAME on the hub.
        space: add a Space with the model's page.
        licence: the licence of the published model, an identifier of the hub such as 'cc-by-4.0'.

    Raises:
        UserError: not a model folder or a damaged one, an invalid name, or its licence does not allow publishing.
    """
    _refuse_invalid_name(name)
    if RunDirectory(folder).exists:
        raise UserError(
            f"{folder} is a run; export its model first: sousaphone export {folder} --to DIR, and publish DIR"
        )
    config = ModelConfig.read(folder)
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UserError(f"--licence {licence!r} is not an identifier of the hub; give one such as mit or cc-by-4.0")
    _refuse_licence(config, licence)
    try:
        files = published_files(folder, config, name, licence)
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(f"{one_line(error, 400)}; export the model again") from None
    base = config.base_weights
    adapter = any(Path(file).name == model_folder.ADAPTER for file in files)
    incomplete = adapter and not (_is_drawn_or_shipped(base) or base.get("published"))
    repositories = [Repository("model", files)]
    if space:
        if incomplete:
            raise UserError(f"--space: {folder} needs base weights that only you have; export it with --merged")
        repositories.append(Repository("space", space_files(files, name, _licence(config, licence))))
    return Plan(name, tuple(repositories), tuple(_notes(config, licence, incomplete)))


def _refuse_invalid_name(name: str) -> None:
    """Raise a UserError unless a name is OWNER/NAME in the characters that the hub allows."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--to {name}: {one_line(error, 300)}; give OWNER/NAME") from None
    if "/" not in name:
        raise UserError(f"--to {name} has no owner; give OWNER/NAME, with your account or organisation as OWNER")


def _notes(config: ModelConfig, given: str | None, incomplete: bool) -> Iterator[str]:
    base, found = config.base_weights, _licence(config, given)
    yield f"licence on the hub: {found or 'unknown; --licence ID sets one'}"
    if base.get("source") == RANDOM:
        yield "weights: trained from random ones; no other licence applies"
    else:
        yield f"weights: trained from {base_name(base)}, licence {base.get('licence') or 'not known'}"
    if any((each or "").lower() in _NON_COMMERCIAL for each in (found, base.get("licence"))):
        yield "warning: this licence forbids commercial use"
    if incomplete:
        yield "warning: an adapter over base weights that only you have; others cannot load it without them (--weights)"
    if config.trained.get("synthetic_data"):
        yield "data: the built-in synthetic data set"
    else:
        yield "warning: the licence of the training data is not known; publish only if their owner permits it"


def write(planned: Plan, directory: Path) -> None:
    """Write the files of a dry run, each repository to a directory of its kind in a new or empty directory."""
    target = Path(os.path.realpath(expanded(directory)))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"--dry-run {directory} exists and is not empty; give a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target, durable=False) as temporary:
        for repository in planned.repositories:
            for name, content in repository.files.items():
                path = temporary / repository.kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    shutil.copyfile(content, path)


def upload(planned: Plan, public: bool = False) -> list[str]:
    """Upload in one commit per repository, create missing repositories, and return their addresses.

    After an interruption, a second call uploads only the missing files.

    Args:
        public: the visibility of new repositories. An existing repository of the other visibility is refused.

    Raises:
        UserError: no token, or the hub refuses it, the name or the files.
        UnreachableError: the connection failed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token

    if get_token() is None:
        raise UserError("not logged in to the hub; run `hf auth login`, or set HF_TOKEN to a token that may write")
    get_session().timeout = _SILENCE_SECONDS
    name, api = planned.name, HfApi(library_name="sousaphone")
    present, urls = {}, []
    for each in planned.repositories:
        sdk = "gradio" if each.kind == "space" else None
        with _refusals(name, each.kind):
            url = api.create_repo(name, repo_type=each.kind, private=not public, exist_ok=True, space_sdk=sdk)
            about: Any = api.repo_info(name, repo_type=each.kind)
        if public == bool(about.private):  # a new one has the wanted visibility
            state, remedy = ("private", "leave --public out") if public else ("public", "if it is yours, give --public")
            raise UserError(f"{url} exists and is {state}; {remedy}, or give another --to OWNER/NAME")
        present[each.kind] = {file.rfilename for file in about.siblings or ()}
        urls.append(str(url))
    for each in planned.repositories:
        # Files of an earlier model, which would be loaded or shown together with this one.
        stale = {file for file in present[each.kind] if _is_ours(file, each.kind)} - each.files.keys()
        with _refusals(name, each.kind):
            added = [CommitOperationAdd(file, content) for file, content in each.files.items()]
            api.create_commit(
                name,
                [*added, *map(CommitOperationDelete, sorted(stale))],
                commit_message="Publish a model of SOUSAphone",
                repo_type=each.kind,
            )
    return urls


def _is_ours(file: str, kind: str) -> bool:
    """Whether an earlier upload may have written this file."""
    if kind == "space":
        return file.startswith(("model/", "sousaphone/"))
    return re.sub(r"^seed-\d+/", "", file) in model_folder.FILES


@contextmanager
def _refusals(name: str, kind: str) -> Iterator[None]:
    try:
        with hub_errors((400, 401, 402, 403, 404, 409, 413, 422)):
            yield
    except RefusedError as error:
        own = "give a token that may write, and your account or organisation as the OWNER of --to OWNER/NAME"
        why = {
            401: "the hub does not accept the token; log in again with `hf auth login`, or set HF_TOKEN",
            402: f"the hub requires a subscription for this {kind}; publish the model without --space",
            403: f"the token may not write there; {own}",
            404: f"the hub has no such owner, or the token may not write there; {own}",
        }
        raise UserError(f"{kind} {name}: {why.get(error.status, error)}") from None
    except UserError:
        raise
    except ValueError as error:  # metadata of an edited card, or files, that the hub rejects
        raise UserError(f"{kind} {name}: {one_line(error, 400)}") from None


def _licence(config: ModelConfig, given: str | None) -> str | None:
    return given or config.licences.get("model") or config.base_weights.get("licence")


def _is_drawn_or_shipped(base: Mapping[str, Any]) -> bool:
    """Whether anybody who has this package has the base weights: drawn from the seed, or shipped."""
    return base.get("source") == RANDOM or base.get("origin") == nano.ORIGIN


def _refuse_licence(config: ModelConfig, given: str | None) -> None:
    found = _licence(config, given)
    if given or config.base_weights.get("source") == RANDOM or (found or "").lower() in (*_FREE, *_NON_COMMERCIAL):
        return
    what = f"has the licence {found}, which is not known to allow publishing" if found else "has no known licence"
    raise UserError(
        f"the model is trained from {base_name(config.base_weights)}, which {what}; if you may publish it, state the "
        "licence with --licence ID"
    )
