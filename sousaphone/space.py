"""Points of a parameter space of Ray Tune: `grid_search`, domains such as `loguniform`, `sample_from`, and `PerModel`.

Ray is not imported here: a grid is a mapping, and a domain draws its own values. Draws are functions of the seed, the
number of the point and the name of the field. Thus all backbones and training seeds get the same points, and a point
does not change if backbones or seeds are added.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sousaphone.errors import UserError
from sousaphone.text import one_line


@dataclass(frozen=True)
class PerModel:
    """An option that depends on the backbone, such as the learning rate: a value, a grid or a domain for each."""

    values: Mapping[str, Any]

    def of(self, model: str, field: str) -> Any:
        """The value of a backbone; raises a UserError if it has none."""
        if model not in self.values:
            raise UserError(f"the space has no {field} for {model}, only for {', '.join(self.values)}; add it")
        return self.values[model]


def is_grid(value: Any) -> bool:
    """Whether the value is `tune.grid_search([...])`."""
    return isinstance(value, Mapping) and value.keys() == {"grid_search"}


def is_domain(value: Any) -> bool:
    """Whether the value is a domain of Ray Tune, such as `tune.loguniform(low, high)` or `tune.sample_from(f)`."""
    return callable(getattr(value, "sample", None)) and callable(getattr(value, "is_function", None))


def is_empty(part: Any) -> bool:
    """Whether a grid or a choice has no values, or the lower end of a domain is above its upper one."""
    if is_grid(part):
        return not part["grid_search"]
    low, high = (getattr(part, name, None) for name in ("lower", "upper"))
    values = getattr(part, "categories", None)
    return is_domain(part) and (values == [] or (low is not None and high is not None and low > high))


def searched(space: Mapping[str, Any], model: str) -> list[str]:
    """Return the fields that vary for a backbone, except for the seed: grids of several values, and domains."""
    own: dict[str, Any] = {
        name: v.values.get(model) if isinstance(v, PerModel) else v for name, v in space.items() if name != "seed"
    }
    return [name for name, v in own.items() if is_domain(v) or (is_grid(v) and len(v["grid_search"]) > 1)]


def parts(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a space by a flat name: the field, or `field@model` for those of a PerModel."""
    return {
        f"{name}@{model}" if model else name: part
        for name, value in space.items()
        for model, part in (value.values.items() if isinstance(value, PerModel) else [("", value)])
    }


def domains(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return the domains by their flat name, without functions, which depend on the other values."""
    return {name: part for name, part in parts(space).items() if is_domain(part) and not part.is_function()}


def bounds(part: Any) -> list[Any]:
    """Return values that include the extreme ones of a grid or domain; none for functions and unbounded domains."""
    if not is_domain(part):
        return list(part["grid_search"]) if is_grid(part) else []
    low, high = getattr(part, "lower", None), getattr(part, "upper", None)
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return list(getattr(part, "categories", []))
    return [part.cast(low), part.cast(high) - 1 if isinstance(part.cast(high), int) else high]


def draw(space: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Draw one value from each domain, by its flat name."""
    from numpy.random import RandomState  # --help does not need numpy

    def state(name: str) -> RandomState:
        digest = hashlib.sha256(f"0 {number} {name.partition('@')[0]}".encode()).digest()
        return RandomState(int.from_bytes(digest[:4], "big"))

    return {name: domain.sample(random_state=state(name)) for name, domain in domains(space).items()}


def place(space: Mapping[str, Any], drawn: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the points with these values of the domains: one for every combination of the grids, of which the last
    varies fastest. Functions of `sample_from` get the other values."""
    for point in _combinations({name: _placed(name, value, drawn) for name, value in space.items()}):
        for name, value in point.items():
            if is_domain(value):
                try:
                    point[name] = value.sample(config=point)
                except Exception as error:  # of the user's function
                    raise UserError(
                        f"the function of {name!r} in the space: {type(error).__name__}: {one_line(error, 200)}"
                    ) from error
        yield point


def points(space: Mapping[str, Any], samples: int = 1) -> Iterator[dict[str, Any]]:
    """Yield every point: `samples` draws from the domains, each with every combination of the grids."""
    for number in range(samples):
        yield from place(space, draw(space, number))


def _placed(name: str, value: Any, drawn: Mapping[str, Any]) -> Any:
    if isinstance(value, PerModel):
        return PerModel({model: drawn.get(f"{name}@{model}", part) for model, part in value.values.items()})
    return drawn.get(name, value)


def _combinations(space: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every combination of the grids, with the values of its backbone."""
    model = space["model"]
    if isinstance(model, str):
        space = {name: v.of(model, name) if isinstance(v, PerModel) else v for name, v in space.items()}
    grid = next((name for name, value in space.items() if is_grid(value)), None)
    if grid is None:
        yield dict(space)
        return
    for value in space[grid]["grid_search"]:
        yield from _combinations({**space, grid: value})
