"""LoRA (Hu et al., arXiv 2106.09685) through PEFT.

Target layers are resolved before PEFT is called, since PEFT does not report patterns that match nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from sousaphone.errors import UserError
from sousaphone.kernels.lora_cpu import FusedConv2d, FusedLinear


@dataclass(frozen=True)
class Targets:
    """The layers that a list of patterns matches."""

    modules: tuple[str, ...]  # full names of the pretrained layers with adapters, in model order
    matches: Mapping[str, int]  # number of layers that each pattern matches, aliases resolved
    trained_in_full: tuple[str, ...] = ()  # patterns of fresh layers, which train in full without adapters


def adaptable(module: nn.Module) -> bool:
    """Whether the module can get an adapter: a linear layer, or the equivalent 1 x 1 convolution."""
    if isinstance(module, nn.Conv2d):
        return module.kernel_size == (1, 1) and module.groups == 1
    return isinstance(module, nn.Linear)


def resolve_targets(
    model: nn.Module, patterns: Iterable[str], aliases: Mapping[str, tuple[str, ...]], fresh: Iterable[str]
) -> Targets:
    """Match patterns with the layers of a model. A pattern matches a layer if the layer's dotted name ends with it;
    raises a UserError with similar names if it matches none.

    Args:
        aliases: older names, each with the current names that replace it.
        fresh: dotted names of modules that train in full.
    """
    prefixes = tuple(f"{module}." for module in fresh)
    layers = [name for name, module in model.named_modules() if adaptable(module)]
    pretrained = [name for name in layers if not f"{name}.".startswith(prefixes)]
    chosen: set[str] = set()
    matches: dict[str, int] = {}
    in_full: list[str] = []
    for pattern in patterns:
        endings = tuple(f".{name}" for name in aliases.get(pattern, (pattern,)))
        found = [layer for layer in pretrained if f".{layer}".endswith(endings)]
        if found:
            matches[pattern] = len(found)
            chosen.update(found)
        elif any(f".{layer}".endswith(f".{pattern}") for layer in layers if layer not in pretrained):
            in_full.append(pattern)
        else:
            names = sorted({".".join(layer.split(".")[-2:]) for layer in layers})
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:6]
            raise UserError(f"LoRA target {pattern!r} matches no layer; near misses: {', '.join(near)}")
    return Targets(tuple(layer for layer in pretrained if layer in chosen), matches, tuple(in_full))


def inject(model: nn.Module, targets: Targets, r: int, alpha: float, dropout: float) -> None:
    """Add adapters to the targets in place and freeze all other parameters. B is initialised to zero, so the output of
    the model does not change."""
    # PEFT annotates alpha as int but only divides it by r.
    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets.modules))
    config._register_custom_module({nn.Linear: FusedLinear, nn.Conv2d: FusedConv2d})
    inject_adapter_in_model(config, model)


def adapter_layers(model: nn.Module) -> list[LoraLayer]:
    """The layers with adapters, in model order."""
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def is_adapter(parameter_name: str) -> bool:
    """Whether a dotted parameter name belongs to matrix A or B of an adapter."""
    return ".lora_A." in parameter_name or ".lora_B." in parameter_name
