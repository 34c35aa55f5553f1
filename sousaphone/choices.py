"""From the words of the command line to definite choices: device, scale, data, weights. Nothing on disk changes,
but for the built-in data set, which is generated where it is first asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sousaphone.backbones.registry import REGISTRY
from sousaphone.data import hub
from sousaphone.data.places import local_path
from sousaphone.errors import UserError
from sousaphone.hardware import home_directory

DEFAULT_EPOCHS = 20
# A demonstration must end in minutes on two cores.
TINY_EPOCHS = 10
SEARCH, SEARCH_EPOCHS = "rates", 3  # the sweep that looks for learning rates, and what it gives each of them


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
        rates: learning rates found by a search (`--rates`), by backbone; empty: those of tune_configs.
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


def pick_scale(asked: str, device: str) -> str:
    """base where there is a GPU, nano on a machine with none."""
    if asked == "auto":
        return "base" if device in ("cuda", "mps") else "nano"
    return asked


def cache_directory() -> Path:
    """Where waveforms and the built-in data set are kept: SOUSAPHONE_CACHE, or the user's cache directory.

    Raises:
        UserError: neither is known.
    """
    given = os.environ.get("SOUSAPHONE_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home_directory() / ".cache") / "sousaphone"


def pick_data_dir(asked: str | None) -> str:
    """`--data-dir`, else SOUSA_DATASET_PATH, else the built-in set (empty).

    A data set of the hub stays the word that it is: it is looked up, and downloaded if need be, when it is read.

    Raises:
        UserError: neither a directory nor a CSV file nor a word for a data set of the hub.
    """
    origin, given = "--data-dir", asked
    if given is None:
        origin, given = "SOUSA_DATASET_PATH", os.environ.get("SOUSA_DATASET_PATH") or None
    return "" if given is None else check_source(origin, given)


def check_source(origin: str, given: str) -> str:
    """A data set that is asked for, as an absolute path or a word for one of the hub; its content is not looked at.

    Args:
        origin: the option that names it, for messages.

    Raises:
        UserError: it is none of what can be read.
    """
    if hub.is_word(given):
        return hub.check_word(given)
    path = local_path(given)
    if not path.exists():
        raise UserError(f"{origin} {given!r} does not exist; give a directory, a CSV file, or hub:OWNER/NAME")
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() == ".csv"):
        raise UserError(
            f"{origin} {given!r} is not a directory; give the directory of a SOUSA data set or of recordings, a CSV "
            "file of their labels, or hub:OWNER/NAME"
        )
    return str(path)


def parse_weights(words: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """`--weights` words as a choice for each model: one of auto and random for all, NAME=PATH for one.

    Raises:
        UserError: a word that is neither, or that names a backbone outside the sweep.
    """
    chosen = dict.fromkeys(models, "auto")
    for word in words:
        name, sign, path = word.partition("=")
        if not sign:
            if word not in ("auto", "random"):
                raise UserError(f"--weights {word!r} is unknown; give auto, random or NAME=PATH")
            chosen.update(dict.fromkeys(models, word))
    for word in words:
        name, sign, path = word.partition("=")
        if sign and name not in models:
            known = "is not in this sweep" if name in REGISTRY else "is unknown"
            raise UserError(f"--weights {word!r}: backbone {name!r} {known}; choose one of: {', '.join(models)}")
        if sign and not path:
            raise UserError(f"--weights {word!r} names no file; give {name}=PATH, or random")
        if sign:
            chosen[name] = path
    return chosen


def resolve_weights(
    words: Sequence[str], models: Sequence[str], scale: str, saved: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What each model starts from: 'random' or an absolute path.

    Args:
        saved: what a run that exists was begun with, by model: it stays but where NAME=PATH names the model.

    Raises:
        UserError: see `parse_weights` and `sousaphone.weights.resolve_all`.
    """
    from sousaphone import weights

    saved = saved or {}
    chosen = parse_weights(words, models)
    asked = {model: word for model, word in chosen.items() if model not in saved or model in named(words)}
    return {**saved, **weights.resolve_all(asked, scale)}


def named(words: Sequence[str]) -> set[str]:
    """The models that `--weights` words name, each with its own NAME=PATH."""
    return {word.partition("=")[0] for word in words if "=" in word}


def data_is_missing(choices: Choices) -> bool:
    """Whether the data has yet to be generated or downloaded."""
    from sousaphone.data.generate import builtin_root

    if choices.built_in:
        return not builtin_root(Path(choices.cache_dir), choices.dataset).is_dir()
    return not_downloaded(choices.data_dir)


def not_downloaded(source: str) -> bool:
    """Whether this is a data set of the hub that is not whole in the hub's cache."""
    return hub.is_word(source) and hub.cached(source) is None


def with_data(choices: Choices) -> Choices:
    """The same with the built-in data set generated, if that is what is to be used.

    Raises:
        UserError: the cache directory cannot be written.
    """
    if not choices.built_in:
        return choices
    from sousaphone.data.generate import builtin_dataset

    try:
        root = builtin_dataset(Path(choices.cache_dir), choices.dataset)
    except OSError as error:
        raise UserError(
            f"the built-in data set cannot be written to {choices.cache_dir} ({error.strerror}); "
            "set SOUSAPHONE_CACHE to a directory with free space"
        ) from error
    return dataclasses.replace(choices, data_dir=str(root))
