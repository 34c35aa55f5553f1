"""What an accuracy costs: each arm against five costs, and which arms no other beats at both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from analysis.arms import Arm, Look
from analysis.figures.scene import Scene
from analysis.figures.style import CHANCE_PERCENT, log_axis
from analysis.trials import Trial

_NEAR = (0.08, 0.055)  # parts of a panel within which two numbers would meet


@dataclass(frozen=True)
class Point:
    """One arm in one panel; accuracies in percent."""

    arm: Arm
    look: Look
    cost: float
    accuracy: float
    low: float  # of its seeds
    high: float


@dataclass(frozen=True)
class Panel:
    """What costs are along x, its arms, and those of the front from the cheapest on, as places in `points`."""

    title: str
    points: Sequence[Point]
    front: Sequence[int]

    @property
    def costs(self) -> list[float]:
        return [point.cost for point in self.points]

    @property
    def best(self) -> list[Point]:
        return [self.points[place] for place in self.front]

    def labels(self, numbers: Mapping[str, int], low: float, high: float) -> list[tuple[Point, str]]:
        """What stands at which point of the front; numbers that would meet stand together, at the best of them."""
        start, end, _ = log_axis(self.costs)
        found: list[tuple[list[int], Point, float]] = []
        for point in self.best:
            across = math.log(point.cost / start) / math.log(end / start)
            own = numbers[point.arm.label]
            if found:
                told, last, place = found[-1]
                if across - place < _NEAR[0] and (point.accuracy - last.accuracy) / (high - low) < _NEAR[1]:
                    # At the cheapest of them where they lie side by side: to its left nothing is in the way.
                    found[-1] = ([*told, own], point if across - place < 0.02 else last, place)
                    continue
            found.append(([own], point, across))
        return [(point, ", ".join(map(str, sorted(told)))) for told, point, _ in found]


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The places that no other beats: none is cheaper and as good, none as cheap and better; the cheapest first."""
    found: list[int] = []
    for place in sorted(range(len(costs)), key=lambda i: (costs[i], -values[i])):
        if not found or values[place] > values[found[-1]]:
            found.append(place)
    return found


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that can be shown: those with all their results."""
    return [trial for trial in trials if trial.full and "val_acc" in trial.best]


def panels_of(scene: Scene) -> list[Panel]:
    measures: tuple[tuple[str, Callable[[Trial], float | None]], ...] = (
        ("trainable parameters", lambda trial: trial.trainable_params),
        ("all parameters", lambda trial: trial.parameters.get("total")),
        ("training time, s", lambda trial: trial.train_seconds),
        ("CPU time a clip, ms", lambda trial: scene.cpu_ms.get(trial.trial_id)),
        ("size of what was learnt, kB", lambda trial: _kilo(scene.adapter_bytes.get(trial.trial_id))),
    )
    groups = [arm for arm in scene.groups if arm.full and arm.mean("best", "val_acc") is not None]
    found = []
    for name, measure in measures:
        points = []
        for arm in groups:
            costs = [cost for cost in map(measure, arm.shown) if cost is not None and cost > 0]
            if costs:
                values = [100 * value for value in arm.values("best", "val_acc")]
                mean = sum(values) / len(values)
                points.append(Point(arm, scene.look(arm), sum(costs) / len(costs), mean, min(values), max(values)))
        if points:
            found.append(Panel(name, points, front([p.cost for p in points], [p.accuracy for p in points])))
    return found


def _kilo(number: float | None) -> float | None:
    return None if number is None else number / 1000


def numbers_of(panels: Sequence[Panel]) -> dict[str, int]:
    """A number for the label of each arm that is on a front, the best by validation first."""
    on = {panel.points[place].arm.label: -panel.points[place].accuracy for panel in panels for place in panel.front}
    return {label: number for number, label in enumerate(sorted(on, key=lambda name: on[name]), start=1)}


def limits_of(panels: Sequence[Panel]) -> tuple[float, float]:
    """Of the accuracy axis: where chance is far below all arms, they fill the panel instead."""
    highest = max(point.high for panel in panels for point in panel.points)
    lowest = min(point.low for panel in panels for point in panel.points)
    span = max(highest - lowest, 10.0)
    low = lowest - 0.2 * span
    return (low if low > 4 * CHANCE_PERCENT else 0.0), min(highest + 0.12 * span, 104.0)
