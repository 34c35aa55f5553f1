"""What the program needs to know of a backbone, as data: BackboneSpec. Light: imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sousaphone.backbones.frontend_spec import FrontendContract


@dataclass(frozen=True)
class WeightSource:
    """Where published weights come from. Several sources of one backbone hold the same bytes.

    Attributes:
        hub: a repository of the Hugging Face hub; `hub_type` is 'model' or 'dataset'.
        file: the one file in it, or at `url`; None is a whole transformers checkpoint.
        url: a direct address.
        sha256: of the file, where it is known.
        parameters: numbers that the backbone takes from it.
    """

    parameters: int
    hub: str | None = None
    hub_type: str = "model"
    file: str | None = None
    url: str | None = None
    sha256: str | None = None

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
    """One contender.

    Attributes:
        implementation: `module:class` of its `nn.Module`, imported only when it is built.
        frontend: the features that its published weights were trained on.
        lora_targets: for each `--lora-targets` choice, patterns of module names: a pattern matches a module whose
            dotted name ends with it.
        aliases: older module names in patterns, each with the present ones it stands for.
        fresh: modules of the backbone that no checkpoint holds; they train in full under every strategy.
        scales: constructor arguments by scale. Weights are published for `base` alone.
        learning_rates: the peak rate by scale and strategy, before any search.
        micro_batches: clips in one forward pass by scale and device.
        format: of its weights, in words.
        pretraining: what its published weights were trained on, for tables.
        objective: how they were trained.
        in_default_sweep: whether a sweep that names no backbones compares it.
        twin: the backbone that this one differs from in its weights alone; without weights the two are one.
    """

    name: str
    title: str
    implementation: str
    frontend: FrontendContract
    scales: Mapping[str, Mapping[str, Any]]
    lora_targets: Mapping[str, tuple[str, ...]]
    weights: tuple[WeightSource, ...]
    format: str
    licence: str
    pretraining: str
    objective: str
    learning_rates: Mapping[str, Mapping[str, float]]
    micro_batches: Mapping[str, Mapping[str, int]]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    in_default_sweep: bool = True
    twin: str | None = None

    @property
    def sample_rate(self) -> int:
        """Hz at which its front end wants the waveform."""
        return self.frontend.sample_rate
