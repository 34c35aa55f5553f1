"""The options of one trial (TrainConfig) and of one sweep (Sweep): frozen, validated, plain data.

Neither torch nor Ray is imported here, so that `launch.py --help` is fast.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sousaphone.backbones.registry import REGISTRY, strategy_of
from sousaphone.errors import UserError
from sousaphone.space import PerModel as PerModel
from sousaphone.space import bounds, domains, is_domain, is_empty, is_grid, parts, points, searched
from sousaphone.strategies import STRATEGIES

MOST_TRIALS = 10_000  # of a sweep
# Of every epoch, for the searcher and the scheduler of a sweep.
METRICS = ("val_macro_f1", "val_acc", "val_top5", "val_loss", "train_loss", "train_ce")
DATASET_SIZES: dict[str, int | None] = {"tiny": 1_000, "mini": 3_000, "small": 10_000, "medium": 25_000, "full": None}
FEW_PLAYERS = 8  # test players: with fewer, a difference between two models hardly generalises to other players
LORA_TARGETS = ("all-linear", "sweep", "qv", "qkv", "attention")
SCALES = ("base", "nano")
DEVICES = ("cuda", "mps", "cpu")
PRECISIONS = ("auto", "float32", "bfloat16")
CLIP_SECONDS = {"nano": 2.5, "base": 5.0}  # input length of every model of a sweep, by scale
COVERED_SECONDS = 30.0  # most of a clip that the averaged scores use: its central part
DEFAULT_EPOCHS = 20
TAGGED = {"learning_rate": "lr", "lora_r": "r", "lora_alpha": "alpha"}  # fields, by their names in tags and labels
RATES, SEARCH = "rates", "search"  # the sweeps that search for learning rates, and for settings


@dataclass(frozen=True)
class Needs:
    """What a trial must have for a field to have an effect, and the words for it in an error."""

    met: Callable[[TrainConfig], bool]
    words: str


_LOW_RANK = Needs(lambda trial: STRATEGIES[trial.strategy].low_rank, "adapters of low rank (as of --strategy lora)")
_AUGMENTATION = Needs(lambda trial: trial.augment, "augmentation (--augment on)")
_EFFICIENTAT = Needs(lambda trial: trial.model == "efficientat", "efficientat in --models")
_MISMATCH = Needs(
    lambda trial: trial.model in trial.frontend_mismatch.replace(" ", "").split(",") and trial.weights != "random",
    "one of these backbones in --models, with pretrained weights",
)
_TEST = Needs(lambda trial: trial.score_test, "trials that score test clips")


def option(default: Any, help: str, *, shown: str | None = None, needs: Needs | None = None, **limits: Any) -> Any:
    """A dataclass field with a one-line help text and limits: `choices`, a `pattern`, or `low` and `high`, both
    inclusive. `shown` describes the default in --help if a sweep sets it, or the value does not explain itself; without
    what it `needs`, the field has no effect."""
    return field(default=default, metadata={"help": help, "shown": shown or str(default), "needs": needs, **limits})


_lora = functools.partial(option, needs=_LOW_RANK)
_aug = functools.partial(option, needs=_AUGMENTATION)


@dataclass(frozen=True)
class TrainConfig:
    """One fully resolved trial: equal configurations give equal results at an equal number of threads. A value of the
    wrong type or outside its limits raises a UserError."""

    # What is compared
    model: str = option("ast", "backbone", choices=tuple(REGISTRY))
    strategy: str = option("lora", "what is trained in addition to the new layers", choices=tuple(STRATEGIES))
    lora_targets: str = _lora("all-linear", "pretrained layers that get adapters", choices=LORA_TARGETS)
    augment: bool = option(True, "augmentation and mixup")
    seed: int = option(0, "seed of initialisation, clip order and augmentation", low=0, high=10**12)
    scale: str = option("nano", "base: the published size; nano: the same architecture, small", choices=SCALES)
    weights: str = option("random", "'random' or the path of a weights file or directory")
    tag: str = option(
        "",
        "what distinguishes the trial from others of the sweep with the same backbone, strategy and augmentation",
        pattern="[a-z0-9.-]{0,40}",
    )

    # Data
    dataset: str = option("tiny", "number of clips", choices=tuple(DATASET_SIZES))
    data_dir: str = option("", "absolute path of the data set")
    cache_dir: str = option("", "absolute path of the waveform cache")
    hold_out: str = option("", "timbre excluded from training and validation: soundfont=NAME or preset=NAME")
    test_also: str = option("", "additional data set on which the best state is scored", needs=_TEST)
    clip_seconds: float = option(
        CLIP_SECONDS["nano"],
        "seconds of each recording that every model receives: a random window in training, else the centre",
        shown=", ".join(f"{seconds} at {scale}" for scale, seconds in CLIP_SECONDS.items()),
        low=0.25,
        high=10.0,
    )
    efficientat_hop: int | None = option(
        None,
        "EfficientAT's frame hop, samples at 32 kHz",
        shown="from the file name, else 320; 160 at nano",
        needs=_EFFICIENTAT,
        low=32,
        high=3200,
    )
    frontend_mismatch: str = option(
        "",
        "backbones A,B whose weights may be of other features than the front end's",
        shown="none",
        needs=_MISMATCH,
    )

    # Optimisation
    epochs: int = option(DEFAULT_EPOCHS, "passes over the training clips, at most", low=1)
    learning_rate: float = option(1e-3, "peak learning rate of AdamW", shown="by backbone, strategy and scale", low=0.0)
    weight_decay: float = option(0.01, "AdamW weight decay of matrices; biases and norms have none", low=0.0)
    warmup_epochs: float = option(1.0, "epochs of linear warm-up, followed by cosine decay to zero", low=0.0)
    micro_batch: int = option(
        32, "clips per forward pass; fewer need less memory", shown="by backbone and device", low=1
    )
    accumulation: int = option(1, "micro-batches per optimiser step", shown="what makes about 32 clips per step", low=1)
    eval_batch: int = option(64, "clips per evaluation pass; fewer need less memory", shown="two micro-batches", low=1)
    max_grad_norm: float = option(1.0, "gradients with a larger norm are scaled down to this norm", low=0.0)
    label_smoothing: float = option(0.1, "fraction of each label spread over all classes", low=0.0, high=0.9)
    patience: int = option(10, "epochs without a better val_macro_f1 before early stopping", low=1)
    head_dropout: float = option(0.1, "dropout probability before the classifier", low=0.0, high=0.9)

    # Adapters of low rank: lora, rslora, dora, adalora
    lora_r: int = _lora(8, "rank of the adapters; a higher one adds capacity and parameters", low=1, high=4096)
    lora_alpha: float = _lora(16.0, "adapter outputs are scaled by alpha / r (rslora: / √r)", low=0.0)
    lora_dropout: float = _lora(0.1, "dropout probability before the adapters", low=0.0, high=0.9)

    # Augmentation, all of it off with augment=False
    gain_db: float = _aug(6.0, "random gain, up to ± this many dB", low=0.0)
    shift_ms: float = _aug(100.0, "random time shift, up to ± this many ms", low=0.0)
    noise_snr_db: float = _aug(
        20.0, "white noise; the signal-to-noise ratio is random, from this many dB to 40 dB more"
    )
    speed: float = _aug(0.08, "random speed and pitch, up to ± this fraction", low=0.0, high=0.5)
    freq_mask: float = _aug(0.23, "two frequency masks, each up to this fraction of the bins", low=0.0, high=1.0)
    time_mask_ms: float = _aug(400.0, "two time masks, each up to this many ms", low=0.0)
    mixup_alpha: float = _aug(0.2, "mixup blends pairs of clips by a weight from Beta(alpha, alpha); 0: off", low=0.0)

    # Machine and evaluation
    device: str = option("cpu", "device for training", choices=DEVICES)
    precision: str = option(
        "auto",
        "number format of frozen layers and activations; adapters and new layers are float32",
        shown="auto: bfloat16 on CUDA, and at full size on a CPU with instructions for it",
        choices=PRECISIONS,
    )
    threads: int = option(
        1, "CPU threads per trial; only equal threads give bit-identical results", shown="by device", low=1
    )
    score_test: bool = option(True, "score the test clips at the end; a search over settings does not")
    limit_train_batches: int | None = option(
        None, "maximum number of optimiser steps per epoch, for a quick check", shown="none", low=1
    )
    limit_eval_batches: int | None = option(
        None, "maximum number of evaluation batches, for a quick check", shown="none", low=1
    )

    def __post_init__(self) -> None:
        for name, declared in _FIELDS.items():
            _check(declared, getattr(self, name))
        object.__setattr__(self, "strategy", strategy_of(self.model, self.strategy))
        if self.precision == "auto":  # sweeps resolve it by the processor, too
            object.__setattr__(self, "precision", precision_of({"device": self.device}))
        elif self.precision == "bfloat16" and self.device == "mps":
            raise UserError("precision=bfloat16 is not available on mps; leave it out, or give float32")

    @property
    def frozen_bfloat16(self) -> bool:
        """Whether frozen layers are held in bfloat16; other strategies in bfloat16 use autocast."""
        return self.precision == "bfloat16" and STRATEGIES[self.strategy].rounded

    def lacks(self, name: str) -> str:
        """What the trial lacks for a field to have an effect, in words; empty if it has one."""
        needs: Needs | None = _FIELDS[name].metadata["needs"]
        return "" if needs is None or needs.met(self) else needs.words

    @property
    def captured(self) -> bool:
        """Whether the passes of a micro-batch are captured as CUDA graphs."""
        return self.device == "cuda" and self.frozen_bfloat16

    @property
    def arm_name(self) -> str:
        """The name shared by the trials of an arm."""
        return arm_name(dataclasses.asdict(self))

    @property
    def trial_id(self) -> str:
        """The name of the trial, stable across machines and restarts."""
        return trial_id(dataclasses.asdict(self))


_FIELDS = {each.name: each for each in dataclasses.fields(TrainConfig)}


class ArmKey(NamedTuple):
    """The options that distinguish the arms of a sweep; trials of one arm differ only in their seed."""

    model: str
    strategy: str
    lora_targets: str  # empty unless the adapters are of low rank
    augment: bool
    tag: str = ""  # of the other options that the sweep varies


def arm_of(config: Mapping[str, Any]) -> ArmKey:
    """The arm of a trial, from its configuration; missing values are empty."""
    model, strategy, tag = (str(config.get(name, "")) for name in ("model", "strategy", "tag"))
    return ArmKey(model, strategy, str(lora_targets_of(config) or ""), bool(config.get("augment")), tag)


def lora_targets_of(config: Mapping[str, Any]) -> Any:
    """The `lora_targets` of a trial, from its configuration; None if its strategy does not use them."""
    strategy = STRATEGIES.get(str(config.get("strategy")))
    return config.get("lora_targets") if strategy is not None and strategy.low_rank else None


def precision_of(config: Mapping[str, Any]) -> str:
    """The precision of a trial, from its configuration; older versions did not record it, and used the device's."""
    precision = str(config.get("precision") or "auto")
    return precision if precision != "auto" else "bfloat16" if config.get("device") == "cuda" else "float32"


