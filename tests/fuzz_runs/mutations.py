"""Changes of one value in a JSON file, as somebody might make them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

# Terminal sequences, direction overrides, HTML, Markdown, plotly's templates and a line of its own.
HOSTILE_TEXT = "\x1b[2J\x9b31m\u202e\u2066\x07\r\n# x | `y` <script>alert(1)</script>"
HOSTILE_TEXT += "\"' onload=alert(1) %{x} ![a](javascript:b)"
JUNK: list[Any] = [
    *(None, True, -1, 0, 10**30, 1.5, 1e300, float("nan"), "", "x" * 3000, "../../mine", "ast", "[/x]", "0001-01-01"),
    *([], {}, [[]], {"a": 1}, [None], ["a"] * 5, {"\n": {"b": [1, {"c": None}]}}),
    *(2**31, 2**63, 2**64, 1e-300, -0.0, HOSTILE_TEXT, {HOSTILE_TEXT: HOSTILE_TEXT}, "/dev/zero", "hub:a/b", "a/b"),
    *("9999-12-31T23:59:59", "2026-01-01T00:00:00+23:59", "²", "\U0001f941" * 50, {"_type": "CLOUDPICKLE_FALLBACK"}),
]


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value, as keys from the outside in."""
    yield place
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[key], (*place, key))


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value in one place."""
    *parents, last = place
    within = content = copy.deepcopy(content)
    for key in parents:
        within = within[key]
    within[last] = value
    return content


def mutated(content: Any, rng: random.Random) -> Any:
    """Return a copy in which one value is replaced or removed, or has a new neighbour."""
    place = rng.choice(list(leaves(content))[1:])
    if rng.random() < 0.9:
        return replaced(content, place, rng.choice(JUNK))
    *parents, last = place
    within = content = copy.deepcopy(content)
    for key in parents:
        within = within[key]
    if rng.random() < 0.5:
        del within[last]
    elif isinstance(within, list):
        within.insert(last, within[last])
    else:
        within[rng.choice(["", "a", HOSTILE_TEXT])] = rng.choice(JUNK)
    return content
