"""What the program needs to know of a backbone, as data: BackboneSpec. Light: imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WeightSource:
    """Where published weights come from.

    `hub` is a repository on the Hugging Face hub, `file` the one file in it (None: the whole transformers
    checkpoint), `url` a direct address.
    """

    hub: str | None = None
    file: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class BackboneSpec:
    """One contender.

    Attributes:
        implementation: `module:class` of its `nn.Module`, imported only when it is built.
        sample_rate: Hz at which its front end wants the waveform.
        lora_targets: for each `--lora-targets` choice, patterns of module names: a pattern matches a module whose
            dotted name ends with it.
        aliases: older module names in patterns, each with the present ones it stands for.
        fresh: modules of the backbone that no checkpoint holds; they train in full under every strategy.
        scales: constructor arguments by scale.
        pretraining: what its published weights were trained on, for tables.
    """

    name: str
    title: str
    implementation: str
    sample_rate: int
    scales: Mapping[str, Mapping[str, Any]]
    lora_targets: Mapping[str, tuple[str, ...]]
    weights: tuple[WeightSource, ...]
    licence: str
    pretraining: str
    aliases: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...] = ()