def arm_name(config: Mapping[str, Any]) -> str:
    """The name of an arm: backbone, strategy, targets if not all linear layers, augmentation, tag."""
    arm = arm_of(config)
    targets = f"-{arm.lora_targets}" if arm.lora_targets not in ("", "all-linear") else ""
    tag = arm.tag
    if not tag and not config.get("score_test", True):  # a learning-rate search of a version without tags
        tag = f"lr{config['learning_rate']:g}"
    return f"{arm.model}-{arm.strategy}{targets}-aug-{'on' if arm.augment else 'off'}{f'-{tag}' if tag else ''}"


def trial_id(config: Mapping[str, Any]) -> str:
    """The name of a trial, from its configuration."""
    return f"{arm_name(config)}-s{config['seed']}"


def tagged(config: TrainConfig, names: Sequence[str]) -> TrainConfig:
    """The configuration with the tag of these fields: a short name and the value of a single number, else a hash of
    their values; none without fields."""
    values = {name: getattr(config, name) for name in names}
    tag = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8] if values else ""
    if len(values) == 1 and (short := TAGGED.get(names[0])):
        tag = f"{short}{values[names[0]]:g}".replace("+", "")
    return dataclasses.replace(config, tag=tag)


@functools.cache
def _types(name: str) -> tuple[type, ...]:
    """The types that a field accepts; a float field accepts an int as well."""
    hint = typing.get_type_hints(TrainConfig)[name]
    allowed = typing.get_args(hint) or (hint,)
    return (*allowed, int) if float in allowed else allowed


