"""Strict loading of transformers checkpoints from a directory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from sousaphone.backbones.state_dicts import refuse_misfits
from sousaphone.errors import UserError
from sousaphone.files import read_json
from sousaphone.text import one_line

_MOST_LAYERS, _MOST_WIDTH, _MOST_PARAMETERS = 256, 2**16, 10**9


def load_config(config_class: Any, path: Path) -> Any:
    """Read a checkpoint's config.json; raises a UserError if it is missing, damaged or of another architecture."""
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json; give the directory of a transformers checkpoint")
    if (path / "adapter_config.json").exists():  # transformers would load the adapter's base model instead
        raise UserError(f"{path} has an adapter (adapter_config.json) for another model; merge it first")
    wanted = config_class.model_type
    try:
        raw = read_json(path / "config.json")
        found = raw.get("model_type")
        # A full CLAP contains the configuration of its audio model.
        whole = f"{found}_audio_model" == wanted and isinstance(raw.get(config_class.base_config_key), dict)
        if not (found == wanted or whole):
            raise UserError(f"{path} is a {found!r:.40} checkpoint; this backbone needs {wanted!r}")
        settings = raw[config_class.base_config_key] if whole else raw
        # Of all settings only the architecture: others name code, a quantisation, kernels or other files.
        settings = {name: settings[name] for name in config_class.__annotations__ if name in settings}
        _refuse_sizes(settings)
        return config_class(**settings)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, StrictDataclassError) as error:
        raise UserError(f"{path / 'config.json'} cannot be read: {one_line(error, 300)}") from error


def _refuse_sizes(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError if a number is one that no network has."""
    for name, value in settings.items():
        most = _MOST_LAYERS if name in ("num_hidden_layers", "depths") else _MOST_WIDTH
        for number in value if isinstance(value, list) else [value]:
            whole = isinstance(number, int) and not isinstance(number, bool)
            if isinstance(number, int | float) and not (whole <= number <= most) and not isinstance(number, bool):
                raise ValueError(f"{name}={number!r:.40} is out of range; give {int(whole)} to {most}")


def load_extractor(path: Path) -> dict[str, Any]:
    """Read the feature extractor's settings from a checkpoint's directory; empty if there are none."""
    # transformers 5 may store them in the processor's settings.
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "feature_extractor")):
        if not (file := path / name).is_file():
            continue
        try:
            content = read_json(file)
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
            with torch.device("meta"):
                parameters = sum(tensor.numel() for tensor in model_class(config).parameters())
            if parameters > _MOST_PARAMETERS:
                raise ValueError(f"its configuration has {parameters:,} parameters, more than {_MOST_PARAMETERS:,}")
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
    except Exception as error:  # building from, and reading, arbitrary files can raise anything
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
