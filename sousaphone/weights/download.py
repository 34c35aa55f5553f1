"""Fetch published weights: test the connection, and check what was downloaded."""

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
from urllib.error import HTTPError
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

CONNECT_SECONDS = 5.0  # time limit for the first answer of all servers together
_STALL_SECONDS = 30.0  # without a byte; then the connection has failed
_PATTERNS = [*SETTINGS, "model*.safetensors", "model*.safetensors.index.json", "pytorch_model*.bin*"]


def fetch(wanted: Mapping[str, WeightSource]) -> tuple[dict[str, Path], dict[str, str]]:
    """Fetch weights.

    Args:
        wanted: sources by backbone.

    Returns:
        Paths of the fetched weights, and the reasons why the others failed, by backbone.
    """
    silent = unreachable(set(map(_server, wanted.values())))
    fetched: dict[str, Path] = {}
    failed: dict[str, str] = {}
    for name, source in wanted.items():
        try:
            if reason := silent.get(_server(source)):
                raise UserError(reason)
            fetched[name] = _fetch(name, source)
        except UserError as error:
            failed[name] = str(error)
    return fetched, failed


def unreachable(servers: Iterable[str]) -> dict[str, str]:
    """The servers that do not answer in time, and why; an HTTP error is an answer too."""
    errors: dict[str, str | None] = {}
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        errors[_hub()] = "HF_HUB_OFFLINE is set"
    servers = list(servers)
    # Name lookup has no time limit, so each runs in a daemon thread that may be left behind.
    threads = [threading.Thread(target=_probe, args=(s, errors), daemon=True) for s in servers if s not in errors]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + CONNECT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    found = {server: errors.get(server, f"no answer within {CONNECT_SECONDS:g} s") for server in servers}
    return {server: f"{server} cannot be reached ({why})" for server, why in found.items() if why is not None}


def _probe(server: str, errors: dict[str, str | None]) -> None:
    """Request a server's root and store the connection error, or None if it answers."""
    try:
        with urlopen(Request(server, method="HEAD"), timeout=CONNECT_SECONDS):
            errors[server] = None
    except HTTPError:
        errors[server] = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        errors[server] = str(getattr(reason, "strerror", None) or reason)


def _server(source: WeightSource) -> str:
    if source.hub is not None:
        return _hub()
    parts = urlsplit(str(source.url))
    return f"{parts.scheme}://{parts.netloc}"


def _hub() -> str:
    from huggingface_hub.constants import ENDPOINT

    return str(ENDPOINT)


def _fetch(name: str, source: WeightSource) -> Path:
    """Fetch and check weights; raises UserError if either fails."""
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
    """Download `url` to `target`. The file is complete and checked before it appears; a failure leaves no file.

    Args:
        sha256: expected hash; None if it is not known.
        check: called with the file, under its own name in a temporary directory; raises UserError to reject it.

    Raises:
        UserError: the file cannot be fetched or stored, or is rejected.
    """
    import torch

    print(f"fetching {target.name} from {url}", file=sys.stderr)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)  # torch sets no time limit
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
        raise UserError(f"{url} returned a damaged or different file, which was removed: {error}") from error
    except UserError as error:
        raise UserError(f"{url} returned a wrong file, which was removed: {error}") from None
    finally:
        socket.setdefaulttimeout(before)


def _from_hub(source: WeightSource) -> Path:
    """Fetch a file or a checkpoint into the hub's cache; raises UserError if that fails."""
    patterns = [source.file] if source.file is not None else _PATTERNS
    try:
        directory = fetch_snapshot(source.address, str(source.hub), source.hub_type, patterns, choose=_skip_duplicates)
    except RefusedError:
        why = "there is no such repository or file, or it is open to its members only (hf auth login)"
        raise UserError(f"{source.address} cannot be fetched: {why}") from None
    except UnreachableError as error:
        raise UserError(f"{source.address} cannot be fetched: {error}") from None
    return directory if source.file is None else directory / source.file


def _skip_duplicates(names: list[str]) -> list[str]:
    """Drop pickled weights (.bin) if there are safetensors files."""
    safe = any(name.endswith(".safetensors") for name in names)
    return [name for name in names if not (safe and ".bin" in name)]