def _check(declared: dataclasses.Field[Any], value: Any) -> None:
    name, limits, allowed = declared.name, declared.metadata, _types(declared.name)
    # In Python bool is a subclass of int; here a flag is not a number.
    if (isinstance(value, bool) and bool not in allowed) or not isinstance(value, allowed):
        expected = " or ".join("none" if t is type(None) else t.__name__ for t in allowed)
        raise UserError(f"{name}={value!r} is not of type {expected}: {limits['help']}")
    if value is None:
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value!r} is not a finite number: {limits['help']}")
    if "choices" in limits and value not in limits["choices"]:
        raise UserError(f"{name}={value!r} is unknown; choose one of: {', '.join(map(str, limits['choices']))}")
    if "pattern" in limits and not re.fullmatch(limits["pattern"], str(value)):
        raise UserError(f"{name}={value!r} is not of the form {limits['pattern']}: {limits['help']}")
    if "low" in limits and value < limits["low"]:
        raise UserError(f"{name}={value!r} is below its limit; give {limits['low']} or more ({limits['help']})")
    if "high" in limits and value > limits["high"]:
        raise UserError(f"{name}={value!r} is above its limit; give {limits['high']} or less ({limits['help']})")


# These have command-line options of their own.
_OWN_OPTIONS = {"model", "strategy", "lora_targets", "augment", "seed", "scale", "weights", "epochs", "device"}
_OWN_OPTIONS |= {"dataset", "data_dir", "cache_dir", "hold_out", "test_also", "score_test", "tag"}


