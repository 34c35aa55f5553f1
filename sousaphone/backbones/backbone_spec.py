"""What the program needs to know of a backbone, as data: BackboneSpec. Light: imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sousaphone.backbones.frontend_spec import FrontendContract


@dataclass(frozen=True)
class WeightSource:
    """Where published weights come from. Several sources of one backbone hold the same bytes."""

    parameters: int  # numbers that the backbone takes from it
    hub: str | None = None  # a repository of the Hugging Face hub; `hub_type` is 'model' or 'dataset'
    hub_type: str = "model"
    file: str | None = None  # the one file in it, or at `url`; None is a whole transformers checkpoint
    url: str | None = None  # a direct address
    sha256: str | None = None  # of the file, where it is known

    @property
    def name(self) -> str:
        """What the file, or the directory, is called."""
        return self.file or (self.hub or self.url or "").rpartition("/")[2]

    @property
    def address(self) -> str:
        """The page or file that a browser opens."""
        if self.url is not None:
            return self.url
        repository = f"https://huggingface.co/{'datasets/' if self.hub_type == 'dataset' else ''}{self.hub}"
        return repository if self.file is None else f"{repository}/resolve/main/{self.file}"


@dataclass(frozen=True)
class BackboneSpec:
    """One contender."""

    name: str
    title: str
    implementation: str  # `module:class` of its `nn.Module`, imported only when it is built
    frontend: FrontendContract  # the features that its published weights were trained on
    scales: Mapping[str, Mapping[str, Any]]  # constructor arguments by scale. Weights are published for `base` alone
    # By `--lora-targets` choice: patterns of module names; one matches every module whose dotted name ends with it.
    lora_targets: Mapping[str, tuple[str, ...]]
    weights: tuple[WeightSource, ...]
    format: str  # of its weights, in words
    licence: str
    pretraining: str  # what its published weights were trained on, for tables
    objective: str  # how they were trained
    learning_rates: Mapping[str, Mapping[str, float]]  # the peak rate by scale and strategy, before any search
    micro_batches: Mapping[str, Mapping[str, int]]  # clips in one forward pass by scale and device
    # Older module names in patterns, each with the present ones it stands for.
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()  # modules that no checkpoint holds; they train in full under every strategy
    in_default_sweep: bool = True  # whether a sweep that names no backbones compares it
    twin: str | None = None  # the backbone that this one differs from in weights alone; without them the two are one

    @property
    def sample_rate(self) -> int:
        """Hz at which its front end wants the waveform."""
        return self.frontend.sample_rate
