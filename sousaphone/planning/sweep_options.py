"""What a sweep may be asked for: `Options`, as typed, each declared once; and `Request`, the same resolved."""

from __future__ import annotations

import argparse
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import DATASET_SIZES, DEFAULT_EPOCHS, DEVICES, LORA_TARGETS, SCALES, STRATEGIES

# A demonstration must end in minutes on two cores.
TINY_EPOCHS = 10
SEARCH_EPOCHS = 3  # of a search for learning rates, for each of them
TRIAL_TIME_LIMIT, STALL_TIMEOUT = "2h", "10m"
TRACKERS = ("none", "wandb")
AUGMENT = {"both": (True, False), "on": (True,), "off": (False,)}

# Titles of --help.
COMPARED = "what is compared"
DATA = "data"
RUN = "the run"
LIMITS = "time limits, such as 45s, 90m, 2h or 1h30m; none lifts one"
EXISTING = "a run that exists"
MACHINE = "the machine"


class Later(enum.Enum):
    """What an option may do to a run that exists."""

    SAME = "stays as the run was started"
    GROWS = "stays, but --extend adds to it"
    FREE = "may change from launch to launch"


def option(
    group: str,
    help: str,
    *,
    later: Later = Later.FREE,
    promoted: bool = False,
    low: float | None = None,
    default: Any = None,
    **parser: Any,
) -> Any:
    """One option; its flag follows from its name.

    Args:
        group: its title in --help.
        promoted: --promote takes it from the best trial, so it cannot be given.
        low: its lowest value.
        parser: further arguments of `argparse.ArgumentParser.add_argument`.
    """
    parser = {"help": help, **parser}
    metadata = {"group": group, "later": later, "promoted": promoted, "low": low, "parser": parser}
    return field(default=default, metadata=metadata)


def fixed(group: str, help: str, **parser: Any) -> Any:
    """An option that stays as the run was started, and that --promote takes from the best trial."""
    return option(group, help, later=Later.SAME, promoted=True, **parser)


def switch(group: str, help: str) -> Any:
    """An option that is on where it is given."""
    return option(group, help, default=False, action="store_true")


_SIZES = ", ".join(f"{name} {size:,}" if size else f"{name} all" for name, size in DATASET_SIZES.items())


