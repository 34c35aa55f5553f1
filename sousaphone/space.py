"""Points of a parameter space of Ray Tune: `grid_search`, domains such as `loguniform`, `sample_from`, and `PerModel`.

Ray is not imported here: a grid is a mapping, and a domain draws its own values. Draws are functions of the seed, the
number of the point and the name of the field. Thus all backbones and training seeds get the same points, and a point
does not change if backbones or seeds are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sousaphone.errors import UserError


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


def searched(space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the grids and domains of each field that has any; of a PerModel, those of all backbones."""
    parts = {name: list(v.values.values()) if isinstance(v, PerModel) else [v] for name, v in space.items()}
    found = {name: [each for each in own if is_grid(each) or is_domain(each)] for name, own in parts.items()}
    return {name: own for name, own in found.items() if own}


def points(space: Mapping[str, Any], samples: int = 1, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield every point: `samples` draws from the domains, each with every combination of the grids, of which the last
    varies fastest. Functions of `sample_from` get the other values."""
    for number in range(samples):
        drawn = {name: _drawn(name, value, number, seed) for name, value in space.items()}
        for point in _combinations(drawn):
            for name, value in point.items():
                if is_domain(value):
                    point[name] = value.sample(config=point)
            yield point


def _drawn(name: str, value: Any, number: int, seed: int) -> Any:
    """Draw a value from a domain or from those of a PerModel; anything else, and functions, are returned."""
    if isinstance(value, PerModel):
        return PerModel({model: _drawn(name, each, number, seed) for model, each in value.values.items()})
    if not is_domain(value) or value.is_function():
        return value
    from numpy.random import RandomState  # --help does not need numpy

    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return value.sample(random_state=RandomState(int.from_bytes(digest[:4], "big")))


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
