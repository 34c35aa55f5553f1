"""Strict loading of transformers checkpoints (a directory or a hub repository already resolved to one)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sousaphone.errors import UserError


def load_config(config_class: Any, path: Path) -> Any:
    """The checkpoint's configuration.

    Raises:
        UserError: no config.json there, or one of another architecture.
    """
    if not (path / "config.json").is_file():
        raise UserError(f"{path} holds no config.json; give the directory of a transformers checkpoint")
    wanted = config_class.model_type
    raw, _ = config_class.get_config_dict(path)
    found = raw.get("model_type")
    if found != wanted and wanted not in {f"{found}_audio_model"}:
        raise UserError(f"{path} holds a {found!r} checkpoint; this backbone wants {wanted!r}")
    return config_class.from_pretrained(path)


def load_pretrained(model_class: Any, path: Path, config: Any, dropped: tuple[str, ...]) -> Any:
    """The checkpoint's model in float32, every tensor accounted for.

    Args:
        dropped: prefixes of tensors that the checkpoint may hold and the backbone does without (its old head).

    Raises:
        UserError: a tensor is missing, unknown or of another shape, or the file is damaged.
    """
    import torch

    try:
        model, info = model_class.from_pretrained(
            path, config=config, output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(dropped)]
    problems = [
        f"{kind}: {', '.join(map(str, sorted(keys)[:5]))}{' ...' if len(keys) > 5 else ''}"
        for kind, keys in (
            ("missing", info["missing_keys"]),
            ("unknown", unexpected),
            ("of another shape", info["mismatched_keys"]),
        )
        if keys
    ]
    if problems:
        raise UserError(f"{path} does not fit {model_class.__name__}; {'; '.join(problems)}")
    return model