@dataclass(frozen=True, kw_only=True)
class Options:
    """A command line as typed; None where an option is not given, so that a resumed run keeps its own value."""

    config: str | None = fixed(COMPARED, "sweep, a module of tune_configs (default backbones)", metavar="NAME")
    models: Sequence[str] | None = option(
        COMPARED,
        f"backbones: {' '.join(REGISTRY)} (default {' '.join(DEFAULT_SWEEP)})",
        later=Later.GROWS,
        promoted=True,
        nargs="+",
        metavar="MODEL",
    )
    augment: str | None = option(
        COMPARED,
        "augmentation (default both: every backbone with and without)",
        later=Later.GROWS,
        promoted=True,
        choices=AUGMENT,
    )
    strategy: str | None = fixed(COMPARED, "what trains beside the fresh layers (default lora)", choices=STRATEGIES)
    lora_targets: str | None = fixed(COMPARED, "layers that get adapters (default all-linear)", choices=LORA_TARGETS)
    scale: str | None = fixed(COMPARED, "base: published sizes; nano: small (default auto)", choices=("auto", *SCALES))
    weights: Sequence[str] | None = option(
        COMPARED,
        "auto, random, or NAME=PATH, NAME=hub:OWNER/NAME ... (default auto)",
        later=Later.GROWS,
        promoted=True,
        nargs="+",
        metavar="W",
    )
    rates: str | None = option(
        COMPARED, "learning rates that --config rates found (default: the backbones' own)", metavar="FILE"
    )
    seeds: Sequence[int] | None = option(
        COMPARED, "one trial each (default 0)", later=Later.GROWS, nargs="+", type=int, metavar="N"
    )
    epochs: int | None = option(
        COMPARED, f"default {DEFAULT_EPOCHS}, at tiny {TINY_EPOCHS}", later=Later.SAME, type=int, metavar="N"
    )
    set: Sequence[str] | None = fixed(
        COMPARED,
        "further settings, listed below; of one that is given twice the last counts",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
    )

    dataset: str | None = option(
        DATA, f"clips, at most: {_SIZES} (default tiny)", later=Later.SAME, choices=DATASET_SIZES
    )
    data_dir: str | None = option(
        DATA,
        "SOUSA, a folder of recordings, a CSV, or hub:OWNER/NAME (default SOUSA_DATASET_PATH, else built-in)",
        metavar="DIR",
    )
    hold_out: str | None = fixed(
        DATA, "soundfont=NAME or preset=NAME: kept from training, scored apart", metavar="WHAT=NAME"
    )
    test_also: str | None = fixed(
        DATA, "a further data set of any of these forms, scored apart, never selected on", metavar="DIR"
    )

    name: str | None = option(RUN, "of the run (default: made from sweep, size and time)")
    storage: str | None = option(RUN, "where runs are (default results)", metavar="DIR")
    plan: bool = switch(RUN, "say what would be done and how long it takes, and stop")
    timing: bool | None = option(
        RUN, "time a few steps of each arm first (default: where cheap)", action=argparse.BooleanOptionalAction
    )
    baselines: bool | None = option(
        RUN,
        "measure the baselines first: simple classifiers, CPU time of a clip (default: on; about 15 s at tiny and nano "
        "on two cores, minutes for many clips)",
        action=argparse.BooleanOptionalAction,
    )
    yes: bool = switch(RUN, "start although a time limit will cut trials off")
    tracker: str | None = option(
        RUN, "metrics also to Weights & Biases, offline unless WANDB_MODE says otherwise", choices=TRACKERS
    )

    trial_time_limit: str | None = option(LIMITS, f"of each trial (default {TRIAL_TIME_LIMIT})", metavar="T")
    time_limit: str | None = option(LIMITS, "of this launch, all trials together (default none)", metavar="T")
    stall_timeout: str | None = option(
        LIMITS, f"a trial without a batch for so long is hung (default {STALL_TIMEOUT})", metavar="T"
    )

    resume: bool = switch(EXISTING, "continue the run called --name (default: the newest)")
    retry_failed: bool = switch(EXISTING, "with --resume: try failed trials again, too")
    extend: bool = switch(EXISTING, "add --models, --augment or --seeds to it, and continue it")
    promote: str | None = option(
        EXISTING, "train the best trial of RUN as a run of its own (--dataset, --epochs)", metavar="RUN"
    )

    device: str | None = fixed(MACHINE, "default auto: the best there is", choices=("auto", *DEVICES))
    cpus_per_trial: float | None = option(
        MACHINE, "default: one at nano scale on a CPU, else a fair share", low=1, type=float, metavar="X"
    )
    gpus_per_trial: float | None = option(MACHINE, "default: one where there is one", low=0, type=float, metavar="X")
    max_concurrent: int | None = option(
        MACHINE, "trials at a time (default: as many as fit)", low=1, type=int, metavar="N"
    )
    dashboard: bool = switch(MACHINE, "start Ray's dashboard on 127.0.0.1")


def flag(name: str) -> str:
    """An option's flag by its name."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Request:
    """What a sweep is made from; `tune_configs.NAME.sweep(request)` turns it into a grid."""

    models: tuple[str, ...]  # backbones to compare
    augment: tuple[bool, ...]  # augmentation on, off or both, as flags
    seeds: tuple[int, ...]
    dataset: str
    strategy: str
    lora_targets: str
    epochs: int
    scale: str
    weights: Mapping[str, str]  # 'random' or a path, by backbone
    device: str
    data_dir: str  # absolute, or hub:OWNER/NAME; empty for the built-in set
    cache_dir: str
    cpus: int  # of this machine
    gpus: int  # of this machine
    cpus_per_trial: float | None = None  # as given, like the next two; None leaves it to the sweep
    gpus_per_trial: float | None = None
    max_concurrent: int | None = None
    # Further TrainConfig fields (`--set`), which win over a sweep's own.
    settings: Mapping[str, Any] = field(default_factory=dict)
    hold_out: str = ""  # a timbre kept out of training and validation (`soundfont=NAME`, `preset=NAME`); empty: none
    test_also: str = ""  # a further data set to score, as data_dir; empty: none
    # Learning rates found by a search (`--rates`), by backbone; empty: the backbones' own.
    rates: Mapping[str, float] = field(default_factory=dict)
    rates_message: str = ""  # how that search was made, in words

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Request:
        """The inverse of `dataclasses.asdict` after a trip through JSON."""
        lists = ("models", "augment", "seeds")
        values: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in saved.items()}
        values["rates_message"] = values.pop("rates_told", values.get("rates_message", ""))  # its name in older runs
        return cls(**values)

    @property
    def built_in(self) -> bool:
        """Whether the data is the built-in, synthetic set."""
        return not self.data_dir
