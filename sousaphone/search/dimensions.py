"""What a search varies: one `Dimension` for each field of a trial, and the default space around an untuned trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Len

from sousaphone.config import TrainConfig
from sousaphone.errors import UserError
from sousaphone.runs import schema

Kind = Literal["uniform", "loguniform", "choice"]


@dataclass(frozen=True)
class Dimension:
    """The values of one field: from `low` to `high`, or one of `values`."""

    __pydantic_config__ = schema.STRICT
    type: Kind
    low: schema.Number = 0.0
    high: schema.Number = 0.0
    values: Annotated[tuple[schema.Scalar, ...], Len(0, 100)] = ()

    def __post_init__(self) -> None:
        ordered = self.low < self.high and (self.type == "uniform" or self.low > 0)
        if not (self.values if self.type == "choice" else ordered):
            raise ValueError(f"{self.type} needs values, or low < high, above 0 if it is logarithmic")

    def at(self, fraction: float) -> Any:
        """Return the value at a fraction in [0, 1) of the dimension."""
        if self.type == "choice":
            return self.values[int(fraction * len(self.values))]
        if self.type == "uniform":
            return self.rounded(self.low + fraction * (self.high - self.low))
        return self.rounded(self.low * (self.high / self.low) ** fraction)

    def rounded(self, value: Any) -> Any:
        """Round a number to three digits, within the limits; a choice is kept."""
        return value if self.type == "choice" else min(max(float(f"{value:.3g}"), self.low), self.high)

    def has(self, value: Any) -> bool:
        """Whether the value can be proposed."""
        return value in self.values if self.type == "choice" else self.low <= value <= self.high


Space = Mapping[str, Dimension]  # by field of TrainConfig

_RATE = (0.1, 4.0)  # times the backbone's default
_DEFAULT = {
    "lora_r": Dimension("choice", values=(4, 8, 16, 32)),
    "weight_decay": Dimension("loguniform", 1e-3, 0.3),
    "head_dropout": Dimension("uniform", 0.0, 0.5),
    "mixup_alpha": Dimension("uniform", 0.0, 0.4),
}


def space_around(default: TrainConfig, fixed: Collection[str] = ()) -> dict[str, Dimension]:
    """Return the default space of a backbone: few fields, so that eight to sixteen points suffice for a first answer.

    Args:
        default: the untuned trial.
        fixed: fields that are given and not searched.

    Raises:
        UserError: the untuned learning rate is 0, or too small.
    """
    space = dict(_DEFAULT)
    if "learning_rate" not in fixed:
        low, high = (float(f"{factor * default.learning_rate:.3g}") for factor in _RATE)
        if not 0 < low < high:
            raise UserError(f"learning_rate={default.learning_rate:g} of {default.model} has no neighbours to search")
        space = {"learning_rate": Dimension("loguniform", low, high), **space}
    unused = {*fixed, "lora_r"} if "lora_alpha" in fixed else fixed
    return {name: each for name, each in space.items() if name not in unused and not default.lacks(name)}


def configured(default: TrainConfig, point: Mapping[str, Any]) -> TrainConfig:
    """Return the trial of a point. A rank keeps the default's alpha / r, unless alpha is searched as well."""
    changes = dict(point)
    if "lora_r" in point and "lora_alpha" not in point:
        changes["lora_alpha"] = default.lora_alpha / default.lora_r * point["lora_r"]
    return dataclasses.replace(default, **changes)
