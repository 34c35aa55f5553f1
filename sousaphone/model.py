"""Model construction: `load_backbone` builds a backbone, `build_model` adds adapters and the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from sousaphone import lora, weights
from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.frontend_spec import AS_TRAINED, FrontendOverrides
from sousaphone.backbones.registry import REGISTRY, backbone_spec, implementation
from sousaphone.backbones.state_dicts import misfits, refuse_misfits
from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.files import expanded
from sousaphone.strategies import STRATEGIES
from sousaphone.weights.check import load_checked


def load_backbone(
    name: str,
    scale: str = "base",
    weights: str = "random",
    *,
    seed: int = 0,
    clip_seconds: float | None = None,
    overrides: FrontendOverrides = AS_TRAINED,
) -> Backbone:
    """Build a backbone in evaluation mode. Raises a UserError if the name or scale is unknown, or the file has another
    format, another size than its name states, or weights trained on other features.

    Args:
        name: a key of the registry.
        scale: 'base' or 'nano'; ignored with a weights file, which defines the size itself.
        weights: 'random', or the path of an official file or directory.
        seed: of the random weights; the caller's RNG state does not change.
        clip_seconds: length of the longest input clip; None is the length used in pretraining.
        overrides: features allowed instead of those that the weights were trained on; see `frontend_spec`.
    """
    spec = backbone_spec(name)
    if scale not in spec.scales:
        raise UserError(f"scale {scale!r} is unknown; choose one of: {', '.join(spec.scales)}")
    # Set for weights files as well, since fresh layers are initialised at random.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        if weights == "random":
            backbone = implementation(spec).create(spec, scale, clip_seconds, overrides)
        else:
            path = expanded(weights)
            if not path.exists():
                raise UserError(f"weights {weights!r} for {name}: no such file or directory; give a path or 'random'")
            backbone = load_checked(spec, path, clip_seconds, overrides)
    return backbone.eval()


@dataclass(frozen=True)
class ParameterCounts:
    """The numbers of all, of trainable (adapters, fresh layers) and of adapter parameters."""

    total: int
    trainable: int
    adapter: int

    @property
    def trainable_percent(self) -> float:
        return 100.0 * self.trainable / self.total


class RudimentClassifier(nn.Module):
    """Backbone, adapters and a fresh classifier over C classes.

    Except under the strategy 'full', pretrained layers do not change (under 'bitfit', only their biases do): their
    parameters require no gradient, and `train()` keeps their modules in evaluation mode (batch norm, dropout,
    drop-path, layer-drop).
    """

    def __init__(self, backbone: Backbone, classes: int, config: TrainConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Sequential(nn.Dropout(config.head_dropout), nn.Linear(backbone.width, classes))
        self.fresh = ("classifier", *(f"backbone.{name}" for name in backbone.spec.fresh))
        self.classes = classes
        self.strategy = STRATEGIES[config.strategy]
        self.base_fingerprint = weights.fingerprint(backbone)
        self.targets = lora.Targets((), {})
        if self.strategy.pretrained != "all":
            self.requires_grad_(False)
        if self.strategy.pretrained == "biases":
            _train_biases(backbone)
        if self.strategy.peft_type is not None:
            self.targets = lora.find_targets(self, config, backbone.spec, self.fresh)
            # If all targets are fresh layers, none needs an adapter: they train in full, as under 'head'.
            if self.targets.modules:
                lora.inject(self, config, self.targets)
        for name in self.fresh:
            self.get_submodule(name).requires_grad_(True)

    def train(self, mode: bool = True) -> RudimentClassifier:
        super().train(mode)
        if mode and self.strategy.pretrained != "all":
            self.backbone.eval()
            for name in self.fresh:
                self.get_submodule(name).train()
            for dropout in lora.dropouts(self):
                dropout.train()
        return self

    def place(self, config: TrainConfig) -> Self:
        """Move the model to the device of a trial in place, and cast frozen parameters to its precision."""
        if config.device == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # float32 convolutions would have 10 bits; bfloat16 is not affected
        self.to(torch.device(config.device))
        if config.frozen_bfloat16:
            self.round_frozen()
            if config.device == "cpu":
                lora.pack_frozen(self)
        return self

    def round_frozen(self) -> Self:
        """Cast frozen parameters to bfloat16 in place, on a GPU with convolution kernels in channels-last layout.

        Batch norms, adapters and fresh layers stay in float32. Autocast would cast the same weights at every use and
        keep activations in float32 between some layers.
        """
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                continue
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    channels_last = parameter.is_cuda and parameter.dim() == 4
                    layout = torch.channels_last if channels_last else torch.contiguous_format
                    parameter.data = parameter.data.to(torch.bfloat16, memory_format=layout)
        return self

    def features(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convert a waveform [B, T] in [-1, 1] to features in the backbone's layout, in float32 without gradient."""
        with torch.no_grad(), torch.autocast(wave.device.type, enabled=False):
            return self.backbone.frontend(wave.float(), lengths)

    def classify(self, features: Tensor) -> Tensor:
        """Compute logits [B, C] from features, in training and its evaluation."""
        return self.classifier(self.backbone.pool(self.backbone.encode(features).float()))

    def infer(self, features: Tensor) -> Tensor:
        """Compute the same logits [B, C] up to rounding in fewer operations (`Backbone.embed`)."""
        return self.classifier(self.backbone.embed(features))

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Infer logits [B, C] from a waveform [B, T] in [-1, 1]."""
        return self.infer(self.features(wave, lengths))

    def weights_record(self, source: str) -> dict[str, Any]:
        """The record of the initial weights (`sousaphone.weights.record_of`) and the fingerprint of the base model."""
        return {**weights.record_of(self.backbone, source), "fingerprint": self.base_fingerprint}

    def counts(self) -> ParameterCounts:
        named = list(self.named_parameters())
        return ParameterCounts(
            total=sum(p.numel() for _, p in named),
            trainable=sum(p.numel() for _, p in named if p.requires_grad),
            adapter=sum(p.numel() for name, p in named if p.requires_grad and lora.is_adapter(name)),
        )

    def trained_tensors(self) -> dict[str, Tensor]:
        """All tensors that training changes: trainable parameters and, under 'full', buffers."""
        changed = {name for name, p in self.named_parameters() if p.requires_grad}
        if self.strategy.pretrained == "all":
            changed |= {name for name, _ in self.named_buffers()}
        return {name: tensor for name, tensor in self.state_dict().items() if name in changed}

    def trained_state(self) -> dict[str, Tensor]:
        """Copy the `trained_tensors` to the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.trained_tensors().items()}

    def misfits(self, state: Mapping[str, Tensor]) -> dict[str, set[str]]:
        """Names in which a `trained_state` differs from that of this model, by kind of difference."""
        own = self.trained_tensors()
        types = {name for name in own.keys() & state.keys() if own[name].dtype != state[name].dtype}
        return {**misfits(own, state), "of another type": types}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Load a `trained_state` into an equal base; raises a UserError for that of another model or strategy."""
        refuse_misfits("the saved state is of another model or strategy", self.misfits(state))
        self.load_state_dict(state, strict=False)


def _train_biases(backbone: Backbone) -> None:
    """Let the biases train, those of norms included."""
    biases = [p for name, p in backbone.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise UserError(f"{backbone.spec.title} has no biases to train; choose another strategy than bitfit")
    for bias in biases:
        bias.requires_grad_(True)


def backbone_of(config: TrainConfig) -> Backbone:
    """The backbone of a trial, without adapters and classifier."""
    mismatch = tuple(name for name in config.frontend_mismatch.replace(" ", "").split(",") if name)
    for name in mismatch:
        if name not in REGISTRY:
            option = f"--set frontend_mismatch={config.frontend_mismatch}"
            raise UserError(f"{option}: backbone {name!r} is unknown; choose from: {', '.join(REGISTRY)}")
    return load_backbone(
        config.model,
        config.scale,
        config.weights,
        seed=config.seed,
        clip_seconds=config.clip_seconds,
        overrides=FrontendOverrides(config.efficientat_hop, mismatch),
    )


def build_model(config: TrainConfig, classes: int) -> RudimentClassifier:
    """The model of a trial, on the CPU; equal configurations give equal initial weights."""
    backbone = backbone_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        return RudimentClassifier(backbone, classes, config)
