"""Where weights lie on this machine: the user's own directory, the hub's cache, torch's cache. No network here."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sousaphone.backbones.backbone_spec import WeightSource
from sousaphone.errors import UserError

DIRECTORY = "SOUSAPHONE_WEIGHTS"
# What of a transformers checkpoint is read; the first kind of weights that is there is the one that is loaded.
SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def own_directory() -> Path | None:
    """The directory that SOUSAPHONE_WEIGHTS names, None where it is not set; a UserError where it names none."""
    given = os.environ.get(DIRECTORY)
    if not given:
        return None
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"{DIRECTORY}={given!r} is no directory; name one that holds weights, or unset it")
    return path


def find(name: str, source: WeightSource) -> Path | None:
    """A backbone's published weights: in the user's directory, in the hub's cache or torch's; None: nowhere here."""
    if (own := own_directory()) is not None:
        # A transformers checkpoint may be called as its repository or as its backbone.
        for called in (source.name, *([name] if source.file is None else [])):
            if (own / called).exists():
                return own / called
    if source.hub is not None:
        return in_hub_cache(source)
    path = torch_cache(source)  # where downloads from an address land
    return path if path.is_file() else None


def in_hub_cache(source: WeightSource) -> Path | None:
    """The newest snapshot's file, or the snapshot where it is whole."""
    # Imported here: it takes half a second, and whoever gives paths does without.
    from huggingface_hub import try_to_load_from_cache

    wanted = source.file or SETTINGS[0]
    found = try_to_load_from_cache(str(source.hub), wanted, repo_type=source.hub_type)
    if not isinstance(found, str):
        return None
    if source.file is not None:
        return Path(found)
    directory = Path(found).parent
    return directory if is_whole(directory) else None


def torch_cache(source: WeightSource) -> Path:
    """Where in torch's cache (TORCH_HOME) a source's file belongs."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", source.name).absolute()


def used_files(directory: Path) -> list[Path]:
    """The files of a transformers checkpoint that loading reads, as far as they are there."""
    files = [path for name in SETTINGS if (path := directory / name).is_file()]
    main = next((path for name in _WEIGHTS if (path := directory / name).is_file()), None)
    if main is None:
        return files
    files.append(main)
    if main.name.endswith(".index.json"):
        files += [path for name in _shards(main) if (path := directory / name).is_file()]
    return files


def is_whole(directory: Path) -> bool:
    """Whether a transformers checkpoint has its configuration and all of its weights."""
    files = {path.name for path in used_files(directory)}
    weights = [name for name in _WEIGHTS if name in files]
    index = directory / weights[0] if weights and weights[0].endswith(".index.json") else None
    return SETTINGS[0] in files and bool(weights) and (index is None or files.issuperset(_shards(index)))


def _shards(index: Path) -> list[str]:
    """The files among which an index spreads a checkpoint's tensors; none if it is damaged, which loading tells."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({Path(name).name for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
