"""Strict loading of transformers checkpoints from a directory."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.utils import logging

from sousaphone.backbones.state_dicts import refuse_misfits
from sousaphone.errors import UserError
from sousaphone.text import one_line

# Errors of reading a damaged or mismatched checkpoint, which depend on the file format and on the damage.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError)


def load_config(config_class: Any, path: Path) -> Any:
    """Read a checkpoint's config.json; raises a UserError if it is missing, damaged or of another architecture."""
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json; give the directory of a transformers checkpoint")
    if (path / "adapter_config.json").exists():  # transformers would load the adapter's base model instead
        raise UserError(f"{path} has an adapter (adapter_config.json) for another model; merge it first")
    wanted = config_class.model_type
    try:
        raw, _ = config_class.get_config_dict(path)
        found = raw.get("model_type")
        # A full CLAP contains the configuration of its audio model.
        whole = f"{found}_audio_model" == wanted and isinstance(raw.get(config_class.base_config_key), dict)
        config = config_class.from_pretrained(path) if found == wanted or whole else None
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise UserError(f"{path / 'config.json'} cannot be read: {one_line(error, 300)}") from error
    if config is None:
        raise UserError(f"{path} is a {found!r} checkpoint; this backbone needs {wanted!r}")
    return config


def load_extractor(path: Path) -> dict[str, Any]:
    """Read the feature extractor's settings from a checkpoint's directory; empty if there are none."""
    # transformers 5 may store them in the processor's settings.
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "feature_extractor")):
        if not (file := path / name).is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found = content.get(key, {}) if key else content
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{file} cannot be read: {one_line(error, 300)}") from error
        if not isinstance(found, dict):
            raise UserError(f"{file} has no feature extractor settings")
        if found:
            return found
    return {}


def load_pretrained(
    model_class: Any, path: Path, config: Any, dropped: tuple[str, ...], renamed: Mapping[str, str] | None = None
) -> Any:
    """Load the checkpoint's model in float32 and evaluation mode. Raises a UserError if a tensor is missing, unknown or
    of another shape, or the file is damaged.

    Args:
        dropped: prefixes of tensors that the backbone does not need, such as the classifier's.
        renamed: regular expressions of tensor names and their replacements, in addition to those of transformers.
    """
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # no load report
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without ignore_mismatched_sizes transformers reports only the first tensor of another shape.
            model, info = model_class.from_pretrained(
                path,
                config=config,
                key_mapping=dict(renamed or {}),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                dtype=torch.float32,
            )
    except _DAMAGE as error:
        raise UserError(f"{path} cannot be loaded: {one_line(error, 300)}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
    unknown = [key for key in info["unexpected_keys"] if not key.startswith(dropped)]
    reshaped = [f"{key} {list(found)} for {list(wanted)}" for key, found, wanted in info["mismatched_keys"]]
    misfits = {"missing": info["missing_keys"], "unknown": unknown, "of another shape": reshaped}
    refuse_misfits(f"{path} does not fit {model_class.__name__}", misfits)
    return model
