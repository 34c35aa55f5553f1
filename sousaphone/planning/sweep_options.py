"""Declarations of a sweep's options: `Options`, as given on the command line, and `Request`, resolved."""

from __future__ import annotations

import argparse
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Len

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.config import DATASET_SIZES, DEFAULT_EPOCHS, DEVICES, LORA_TARGETS, SCALES
from sousaphone.runs import schema
from sousaphone.strategies import STRATEGIES

TINY_EPOCHS = 10  # a demonstration takes minutes on two cores
TRIAL_TIME_LIMIT, STALL_TIMEOUT = "2h", "10m"
AUGMENT = {"both": (True, False), "on": (True,), "off": (False,)}

# Groups of --help.
COMPARED = "what is compared"
DATA = "data"
RUN = "the run"
LIMITS = "time limits, such as 45s, 90m, 2h or 1h30m; none means no limit"
EXISTING = "an existing run"
MACHINE = "the machine"


class Later(enum.Enum):
    """Whether an option may change in an existing run."""

    SAME = "keeps its value"
    GROWS = "keeps its value, but --extend adds to it"
    FREE = "may change between launches"


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
    """Declare an option, whose flag follows from its name, for `argparse.ArgumentParser.add_argument`.

    A `promoted` option cannot be given with --promote, which takes it from the best trial; `low` is the lowest value.
    """
    parser = {"help": help, **parser}
    metadata = {"group": group, "later": later, "promoted": promoted, "low": low, "parser": parser}
    return field(default=default, metadata=metadata)


def fixed(group: str, help: str, *, later: Later = Later.SAME, **parser: Any) -> Any:
    """Declare an option that --promote takes from the best trial; by default an existing run keeps its value."""
    return option(group, help, later=later, promoted=True, **parser)


def switch(group: str, help: str) -> Any:
    """Declare an option without a value."""
    return option(group, help, default=False, action="store_true")


