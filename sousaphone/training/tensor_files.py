"""Files of tensors: safetensors, and those of earlier versions, which `torch.save` wrote.

They may come from anybody. Reading one executes nothing and maps the tensors into memory, so that a wrong size in a
header costs no memory. Compare names, types and shapes with those of the model before using a tensor.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

_MOST_PICKLE_BYTES = 64 * 2**20
_ALLOWED = re.compile(r"torch \w+Storage|torch\._utils _rebuild_tensor_v2|collections OrderedDict")


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors on the CPU; those that share memory or are not contiguous are copied first."""
    separate, seen = {}, set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in seen or not tensor.is_contiguous()
        separate[name] = tensor.clone(memory_format=torch.contiguous_format) if shared else tensor
        seen.add(storage)
    # save_file would report a full disk as an error of its own type.
    path.write_bytes(safetensors.torch.save(separate, {"format": "pt"}))  # as transformers marks its files


def read(path: Path, root: Path) -> dict[str, Tensor]:
    """Map a safetensors file below the directory `root`; raise a ValueError if it is damaged or outside."""
    refuse_outside(path, root)
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # the library raises errors of many types
        raise ValueError(f"{path} is not a safetensors file, or damaged ({type(error).__name__})") from error


def read_older(path: Path, root: Path) -> Any:
    """Map a file of an earlier version below `root`, with tensors and plain data; raise a ValueError if it is damaged,
    outside, or holds anything else."""
    refuse_outside(path, root)
    try:
        with zipfile.ZipFile(path) as archive:
            (pickle,) = (entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
            if pickle.file_size > _MOST_PICKLE_BYTES:
                raise ValueError(f"{pickle.file_size} bytes besides tensors")
            # torch itself allows further functions, some of which allocate as much memory as the file wants.
            for opcode, argument, _ in pickletools.genops(archive.read(pickle)):
                if "GLOBAL" in opcode.name and not _ALLOWED.fullmatch(str(argument)):
                    raise ValueError(f"{argument} is not part of a tensor")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # unpickling arbitrary bytes can raise anything
        raise ValueError(f"{path} is not a file of tensors, or damaged ({type(error).__name__})") from error


def as_tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """Return what `read_older` found; raise a ValueError unless it is tensors by name."""
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise ValueError(f"{path} is not a file of tensors")
    return found


def refuse_outside(path: Path, root: Path) -> None:
    """Raise a ValueError unless the path leads to a regular file below the directory `root`."""
    try:
        real = path.resolve(strict=True)
        inside = real.is_file() and real.is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # missing, or links in a circle
        inside = False
    if not inside:
        raise ValueError(f"{path} is not a file in {root}")