def settable() -> dict[str, dataclasses.Field[Any]]:
    """The TrainConfig fields accepted by `--set key=value`, by name."""
    return {name: declared for name, declared in _FIELDS.items() if name not in _OWN_OPTIONS}


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse `key=value` into the key and a value of the field's type; raises a UserError if the text is not of this
    form, the key is unknown, or the field does not accept the value."""
    key, sign, raw = text.partition("=")
    if not sign:
        raise UserError(f"--set {text!r} is not of the form key=value, such as --set micro_batch=4")
    if key not in settable():
        raise UserError(f"--set {key!r} is not a setting; the settings are: {', '.join(settable())}")
    declared, allowed = settable()[key], _types(key)
    value: Any = raw
    if type(None) in allowed and raw.lower() == "none":
        value = None
    elif str not in allowed:
        try:
            value = float(raw) if float in allowed else int(raw)
        except ValueError:
            raise UserError(f"--set {key}={raw!r} is not a number ({declared.metadata['help']})") from None
    _check(declared, value)
    return key, value


# The same in all trials of a sweep, or, like the micro-batch, in all trials of a backbone.
FIXED = {"dataset", "data_dir", "cache_dir", "hold_out", "test_also", "device", "threads", "scale", "weights"}
FIXED |= {"micro_batch", "accumulation", "eval_batch", "frontend_mismatch", "limit_eval_batches", "score_test", "tag"}
FIXED |= {"precision"}


@dataclass(frozen=True)
class Sweep:
    """A sweep, as returned by a tune_configs module: a parameter space over TrainConfig's fields and how to run it.

    `param_space` maps each field to a value or to a part of a space of Ray Tune (see `sousaphone.space`). With a
    `searcher` of Ray Tune, trials are proposed while the sweep runs; without one, all are known when it is planned. A
    `scheduler` of Ray Tune may stop trials early. `tuning` describes how the learning rates were chosen, for sweeps
    whose trials are results; `notes` are further remarks for the report. A wrong space raises a UserError.
    """

    param_space: Mapping[str, Any]
    num_samples: int = 1  # draws from the domains, each with all combinations of the grids; with a searcher: trials
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    searcher: Any = None
    scheduler: Any = None
    search: Any = None  # a `sousaphone.search.design.Search`, whose finalists are trained once it is complete
    metric: str = "val_macro_f1"
    mode: str = "max"
    tuning: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.param_space if name not in _FIELDS]:
            raise UserError(f"the space has {unknown[0]!r}, which is no setting; known are: {', '.join(_FIELDS)}")
        if "model" not in self.param_space:
            raise UserError("the space has no 'model'; add the backbones, for example those of request.models")
        for name, part in parts(self.param_space).items():
            field_name = name.partition("@")[0]
            if is_empty(part):
                raise UserError(f"the space has no values for {name!r}; give some")
            varies = is_domain(part) or (is_grid(part) and len(part["grid_search"]) > 1)
            if varies and field_name in FIXED:
                raise UserError(f"the space varies {field_name!r}, which a sweep cannot; give one value")
            if varies and is_grid(part) and self.searcher is not None:
                raise UserError(f"the space has a grid over {name!r}, which a searcher cannot propose; use tune.choice")
            for value in bounds(part):
                _check(_FIELDS[field_name], value)
        if type(self.num_samples) is not int or not 1 <= self.num_samples <= MOST_TRIALS:
            raise UserError(f"num_samples={self.num_samples!r} is not a whole number from 1 to {MOST_TRIALS}")

    def trials(self) -> list[TrainConfig]:
        """All trials of the space: the last grid key varies fastest. With a searcher, the first of each backbone."""
        if self.searcher is None:
            few = itertools.islice(points(self.param_space, self.num_samples), MOST_TRIALS + 1)
            found = [self.trial(point) for point in few]
            if len(found) > MOST_TRIALS:
                raise UserError(f"the space has more than {MOST_TRIALS} points; give fewer")
            return list(dict.fromkeys(found)) if domains(self.param_space) else found
        model = self.param_space["model"]
        space = {**self.param_space, "model": {"grid_search": bounds(model)} if is_domain(model) else model}
        return [self.trial(point) for point in points(space)][: self.num_samples]

    def trial(self, point: Mapping[str, Any]) -> TrainConfig:
        """The trial at a point, tagged by the fields that the space varies beyond those in its name."""
        trial = TrainConfig(**point)
        return tagged(trial, [n for n in searched(self.param_space, trial.model) if n not in ArmKey._fields])


def check_trials(trials: Iterable[TrainConfig], varies: Iterable[str] = ()) -> None:
    """Raise a UserError if two trials have the same name, so that one would overwrite the other, or differ in clip
    length, unless that is among the fields that the sweep varies, or in clips per optimiser step, so that they could
    not be compared."""
    seen: dict[str, TrainConfig] = {}
    for trial in trials:
        if trial.trial_id in seen:
            raise UserError(f"trial {trial.trial_id!r} is planned twice; name each model, seed and option once")
        seen[trial.trial_id] = trial
    if "clip_seconds" not in varies and len(lengths := {trial.clip_seconds for trial in seen.values()}) > 1:
        seconds = ", ".join(f"{value:g}" for value in sorted(lengths))
        raise UserError(f"the trials use clips of {seconds} s; give all the same length with --set clip_seconds=")
    if len(batches := {trial.micro_batch * trial.accumulation for trial in seen.values()}) > 1:
        clips = ", ".join(map(str, sorted(batches)))
        raise UserError(f"the trials take steps of {clips} clips; give all the same micro_batch × accumulation")