_SIZES = ", ".join(f"{name} {size:,}" if size else f"{name} all" for name, size in DATASET_SIZES.items())
_MODELS = f"backbones: {' '.join(REGISTRY)} (default {' '.join(DEFAULT_SWEEP)})"
_ON_OR_OFF = argparse.BooleanOptionalAction
_BASELINES = (
    "measure the baselines first: simple classifiers, CPU time per clip (default: on; about a minute for tiny and "
    "nano on two cores, longer for many clips)"
)
_SET = "further settings, listed below; the last value of a key is used"
_WEIGHTS = "auto, random, or NAME=PATH, NAME=hub:OWNER/NAME ... (default auto)"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options as given. One that is not given is None, so that a resumed run keeps its value; a switch is False."""

    config: str | None = fixed(
        COMPARED, "sweep: a module of tune_configs, or a Python file like them (default backbones)", metavar="NAME"
    )
    models: Sequence[str] | None = fixed(
        COMPARED, _MODELS, later=Later.GROWS, nargs="+", action="extend", metavar="MODEL"
    )
    augment: str | None = fixed(
        COMPARED,
        "train each backbone with augmentation, without it, or both (default both; off with --config rates and search)",
        later=Later.GROWS,
        choices=AUGMENT,
    )
    strategy: str | None = fixed(
        COMPARED, "adapters, biases, head only or all parameters (default lora)", choices=tuple(STRATEGIES)
    )
    lora_targets: str | None = fixed(
        COMPARED,
        "pretrained layers with adapters: all linear ones, a short list, or layers of attention (default all-linear)",
        choices=LORA_TARGETS,
    )
    scale: str | None = fixed(COMPARED, "base: published sizes; nano: small (default auto)", choices=("auto", *SCALES))
    weights: Sequence[str] | None = fixed(
        COMPARED, _WEIGHTS, later=Later.GROWS, nargs="+", action="extend", metavar="W"
    )
    from_: str | None = option(
        COMPARED, "settings of each backbone that a search found, --config search or rates", metavar="RUN"
    )
    rates: str | None = option(
        COMPARED, "rates.json of a search with --config rates (default: learning rates of the registry)", metavar="FILE"
    )
    seeds: Sequence[int] | None = option(
        COMPARED,
        "random seeds; every arm is trained once with each (default 0)",
        later=Later.GROWS,
        nargs="+",
        action="extend",
        type=int,
        metavar="N",
    )
    budget: str | None = fixed(
        COMPARED, "of --config search: configurations of each backbone, or a time (default 16)", metavar="N|T"
    )
    sampler: str | None = fixed(
        COMPARED, "of --config search: Optuna's TPE, or quasi-random points (default tpe)", choices=("tpe", "qmc")
    )
    epochs: int | None = option(
        COMPARED, f"epochs (default {DEFAULT_EPOCHS}, for tiny {TINY_EPOCHS})", later=Later.SAME, type=int, metavar="N"
    )
    set: Sequence[str] | None = fixed(COMPARED, _SET, nargs="+", action="extend", metavar="KEY=VALUE")

    dataset: str | None = option(
        DATA, f"maximum number of clips: {_SIZES} (default tiny)", later=Later.SAME, choices=DATASET_SIZES
    )
    data_dir: str | None = option(
        DATA,
        "SOUSA, a folder of recordings, a CSV, or hub:OWNER/NAME (default SOUSA_DATASET_PATH, else built-in)",
        metavar="DIR",
    )
    hold_out: str | None = fixed(
        DATA, "soundfont=NAME or preset=NAME: excluded from training, scored separately", metavar="WHAT=NAME"
    )
    test_also: str | None = fixed(
        DATA, "a further data set of any of these forms, only for testing, scored separately", metavar="DIR"
    )

    name: str | None = option(RUN, "name of the run (default: made from sweep, size and time)", metavar="NAME")
    storage: str | None = option(RUN, "directory of runs (default results)", metavar="DIR")
    plan: bool = switch(RUN, "print the plan and a time forecast, then stop")
    timing: bool | None = option(RUN, "time a few steps of each arm first (default: if cheap)", action=_ON_OR_OFF)
    baselines: bool | None = option(RUN, _BASELINES, action=_ON_OR_OFF)
    yes: bool = switch(RUN, "start even if a time limit will cut trials off")
    tracker: str | None = option(
        RUN, "log metrics to Weights & Biases as well, offline unless WANDB_MODE is set", choices=("none", "wandb")
    )

    trial_time_limit: str | None = option(LIMITS, f"of each trial (default {TRIAL_TIME_LIMIT})", metavar="T")
    time_limit: str | None = option(LIMITS, "of this launch, all trials together (default none)", metavar="T")
    stall_timeout: str | None = option(
        LIMITS, f"a trial that finishes no batch for this long has failed (default {STALL_TIMEOUT})", metavar="T"
    )

    resume: bool = switch(EXISTING, "resume the run called --name (default: the newest)")
    retry_failed: bool = switch(EXISTING, "with --resume: retry failed trials")
    extend: bool = switch(EXISTING, "add --models, --augment or --seeds to the run, and resume it")
    promote: str | None = option(
        EXISTING, "train the best trial of RUN (with --dataset, --epochs, --seeds)", metavar="RUN"
    )

    device: str | None = fixed(
        MACHINE,
        "default auto: CUDA, else mps, else cpu; auto is refused if there is an NVIDIA GPU that torch cannot use "
        "(CUDA_VISIBLE_DEVICES= uses the CPU)",
        choices=("auto", *DEVICES),
    )
    cpus_per_trial: float | None = option(
        MACHINE,
        "default: one for nano on a CPU; at full size on a CPU the cores of a NUMA node; else an equal share",
        low=1,
        type=float,
        metavar="X",
    )
    gpus_per_trial: float | None = option(MACHINE, "default: one if there is one", low=0, type=float, metavar="X")
    max_concurrent: int | None = option(
        MACHINE, "trials at a time (default: as many as fit)", low=1, type=int, metavar="N"
    )
    dashboard: bool = switch(MACHINE, "start Ray's dashboard on 127.0.0.1")


def flag(name: str) -> str:
    """Return the flag of an option."""
    return f"--{name.rstrip('_').replace('_', '-')}"  # `from` is a word of Python


@dataclass(frozen=True)
class Request:
    """The resolved options, from which `tune_configs.NAME.sweep(request)` makes a grid."""

    __pydantic_config__ = schema.STRICT
    models: Annotated[tuple[schema.Text, ...], Len(1, schema.MOST_MODELS)]  # backbones to compare
    augment: Annotated[tuple[bool, ...], Len(1, 2)]  # augmentation on, off or both, as flags
    seeds: Annotated[tuple[int, ...], Len(1, schema.MOST_TRIALS)]
    dataset: schema.Text
    strategy: schema.Text
    lora_targets: schema.Text
    epochs: schema.Epochs
    scale: schema.Text
    weights: Mapping[schema.Text, schema.Place]  # by backbone
    device: schema.Text
    data_dir: schema.Text  # absolute, or hub:OWNER/NAME; empty for the built-in set
    cache_dir: schema.Text
    cpus: schema.Count  # of this machine
    gpus: schema.Count  # of this machine
    numa_nodes: schema.Count = 1  # of this machine, with its cores
    cpus_per_trial: schema.Number | None = None  # as given, like the next two; None: chosen by the sweep
    gpus_per_trial: schema.Number | None = None
    max_concurrent: schema.Count | None = None
    # TrainConfig fields (`--set`), which override the sweep.
    settings: Mapping[schema.Text, schema.Scalar] = field(default_factory=dict)
    # A timbre excluded from training and validation (`soundfont=NAME`, `preset=NAME`); empty: none.
    hold_out: schema.Text = ""
    test_also: schema.Text = ""  # a further data set to score, as data_dir; empty: none
    budget: schema.Text = "16"  # of a search: configurations of each backbone, or a time
    sampler: schema.Text = "tpe"
    # Settings that a search found, by backbone (`--from`, `--rates`).
    tuned: Mapping[schema.Text, Mapping[schema.Text, schema.Scalar]] = field(default_factory=dict)
    tuned_message: schema.Text = ""  # description of that search

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Request:
        """Restore a request from `dataclasses.asdict`, saved in run.json; raise a ValueError if it is damaged. Older
        ones have learning rates only."""
        rates = saved.get("rates")
        older = {m: {"learning_rate": r} for m, r in rates.items()} if isinstance(rates, Mapping) else {}
        message = saved.get("rates_told", saved.get("rates_message", ""))
        text = json.dumps({"tuned": older, "tuned_message": message, **saved})
        request: Request = schema.parse(text, cls, "request")
        return request

    @property
    def built_in(self) -> bool:
        """Whether the data is the built-in, synthetic set."""
        return not self.data_dir
