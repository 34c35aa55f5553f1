"""Specification of a backbone as data. Imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sousaphone.backbones.frontend_spec import FrontendContract


@dataclass(frozen=True)
class WeightSource:
    """The source of a backbone's published weights."""

    parameters: int  # that the backbone takes from it
    hub: str | None = None  # a repository of the Hugging Face hub; `hub_type` is 'model' or 'dataset'
    hub_type: str = "model"
    file: str | None = None  # in the repository or at `url`; None: a transformers checkpoint
    url: str | None = None  # a direct address
    sha256: str | None = None  # of the file, if known

    @property
    def name(self) -> str:
        """The name of the file or directory."""
        return self.file or (self.hub or self.url or "").rpartition("/")[2]

    @property
    def address(self) -> str:
        """The address for a browser."""
        if self.url is not None:
            return self.url
        repository = f"https://huggingface.co/{'datasets/' if self.hub_type == 'dataset' else ''}{self.hub}"
        return repository if self.file is None else f"{repository}/resolve/main/{self.file}"


@dataclass(frozen=True)
class BackboneSpec:
    """One backbone of the comparison."""

    name: str
    title: str
    implementation: str  # `module:class`, imported when it is built
    frontend: FrontendContract  # the features that its published weights were trained on
    scales: Mapping[str, Mapping[str, Any]]  # constructor arguments by scale; only `base` has published weights
    # Module name patterns by `--lora-targets` option; a pattern matches modules whose dotted name ends with it.
    lora_targets: Mapping[str, tuple[str, ...]]
    weights: WeightSource | None  # None: the backbone has none, and trains from scratch
    format: str  # of its weights
    licence: str
    pretraining: str  # training data of the published weights, for tables
    objective: str  # training objective of the published weights
    learning_rates: Mapping[str, Mapping[str, float]]  # default peak rate by scale and strategy
    micro_batches: Mapping[str, Mapping[str, int]]  # clips by scale and device, or by device and precision
    # Older module names in patterns, each with the current names.
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()  # modules that no checkpoint holds; fully trained under every strategy
    in_default_sweep: bool = True  # whether a sweep includes it by default
    # Patterns of the layers whose outputs, or inputs, (IA)³ scales.
    ia3_outputs: tuple[str, ...] = ()
    ia3_inputs: tuple[str, ...] = ()
    strategy: str | None = None  # the only strategy, whatever the sweep's; None: any
    onnx: bool = True  # whether its network can be exported to ONNX
    twin: str | None = None  # the backbone with the same architecture and other weights

    @property
    def is_pretrained(self) -> bool:
        """Whether it has published weights, without which it says nothing about the published model."""
        return self.weights is not None

    def micro_batch(self, scale: str, device: str, precision: str) -> int:
        """Clips per forward pass in training."""
        sizes = self.micro_batches[scale]
        return sizes.get(f"{device} {precision}", sizes[device])

    @property
    def sample_rate(self) -> int:
        """Sample rate of the waveform, Hz."""
        return self.frontend.sample_rate
