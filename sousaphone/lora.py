"""Adapters through PEFT: LoRA, its variants, and (IA)³ (see `strategies`).

Target layers are resolved before PEFT is called, since PEFT does not report patterns that match nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from sousaphone.backbones.backbone_spec import BackboneSpec
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.kernels.lora_cpu import FusedConv2d, FusedLinear
from sousaphone.strategies import STRATEGIES


@dataclass(frozen=True)
class Targets:
    """The layers that a list of patterns matches."""

    modules: tuple[str, ...]  # full names of the pretrained layers with adapters, in model order
    matches: Mapping[str, int]  # number of layers that each pattern matches, aliases resolved
    trained_in_full: tuple[str, ...] = ()  # patterns of fresh layers, which train in full without adapters
    scaled_inputs: tuple[str, ...] = ()  # (IA)³: those of `modules` whose inputs are scaled, instead of their outputs


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
            raise UserError(f"adapter target {pattern!r} matches no layer; near misses: {', '.join(near)}")
    return Targets(tuple(layer for layer in pretrained if layer in chosen), matches, tuple(in_full))


def find_targets(model: nn.Module, config: TrainConfig, spec: BackboneSpec, fresh: Iterable[str]) -> Targets:
    """The layers of a backbone that get adapters; raises a UserError if the strategy of the trial has none there."""
    if STRATEGIES[config.strategy].low_rank:
        if config.lora_targets not in spec.lora_targets:
            raise UserError(
                f"{spec.name} has no lora_targets {config.lora_targets!r}, only {', '.join(spec.lora_targets)}; give "
                "one of these, or leave the backbone out"
            )
        return resolve_targets(model, spec.lora_targets[config.lora_targets], spec.aliases, fresh)
    if not spec.ia3_outputs + spec.ia3_inputs:
        raise UserError(f"strategy {config.strategy} has no targets in {spec.title}; choose another strategy")
    targets = resolve_targets(model, spec.ia3_outputs + spec.ia3_inputs, spec.aliases, fresh)
    scaled_inputs = resolve_targets(model, spec.ia3_inputs, spec.aliases, fresh).modules
    return dataclasses.replace(targets, scaled_inputs=scaled_inputs)


def adapter_config(config: TrainConfig, targets: Targets, **others: Any) -> PeftConfig:
    """PEFT's configuration of the adapters of a trial, whose strategy has adapters. `others` are further fields."""
    strategy = STRATEGIES[config.strategy]
    assert strategy.peft_type is not None
    # PEFT annotates alpha as int but only divides it by r.
    low_rank = {"lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}
    options: dict[str, dict[str, Any]] = {
        "LORA": {"r": config.lora_r, **low_rank},
        # The mean rank starts at 1.5 times the final one, as in the paper. `RankAllocation` knows the number of steps.
        "ADALORA": {"init_r": -(-3 * config.lora_r // 2), "target_r": config.lora_r, "total_step": 1, **low_rank},
        "IA3": {"feedforward_modules": list(targets.scaled_inputs)},
    }
    own = {**options[strategy.peft_type], **strategy.options, **others}
    return PEFT_TYPE_TO_CONFIG_MAPPING[strategy.peft_type](target_modules=list(targets.modules), **own)


def inject(model: nn.Module, config: TrainConfig, targets: Targets) -> None:
    """Add adapters to the targets in place and freeze all other parameters. Their initial values do not change the
    output of the model."""
    adapters = adapter_config(config, targets)
    if isinstance(adapters, LoraConfig):
        adapters._register_custom_module({nn.Linear: FusedLinear, nn.Conv2d: FusedConv2d})
    inject_adapter_in_model(adapters, model)


def merge(model: nn.Module) -> None:
    """Replace each layer with an adapter, in place, by the plain layer that computes the same."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())


def pack_frozen(model: nn.Module) -> None:
    """Keep frozen weights under adapters in the layout that a CPU multiplies fastest; they must not change any more."""
    for layer in adapter_layers(model):
        if isinstance(layer, FusedLinear):
            layer.pack()


def adapter_layers(model: nn.Module) -> list[BaseTunerLayer]:
    """The layers with adapters, in model order."""
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def dropouts(model: nn.Module) -> list[nn.Module]:
    """The dropout modules of the adapters."""
    return [module for name, module in model.named_modules() if name.endswith(".lora_dropout")]


def is_adapter(parameter_name: str) -> bool:
    """Whether a dotted parameter name belongs to an adapter."""
    return any(part in parameter_name for part in (".lora_", ".ia3_l.", ".ranknum."))


def is_scale(parameter_name: str) -> bool:
    """Whether a dotted parameter name belongs to an adapter's vector by which pretrained weights are multiplied: weight
    decay would shrink these weights instead of the adapter."""
    return ".ia3_l." in parameter_name or ".lora_magnitude_vector." in parameter_name
