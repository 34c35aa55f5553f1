"""Fetching published weights: first whether the network is there at all, then each source, then whether it is right."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from sousaphone.backbones.backbone_spec import WeightSource
from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.files import flush
from sousaphone.hub import RefusedError, UnreachableError, fetch_snapshot
from sousaphone.weights.check import load_checked
from sousaphone.weights.identity import file_sha256, note_origin, refuse_other_bytes
from sousaphone.weights.locate import SETTINGS, own_directory, torch_cache

_PATIENCE = 5.0  # seconds that hosts get to answer at all, together
_STALL = 30.0  # seconds without a byte after which a connection counts as lost
_WANTED = [*SETTINGS, "model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin*"]


def fetch(wanted: Mapping[str, Iterable[WeightSource]]) -> tuple[dict[str, Path], dict[str, str]]:
    """Fetch what is missing, each from the first of its sources that has it.

    Args:
        wanted: by backbone, sources of the same bytes.

    Returns:
        What is here now, by backbone, and why the others are not.
    """
    silent = unreachable({_server(source) for sources in wanted.values() for source in sources})
    here: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for name, sources in wanted.items():
        why = []
        for source in sources:
            if reason := silent.get(_server(source)):
                why.append(reason)
                continue
            try:
                here[name] = _fetch(name, source)
                break
            except UserError as error:
                why.append(str(error))
        if name not in here:
            failed[name] = "; ".join(dict.fromkeys(why))
    return here, failed


def unreachable(servers: Iterable[str]) -> dict[str, str]:
    """Which of these addresses give no answer of any kind within seconds, and why."""
    answers: dict[str, str | None] = {}
    asked = list(servers)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        answers[_hub()] = "HF_HUB_OFFLINE is set"
    # Looking up a name has no time limit of its own, so each waits in a thread that is left behind if need be.
    threads = [threading.Thread(target=_ask, args=(s, answers), daemon=True) for s in asked if s not in answers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    found = {server: answers.get(server, f"no answer within {_PATIENCE:g} s") for server in asked}
    return {server: f"{server} cannot be reached ({why})" for server, why in found.items() if why is not None}


def _ask(server: str, answers: dict[str, str | None]) -> None:
    """Any answer will do, one of refusal too; None stands for one."""
    try:
        with urlopen(Request(server, method="HEAD"), timeout=_PATIENCE):
            answers[server] = None
    except HTTPError:
        answers[server] = None
    except URLError as error:
        answers[server] = str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        answers[server] = str(error)


def _server(source: WeightSource) -> str:
    if source.hub is not None:
        return _hub()
    parts = urlsplit(str(source.url))
    return f"{parts.scheme}://{parts.netloc}"


def _hub() -> str:
    from huggingface_hub.constants import ENDPOINT

    return str(ENDPOINT)


def _fetch(name: str, source: WeightSource) -> Path:
    """A UserError where it cannot be fetched, or is not what it should be."""
    spec = REGISTRY[name]
    if source.url is not None:
        own = own_directory()
        target = own / source.name if own is not None and os.access(own, os.W_OK) else torch_cache(source)
        download(source.url, target, source.sha256, lambda path: load_checked(spec, path))
        return target
    path = _from_hub(source)
    refuse_other_bytes(name, source, path)
    load_checked(spec, path)
    return path


def download(url: str, target: Path, sha256: str | None, check: Callable[[Path], object]) -> None:
    """Fetch `url` into a temporary directory; only a whole file that passes its checks becomes `target`.

    Args:
        sha256: what the file must have; None where that is not known.
        check: called with the file, under its own name in the temporary directory; raises UserError to refuse it.

    Raises:
        UserError: it cannot be fetched or stored, or is not the file that it should be. Nothing of it is kept.
    """
    import torch

    print(f"fetching {target.name} from {url}", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL)  # torch sets no time limit
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as directory:
            file = Path(directory, target.name)
            torch.hub.download_url_to_file(url, str(file), sha256, progress=sys.stderr.isatty())
            check(file)
            flush(file)
            note_origin(target, url, file_sha256(file))
            file.replace(target)
        flush(target.parent)
    except HTTPError as error:
        raise UserError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UserError(f"{url} cannot be fetched to {target.parent} ({reason})") from error
    except RuntimeError as error:  # torch's, for another hash
        raise UserError(f"{url} gave a damaged or another file, not kept: {error}") from error
    except UserError as error:
        raise UserError(f"{url} gave a file that is not right, not kept: {error}") from None
    finally:
        socket.setdefaulttimeout(before)


def _from_hub(source: WeightSource) -> Path:
    """A file or a checkpoint in the hub's cache; the hub's library shows progress, resumes and renames by itself.

    Raises:
        UserError: the hub has no such thing for us, or there is no room for it.
    """
    patterns = [source.file] if source.file is not None else _WANTED
    try:
        directory = fetch_snapshot(source.address, str(source.hub), source.hub_type, patterns, choose=_one_of_each)
    except RefusedError:
        why = "there is no such repository or file, or it is open to its members only (hf auth login)"
        raise UserError(f"{source.address} cannot be fetched: {why}") from None
    except UnreachableError as error:
        raise UserError(f"{source.address} cannot be fetched: {error}") from None
    return directory if source.file is None else directory / source.file


def _one_of_each(names: list[str]) -> list[str]:
    """Without the other form of weights that are there as safetensors."""
    safe = any(name.endswith(".safetensors") for name in names)
    return [name for name in names if not (safe and ".bin" in name)]
