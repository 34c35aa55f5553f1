"""Every option of one trial (TrainConfig) and of one sweep (Sweep): frozen, validated, plain data.

Nothing here imports torch or Ray, so that `launch.py --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError

DATASET_SIZES: dict[str, int | None] = {"tiny": 1_000, "mini": 3_000, "small": 10_000, "medium": 25_000, "full": None}
FEW_PLAYERS = 8  # to test on: with fewer, a difference between two models says little about other players
STRATEGIES = ("lora", "head", "full")
LORA_TARGETS = ("all-linear", "sweep")
SCALES = ("base", "nano")
DEVICES = ("cuda", "mps", "cpu")
CLIP_SECONDS = {"nano": 2.5, "base": 5.0}  # heard by every model of a sweep, by scale
DEFAULT_EPOCHS = 20

SEARCH = "rates"  # the sweep that looks for learning rates


def option(default: Any, help: str, **limits: Any) -> Any:
    """A dataclass field with its one-line help and its limits (`choices`, `low`, `high`, both ends allowed)."""
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class TrainConfig:
    """One trial, fully resolved: equal configurations give equal results at an equal number of threads.

    Raises:
        UserError: a value of the wrong type or outside its limits.
    """

    # What is compared
    model: str = option("ast", "backbone", choices=tuple(REGISTRY))
    strategy: str = option("lora", "what trains beside the fresh layers", choices=STRATEGIES)
    lora_targets: str = option("all-linear", "which pretrained layers get adapters", choices=LORA_TARGETS)
    augment: bool = option(True, "augmentation and mixup on")
    seed: int = option(0, "seed of initialisation, order and augmentation", low=0)
    scale: str = option("nano", "base: the published size; nano: the same architecture, small", choices=SCALES)
    weights: str = option("random", "'random' or the path of a weights file or directory")

    # Data
    dataset: str = option("tiny", "how many clips", choices=tuple(DATASET_SIZES))
    data_dir: str = option("", "absolute path of the data set")
    cache_dir: str = option("", "absolute path of the waveform cache")
    hold_out: str = option("", "timbre kept out of training and validation: soundfont=NAME or preset=NAME")
    test_also: str = option("", "a further data set, scored with the best state")
    clip_seconds: float = option(CLIP_SECONDS["nano"], "seconds heard by every model", low=0.25, high=10.0)
    efficientat_hop: int | None = option(
        None, "EfficientAT's hop, samples at 32 kHz (none: as its file's name says, else 320)", low=32, high=3200
    )
    frontend_mismatch: str = option("", "backbones allowed features other than those of their weights: A,B")

    # Optimisation
    epochs: int = option(DEFAULT_EPOCHS, "epochs", low=1)
    learning_rate: float = option(1e-3, "peak learning rate (AdamW)", low=0.0)
    weight_decay: float = option(0.01, "AdamW weight decay, on matrices only", low=0.0)
    warmup_epochs: float = option(1.0, "linear warm-up in epochs, then cosine to zero", low=0.0)
    micro_batch: int = option(32, "clips in one forward pass", low=1)
    accumulation: int = option(1, "micro-batches in one optimiser step; a sweep takes what makes it 32 clips", low=1)
    eval_batch: int = option(64, "clips in one evaluation pass", low=1)
    max_grad_norm: float = option(1.0, "gradient norm clipped to this", low=0.0)
    label_smoothing: float = option(0.1, "share of the label given to all classes", low=0.0, high=0.9)
    patience: int = option(10, "epochs without a better val_macro_f1 before stopping", low=1)
    head_dropout: float = option(0.1, "dropout before the classifier", low=0.0, high=0.9)

    # LoRA
    lora_r: int = option(8, "rank of the adapters", low=1)
    lora_alpha: float = option(16.0, "adapter scale is alpha / r", low=0.0)
    lora_dropout: float = option(0.1, "dropout before the adapters", low=0.0, high=0.9)

    # Augmentation, all of it off with augment=False
    gain_db: float = option(6.0, "random gain, up to ± this many dB", low=0.0)
    shift_ms: float = option(100.0, "random shift, up to ± this many ms", low=0.0)
    noise_snr_db: float = option(20.0, "white noise at this signal-to-noise ratio or quieter, dB")
    speed: float = option(0.08, "random speed, up to ± this share", low=0.0, high=0.5)
    freq_mask: float = option(0.23, "each of two frequency masks: up to this share of the bins", low=0.0, high=1.0)
    time_mask_ms: float = option(400.0, "each of two time masks: up to this many ms", low=0.0)
    mixup_alpha: float = option(0.2, "mixup: Beta(alpha, alpha); 0 is off", low=0.0)

    # The machine
    device: str = option("cpu", "where it trains", choices=DEVICES)
    threads: int = option(1, "CPU threads inside the trial (results repeat bit for bit at equal threads)", low=1)

    # A search among settings looks at validation alone
    score_test: bool = option(True, "score the test clips at the end")

    # To see whether it runs at all
    limit_train_batches: int | None = option(None, "optimiser steps in an epoch, at most", low=1)
    limit_eval_batches: int | None = option(None, "evaluation batches, at most", low=1)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            _check(each.name, getattr(self, each.name), _types(each.name), each.metadata)

    @property
    def arm_name(self) -> str:
        """The name that the trials of an arm share."""
        return arm_name(dataclasses.asdict(self))

    @property
    def trial_id(self) -> str:
        """The trial's name, the same on every machine and after every restart."""
        return trial_id(dataclasses.asdict(self))


