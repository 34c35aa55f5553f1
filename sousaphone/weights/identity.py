"""Which weights a file or a directory holds: its hash, where it came from, and what is known of that."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousaphone.backbones import nano
from sousaphone.backbones.backbone_spec import BackboneSpec, WeightSource
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.weights.locate import used_files

if TYPE_CHECKING:
    from torch import nn

    from sousaphone.backbones.backbone import Backbone

RANDOM = "random"
_NOTE = ".origin.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def content_fingerprint(source: str) -> str:
    """SHA-256 of a weights file; of a directory, over the files that are read and their names; 'random' is itself.

    It tells whether a run that goes on still starts from the same weights, wherever they lie now.
    """
    if source == RANDOM:
        return RANDOM
    path = Path(source)
    if path.is_file():
        return file_sha256(path)
    files = [(file.name, file_sha256(file)) for file in used_files(path)]
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Read once for as long as the file stays as it is: some have 350 MB, and every trial of a sweep asks."""
    state = path.stat()
    return _sha256(str(path.resolve()), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, modified: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer that a state dict would hold: names, shapes and bytes.

    Two machines that start from the same weights, loaded or drawn from a seed, get the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Identity:
    origin: str  # an address and what tells its version, or 'local'
    published: WeightSource | None  # the registry's source that it is, by place, name or hash; None for any other
    sha256: str  # see `content_fingerprint`


def identify(spec: BackboneSpec, path: Path) -> Identity:
    """What is at a path, from where it lies, what was noted when it was fetched, its name, and its hash."""
    sha256 = content_fingerprint(str(path))
    source = claimed(spec, path)
    by_hash = next((each for each in spec.weights if each.sha256 == sha256), None)
    if by_hash is not None:
        source = by_hash
    elif source is not None and source.sha256 is not None:  # of that name, but other bytes
        source = None
    origin = _hub_origin(path) or _noted(path, sha256)
    if origin is None:
        origin = "local" if source is None else f"local, {'with the hash' if by_hash else 'named as'} {source.address}"
    return Identity(origin, source, sha256)


def claimed(spec: BackboneSpec, path: Path) -> WeightSource | None:
    """The published source that a path says it is, by its place in the hub's cache or by its name; nothing is read."""
    place = _hub_place(path)
    for source in spec.weights:
        if path.name == source.name or (place is not None and source.file is None and place[1] == source.hub):
            return source
    return None


def refuse_other_bytes(name: str, source: WeightSource, path: Path) -> None:
    """Raise a UserError where a file's SHA-256 is neither the published one nor the hub cache's name for it."""
    for file in [path] if path.is_file() else used_files(path):
        # The hub's cache names a large file's content by its SHA-256.
        blob = file.resolve().name
        wanted = source.sha256 if path.is_file() and source.sha256 else blob if _SHA256.fullmatch(blob) else None
        if wanted is not None and (found := file_sha256(file)) != wanted:
            raise UserError(
                f"{file} is not what {source.address} publishes: its SHA-256 is {found}, not {wanted}; delete it and "
                f"fetch it anew (python -m sousaphone.weights fetch {name}), or give it by hand if it is meant: "
                f"--weights {name}={path}"
            )


def note_origin(path: Path, url: str, sha256: str) -> None:
    """Leave beside a fetched file where it came from, and its hash."""
    with atomic_write(path.with_name(path.name + _NOTE)) as temporary:
        temporary.write_text(json.dumps({"url": url, "sha256": sha256}, indent=1), encoding="utf-8")


def record_of(backbone: Backbone, source: str) -> dict[str, Any]:
    """What a record, a table or a report needs to know of the weights that a backbone was built with.

    Returns:
        source (the path, or 'random'), origin, published (whether it is the registry's), sha256 (of the file),
        format, licence, pretraining, objective, frontend (what is computed), frontend_mismatch (in what that differs
        from what the weights were trained on, as was asked for).
    """
    spec, path = backbone.spec, Path(source)
    told: dict[str, Any] = {"source": source, "origin": RANDOM, "published": False}
    if source == RANDOM:
        told |= dict.fromkeys(("sha256", "format", "licence", "pretraining", "objective"))
    elif path.parent == nano.DIRECTORY:
        told |= {"origin": nano.ORIGIN, "sha256": file_sha256(path), "format": "safetensors", "licence": nano.LICENCE}
        told |= {"pretraining": nano.PRETRAINING, "objective": nano.OBJECTIVE}
    else:
        found = identify(spec, path)
        known = found.published is not None
        told |= {"origin": found.origin, "published": known, "sha256": found.sha256, "format": spec.format}
        told["licence"] = spec.licence if known else None
        told["pretraining"] = spec.pretraining if known else "not known: not one of the published files"
        told["objective"] = spec.objective if known else "not known"
    told["frontend"] = dataclasses.asdict(backbone.frontend.contract)
    return {**told, "frontend_mismatch": list(backbone.mismatches)}


def _hub_place(path: Path) -> tuple[str, str, str] | None:
    """Kind ('models', 'datasets'), repository and commit of a path in the hub's cache."""
    for at, part in enumerate(path.parts[:-2]):
        kind, *repository = part.split("--")
        if kind in ("models", "datasets") and len(repository) == 2 and path.parts[at + 1] == "snapshots":
            return kind, "/".join(repository), path.parts[at + 2]
    return None


def _hub_origin(path: Path) -> str | None:
    if (place := _hub_place(path)) is None:
        return None
    kind, repository, commit = place
    file = f"/{path.name}" if path.name != commit else ""
    return f"https://huggingface.co/{'datasets/' if kind == 'datasets' else ''}{repository}{file} at {commit}"


def _noted(path: Path, sha256: str) -> str | None:
    """Where a file was fetched from, if it is still the one that was."""
    try:
        note = json.loads(path.with_name(path.name + _NOTE).read_text(encoding="utf-8"))
        return str(note["url"]) if note["sha256"] == sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
