"""Where pretrained weights come from, and how we know which ones a trial started from."""

from __future__ import annotations

import hashlib
import os
import sys
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn

from sousaphone.backbones.registry import REGISTRY
from sousaphone.backbones.spec import WeightSource
from sousaphone.errors import UserError

RANDOM = "random"


def resolve(name: str, scale: str, choice: str) -> str:
    """A `--weights` choice as what a trial takes: 'random', or the absolute path of a file or directory.

    `auto` looks in the directory named by SOUSAPHONE_WEIGHTS, in the hub's or torch's cache, then on the network. The
    nano scale ships no weights, so `auto` is random there.

    Raises:
        UserError: nothing is found; the message names the file, its source and the option that gives it by hand.
    """
    if choice == RANDOM or (choice == "auto" and scale == "nano"):
        return RANDOM
    if choice != "auto":
        path = Path(choice).expanduser().absolute()
        if not path.exists():
            raise UserError(f"--weights {name}={choice}: no such file or directory; give an existing path or 'random'")
        return str(path)
    tried = []
    for source in REGISTRY[name].weights:
        found = _local(name, source) or _hub(source) or _download(source)
        if found is not None:
            return str(found)
        tried.append(_describe(source))
    raise UserError(
        f"no weights for {name}: {' or '.join(tried)} is neither in SOUSAPHONE_WEIGHTS nor to be had from the network; "
        f"download it and pass --weights {name}=PATH (or --weights random, which compares nothing published)"
    )


def _local(name: str, source: WeightSource) -> Path | None:
    """`name/` or the source's file name in the directory SOUSAPHONE_WEIGHTS."""
    root = os.environ.get("SOUSAPHONE_WEIGHTS")
    if not root:
        return None
    wanted = source.file or (source.url or "").rpartition("/")[2] or name
    path = Path(root).expanduser().absolute() / wanted
    return path if path.exists() else None


def _hub(source: WeightSource) -> Path | None:
    """The source in the hub's cache, downloaded if the network allows."""
    if source.hub is None:
        return None
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        if source.file is not None:
            return Path(hf_hub_download(source.hub, source.file))
        return Path(snapshot_download(source.hub, allow_patterns=["*.json", "*.safetensors", "*.bin"]))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError):
        return None


def _download(source: WeightSource) -> Path | None:
    """The source's address in torch's cache of checkpoints, downloaded if the network allows."""
    if source.url is None:
        return None
    path = Path(torch.hub.get_dir(), "checkpoints", source.file or source.url.rpartition("/")[2])
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written under another name and renamed when whole.
            torch.hub.download_url_to_file(source.url, str(path), progress=sys.stderr.isatty())
        except (OSError, HTTPException):
            return None
    return path.absolute()


def _describe(source: WeightSource) -> str:
    if source.hub is not None:
        return f"{source.hub}{'/' + source.file if source.file else ''} (Hugging Face hub)"
    return str(source.url)


def content_fingerprint(source: str) -> str:
    """SHA-256 of a weights file, or of all files of a directory with their names; 'random' has none and is itself.

    It tells whether a run that goes on still starts from the same weights, wherever they lie now.
    """
    if source == RANDOM:
        return RANDOM
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = [(name.relative_to(path).as_posix(), name) for name in sorted(path.rglob("*")) if name.is_file()]
    return hashlib.sha256(repr([(name, content_fingerprint(str(file))) for name, file in files]).encode()).hexdigest()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer that a state dict would hold: names, shapes and bytes.

    Two machines that start from the same weights, loaded or drawn from a seed, get the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