class ArmKey(NamedTuple):
    """What tells the arms of a sweep apart: trials of one arm differ in their seed alone."""

    model: str
    strategy: str
    lora_targets: str  # empty where the strategy is not LoRA, for there it changes nothing
    augment: bool


def arm_of(config: Mapping[str, Any]) -> ArmKey:
    """The arm of a trial, from its configuration; what a foreign one lacks is empty."""
    strategy = str(config.get("strategy", ""))
    targets = str(config.get("lora_targets", "")) if strategy == "lora" else ""
    return ArmKey(str(config.get("model", "")), strategy, targets, bool(config.get("augment")))


def arm_name(config: Mapping[str, Any]) -> str:
    """An arm's name; in a search for the learning rate, the one sweep whose trials differ in it, with the rate."""
    arm = arm_of(config)
    targets = "-sweep" if arm.lora_targets == "sweep" else ""
    rate = "" if config.get("score_test", True) else f"-lr{config['learning_rate']:g}"
    return f"{arm.model}-{arm.strategy}{targets}-aug-{'on' if arm.augment else 'off'}{rate}"


def trial_id(config: Mapping[str, Any]) -> str:
    """A trial's name from its configuration."""
    return f"{arm_name(config)}-s{config['seed']}"


@functools.cache
def _types(name: str) -> tuple[type, ...]:
    """The types a field may hold; an int is welcome where a float is wanted."""
    hint = typing.get_type_hints(TrainConfig)[name]
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return (*members, int) if float in members else tuple(members)


def _check(name: str, value: Any, allowed: tuple[type, ...], limits: Mapping[str, Any]) -> None:
    # bool is an int to Python; here a flag is no number.
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        wanted = " or ".join("none" if t is type(None) else t.__name__ for t in allowed)
        raise UserError(f"{name}={value!r} is not of type {wanted}: {limits['help']}")
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value!r} is not a finite number: {limits['help']}")
    if "choices" in limits and value not in limits["choices"]:
        raise UserError(f"{name}={value!r} is unknown; choose one of: {', '.join(map(str, limits['choices']))}")
    low, high = limits.get("low"), limits.get("high")
    if low is not None and not value >= low:
        raise UserError(f"{name}={value!r} is below its limit; give {low} or more ({limits['help']})")
    if high is not None and not value <= high:
        raise UserError(f"{name}={value!r} is above its limit; give {high} or less ({limits['help']})")


