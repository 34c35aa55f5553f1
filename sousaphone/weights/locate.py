"""Find weights on this machine: in the user's directory, the hub's cache or torch's cache. Uses no network."""

from __future__ import annotations

import os
from pathlib import Path

from sousaphone.backbones.backbone_spec import WeightSource
from sousaphone.errors import UserError
from sousaphone.files import expanded, read_json

DIRECTORY = "SOUSAPHONE_WEIGHTS"
# Files of a transformers checkpoint that are read; of the weights files the first existing one.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def own_directory() -> Path | None:
    """The directory in SOUSAPHONE_WEIGHTS, or None if it is not set; raises UserError if it is not a directory."""
    given = os.environ.get(DIRECTORY)
    if not given:
        return None
    path = expanded(given).absolute()
    if not path.is_dir():
        raise UserError(f"{DIRECTORY}={given!r} is not a directory; set it to a directory of weights, or unset it")
    return path


def find(name: str, source: WeightSource) -> Path | None:
    """The local path of a backbone's published weights, or None; the user's directory takes precedence."""
    if (own := own_directory()) is not None:
        # A transformers checkpoint may have the name of its repository or of its backbone.
        for candidate in (source.name, *([name] if source.file is None else [])):
            if (own / candidate).exists():
                return own / candidate
    if source.hub is not None:
        return in_hub_cache(source)
    path = torch_cache(source)
    return path if path.is_file() else None


def in_hub_cache(source: WeightSource) -> Path | None:
    """The source's file in the newest snapshot, or the snapshot of a complete transformers checkpoint; else None."""
    from huggingface_hub import try_to_load_from_cache  # takes half a second to import

    found = try_to_load_from_cache(str(source.hub), source.file or SETTINGS[0], repo_type=source.hub_type)
    if not isinstance(found, str):
        return None
    path = Path(found)
    if source.file is not None:
        return path
    return path.parent if is_complete(path.parent) else None


def torch_cache(source: WeightSource) -> Path:
    """The path of a downloaded file in torch's cache (TORCH_HOME)."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", source.name).absolute()


def used_files(directory: Path) -> list[Path]:
    """The existing files of a transformers checkpoint that loading reads."""
    files = [path for name in SETTINGS if (path := directory / name).is_file()]
    for name in _WEIGHTS:
        if (main := directory / name).is_file():
            shards = [path for shard in _shards(main) if (path := directory / shard).is_file()]
            return [*files, main, *shards]
    return files


def is_complete(directory: Path) -> bool:
    """Whether a transformers checkpoint has its configuration and all of its weights."""
    files = {path.name for path in used_files(directory)}
    main = next((name for name in _WEIGHTS if name in files), None)
    return SETTINGS[0] in files and main is not None and files.issuperset(_shards(directory / main))


def _shards(weights: Path) -> list[str]:
    """Names of the files in an index; empty for other weights files and for a damaged index, which loading reports."""
    if not weights.name.endswith(".index.json"):
        return []
    try:
        names = read_json(weights)["weight_map"].values()
        return sorted({Path(name).name for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
