"""Identify the weights in a file or directory: hash, origin, and whether they are the published ones."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousaphone.backbones import nano
from sousaphone.backbones.backbone_spec import BackboneSpec, WeightSource
from sousaphone.errors import UserError
from sousaphone.files import read_json, write_json
from sousaphone.weights.locate import used_files

if TYPE_CHECKING:
    from torch import nn

    from sousaphone.backbones.backbone import Backbone

RANDOM = "random"
_NOTE = ".origin.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def content_fingerprint(source: str) -> str:
    """SHA-256 of a weights file, or of the names and contents of the files read from a directory; 'random' for random.

    A resumed run compares it, so that weights may be moved but not changed.
    """
    if source == RANDOM:
        return RANDOM
    path = Path(source)
    if path.is_file():
        return file_sha256(path)
    files = [(file.name, file_sha256(file)) for file in used_files(path)]
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, cached until the file changes: some have 350 MB, and every trial needs it."""
    state = path.stat()
    return _sha256(str(path.resolve()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, modified: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of a state dict; equal weights have it on every machine."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Identity:
    origin: str  # an address with its version, or 'local'
    published: WeightSource | None  # the registry's source if it matches by location, name or hash
    sha256: str  # see `content_fingerprint`


def identify(spec: BackboneSpec, path: Path) -> Identity:
    """Identify a path by its location, its name, its hash and the note written when it was fetched."""
    sha256 = content_fingerprint(str(path))
    source = claimed(spec, path)
    by_hash = spec.weights is not None and spec.weights.sha256 == sha256
    if by_hash:
        source = spec.weights
    elif source is not None and source.sha256 is not None:  # that name, but other bytes
        source = None
    origin = _hub_origin(path) or _noted(path, sha256)
    if origin is None:
        origin = "local" if source is None else f"local, {'with the hash' if by_hash else 'named as'} {source.address}"
    return Identity(origin, source, sha256)


def claimed(spec: BackboneSpec, path: Path) -> WeightSource | None:
    """The published source that a path claims to be, by its location in the hub's cache or by its name."""
    source, place = spec.weights, _hub_place(path)
    if source is None or path.name == source.name:
        return source
    return source if place is not None and source.file is None and place[1] == source.hub else None


def refuse_other_bytes(name: str, source: WeightSource, path: Path) -> None:
    """Raise a UserError if a file's SHA-256 differs from the published one or from its name in the hub's cache."""
    for file in [path] if path.is_file() else used_files(path):
        blob = file.resolve().name  # the hub's cache names large files by their SHA-256
        expected = source.sha256 if path.is_file() and source.sha256 else blob if _SHA256.fullmatch(blob) else None
        if expected is not None and (found := file_sha256(file)) != expected:
            raise UserError(
                f"{file} differs from {source.address}: its SHA-256 is {found}, not {expected}; delete it and fetch it "
                f"again (python -m sousaphone.weights fetch {name}), or use it anyway with --weights {name}={path}"
            )


def note_origin(path: Path, url: str, sha256: str) -> None:
    """Write the origin and the hash of a fetched file next to it."""
    write_json(path.with_name(path.name + _NOTE), {"url": url, "sha256": sha256}, indent=1)


def record_of(backbone: Backbone, source: str) -> dict[str, Any]:
    """Describe the weights that a backbone was built with, for records, tables and reports.

    Returns:
        source (the path, or 'random'), origin, published (whether it is the registry's), sha256 (of the file), format,
        licence, pretraining, objective, frontend (the features that are computed), frontend_mismatch (accepted
        differences of those from the features that the weights were trained on).
    """
    spec, path = backbone.spec, Path(source)
    record: dict[str, Any] = {"source": source, "origin": RANDOM, "published": False}
    record |= dict.fromkeys(("sha256", "format", "licence", "pretraining", "objective"))
    if path.parent == nano.DIRECTORY:
        record |= {"origin": nano.ORIGIN, "sha256": file_sha256(path), "format": "safetensors"}
        record |= {"licence": nano.LICENCE, "pretraining": nano.PRETRAINING, "objective": nano.OBJECTIVE}
    elif source != RANDOM:
        found = identify(spec, path)
        record |= {"origin": found.origin, "sha256": found.sha256, "format": spec.format}
        record |= {"pretraining": "not known: not one of the published files", "objective": "not known"}
        if found.published is not None:
            record |= {"published": True, "licence": spec.licence}
            record |= {"pretraining": spec.pretraining, "objective": spec.objective}
    record["frontend"] = dataclasses.asdict(backbone.frontend.contract)
    return {**record, "frontend_mismatch": list(backbone.mismatches)}


def _hub_place(path: Path) -> tuple[str, str, str] | None:
    """Kind ('models' or 'datasets'), repository and commit of a path in the hub's cache, or None elsewhere."""
    for part, snapshots, commit in zip(path.parts, path.parts[1:], path.parts[2:], strict=False):
        kind, *repository = part.split("--")
        if kind in ("models", "datasets") and len(repository) == 2 and snapshots == "snapshots":
            return kind, "/".join(repository), commit
    return None


def _hub_origin(path: Path) -> str | None:
    if (place := _hub_place(path)) is None:
        return None
    kind, repository, commit = place
    file = f"/{path.name}" if path.name != commit else ""
    return f"https://huggingface.co/{'datasets/' if kind == 'datasets' else ''}{repository}{file} at {commit}"


def _noted(path: Path, sha256: str) -> str | None:
    """The address that a file was fetched from, if it has not changed since."""
    try:
        note = read_json(path.with_name(path.name + _NOTE))
        return str(note["url"]) if note["sha256"] == sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