# Set by their own options, so not offered through --set.
_OWN_OPTIONS = {"model", "strategy", "lora_targets", "augment", "seed", "scale", "weights", "epochs", "device"}
_OWN_OPTIONS |= {"dataset", "data_dir", "cache_dir", "hold_out", "test_also", "score_test"}


def settable() -> dict[str, dataclasses.Field[Any]]:
    """The TrainConfig fields that `--set key=value` takes, by name."""
    return {f.name: f for f in dataclasses.fields(TrainConfig) if f.name not in _OWN_OPTIONS}


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` as (key, value of the field's type).

    Raises:
        UserError: not of the form key=value, an unknown key, or a value that the field cannot take.
    """
    key, sign, raw = text.partition("=")
    if not sign:
        raise UserError(f"--set {text!r} is not of the form key=value, such as --set micro_batch=4")
    if key not in settable():
        raise UserError(f"--set {key!r} is not a setting; the settings are: {', '.join(settable())}")
    value: Any = raw
    allowed = _types(key)
    if type(None) in allowed and raw.lower() == "none":
        value = None
    elif bool in allowed:
        if raw.lower() not in ("true", "false"):
            raise UserError(f"--set {key}={raw!r} is not a flag; give true or false")
        value = raw.lower() == "true"
    else:
        number: type = int if int in allowed and float not in allowed else float
        if str not in allowed:
            try:
                value = number(raw)
            except ValueError:
                raise UserError(f"--set {key}={raw!r} is not a number ({settable()[key].metadata['help']})") from None
    _check(key, value, allowed, settable()[key].metadata)
    return key, value


@dataclass(frozen=True)
class PerModel:
    """An option whose value depends on the backbone, such as the learning rate. Tune resolves it for each trial."""

    values: Mapping[str, Any]

    def __call__(self, spec: Any) -> Any:
        """Called by `tune.sample_from` with the trial's half-resolved spec."""
        return self.values[spec.config.model]


@dataclass(frozen=True)
class Sweep:
    """What a tune_configs module returns: a parameter space over TrainConfig's fields and how to run it.

    `param_space` maps each field to a value, to `tune.grid_search([...])` or to a PerModel. `tuning` says how the
    learning rates were come by, where the trials are results; `notes` is what else a report is to say.
    """

    param_space: Mapping[str, Any]
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    scheduler: Any = None
    metric: str = "val_macro_f1"
    mode: str = "max"
    tuning: str = ""
    notes: tuple[str, ...] = ()

    def trials(self) -> list[TrainConfig]:
        """Every trial of the grid, in the grid's order (the last grid key varies fastest)."""
        grid = {k: v["grid_search"] for k, v in self.param_space.items() if _is_grid(v)}
        fixed = {k: v for k, v in self.param_space.items() if not _is_grid(v)}
        expanded = []
        for point in itertools.product(*grid.values()):
            values = {**fixed, **dict(zip(grid, point, strict=True))}
            model = values["model"]
            expanded.append(
                TrainConfig(**{k: v.values[model] if isinstance(v, PerModel) else v for k, v in values.items()})
            )
        return expanded


def _is_grid(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"grid_search"}


def check_trials(trials: Iterable[TrainConfig]) -> None:
    """
    Raises:
        UserError: two trials of one sweep have the same name, so one would overwrite the other, or they do not hear
            the same seconds or take steps of as many clips, so they could not be compared.
    """
    seen: dict[str, TrainConfig] = {}
    for trial in trials:
        if trial.trial_id in seen:
            raise UserError(f"trial {trial.trial_id!r} is planned twice; name each model, seed and option once")
        seen[trial.trial_id] = trial
    if len(heard := {trial.clip_seconds for trial in seen.values()}) > 1:
        seconds = ", ".join(f"{value:g}" for value in sorted(heard))
        raise UserError(f"the trials hear clips of {seconds} s; give all the same with --set clip_seconds=")
    if len(batches := {trial.micro_batch * trial.accumulation for trial in seen.values()}) > 1:
        clips = ", ".join(map(str, sorted(batches)))
        raise UserError(f"the trials take steps of {clips} clips; give all the same micro_batch × accumulation")
