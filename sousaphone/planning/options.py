"""What a sweep is made from: the options of a command line, resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_EPOCHS = 20
# A demonstration must end in minutes on two cores.
TINY_EPOCHS = 10
SEARCH_EPOCHS = 3  # of a search for learning rates, for each of them


@dataclass(frozen=True)
class Choices:
    """What a sweep is made from; `tune_configs.NAME.sweep(choices)` turns it into a grid.

    Attributes:
        models: backbones to compare.
        augment: augmentation on, off or both, as flags.
        weights: 'random' or a path, by backbone.
        data_dir: absolute, or hub:OWNER/NAME; empty for the built-in set.
        cpus, gpus: of this machine.
        cpus_per_trial, gpus_per_trial, max_concurrent: as asked for; None leaves it to the sweep.
        settings: further TrainConfig fields (`--set`), which win over a sweep's own.
        hold_out: a timbre kept out of training and validation (`soundfont=NAME`, `preset=NAME`); empty: none.
        test_also: a further data set to score, as data_dir; empty: none.
        rates: learning rates found by a search (`--rates`), by backbone; empty: the backbones' own.
        rates_told: how that search was made, in words.
    """

    models: tuple[str, ...]
    augment: tuple[bool, ...]
    seeds: tuple[int, ...]
    dataset: str
    strategy: str
    lora_targets: str
    epochs: int
    scale: str
    weights: Mapping[str, str]
    device: str
    data_dir: str
    cache_dir: str
    cpus: int
    gpus: int
    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    hold_out: str = ""
    test_also: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)
    rates_told: str = ""

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Choices:
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        lists = ("models", "augment", "seeds")
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in saved.items()}
        return cls(**values)

    @property
    def built_in(self) -> bool:
        """Whether the data is the built-in, synthetic set."""
        return not self.data_dir
