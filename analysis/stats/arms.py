"""What is compared: arms (trials that differ in their seed alone), how they are called and coloured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import PurePath

from analysis.load.trials import Trial
from sousaphone.backbones.backbone_spec import WeightSource
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import arm_of

# Okabe and Ito (2008): told apart under every common colour blindness; yellow is too pale for white paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Colour never stands alone: the shape that goes with each, as Matplotlib and as plotly call it.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
STRATEGIES = {"lora": "LoRA", "head": "head only", "full": "full fine-tuning"}


@dataclass(frozen=True)
class Arm:
    """Trials that differ in their seed alone."""

    label: str  # what sets this arm apart from the others of the run
    variant: str  # the label without the backbone; empty where a backbone has one arm
    model: str
    strategy: str
    lora_targets: str
    augment: bool
    trials: tuple[Trial, ...]

    @property
    def shown(self) -> list[Trial]:
        """The trials with all their results; where none has, all of them: the two are never averaged together."""
        return [trial for trial in self.trials if trial.full] or list(self.trials)

    @property
    def full(self) -> bool:
        """Whether the trials shown have all their results."""
        return self.shown[0].full

    def values(self, kind: str, metric: str) -> list[float]:
        """One number for each trial shown that has it: `kind` is `best` or `last`, of which epoch."""
        rows = (getattr(trial, kind) for trial in self.shown)
        return [row[metric] for row in rows if metric in row]

    def mean(self, kind: str, metric: str) -> float | None:
        """The mean of `values`; None where there are none."""
        values = self.values(kind, metric)
        return sum(values) / len(values) if values else None

    @property
    def score(self) -> float:
        """What arms are ranked by: validation macro F1, or accuracy where an old run has no F1."""
        f1, accuracy = self.mean("best", "val_macro_f1"), self.mean("best", "val_acc")
        return next((value for value in (f1, accuracy) if value is not None), -math.inf)

    @property
    def name(self) -> str:
        """The label, with what became of its trials where that must be said."""
        return f"{self.label} ({self.state})" if self.state else self.label

    @property
    def state(self) -> str:
        """What became of its trials, in words; empty if all have all their results."""
        if all(trial.full for trial in self.trials):
            return ""
        if self.full:
            return f"{len(self.shown)} of {len(self.trials)} seeds"
        return ", ".join(dict.fromkeys(trial.status.replace("_", " ") for trial in self.trials))


def title(model: str) -> str:
    """A backbone's proper name."""
    return REGISTRY[model].title if model in REGISTRY else model


@dataclass(frozen=True)
class Look:
    """How a backbone is drawn: a colour and a shape, as Matplotlib (`marker`) and plotly (`symbol`) call it."""

    colour: str
    marker: str
    symbol: str


def looks(trials: Sequence[Trial]) -> Mapping[str, Look]:
    """A look for each backbone of the run; one in the registry has the same in every run."""
    known = dict.fromkeys([*REGISTRY, *(trial.config.get("model", "") for trial in trials)])
    ways = [Look(*way) for way in zip(_COLOURS, _MARKERS, _SYMBOLS, strict=True)]
    return dict(zip(known, cycle(ways), strict=False))


def arms(trials: Sequence[Trial]) -> list[Arm]:
    """The arms of a run in the order of the plan."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_parts(trial), []).append(trial)
    # A part that is the same everywhere says nothing, except for the backbone's name.
    varies = [i == 0 or len({parts[i] for parts in groups}) > 1 for i in range(len(_parts(trials[0])))]
    told = {parts: [part for part, shown in zip(parts, varies, strict=True) if shown and part] for parts in groups}
    return [
        Arm(
            label=" · ".join(told[parts]),
            variant=" · ".join(told[parts][1:] if parts[0] else told[parts]),
            **arm_of(group[0].config)._asdict(),
            trials=tuple(group),
        )
        for parts, group in groups.items()
    ]


def by_validation(groups: Sequence[Arm]) -> list[Arm]:
    """Arms with all their results by validation score, the best first; then those with some; then the others."""
    return sorted(groups, key=lambda arm: (not arm.full, -arm.score))


def best_of_each(groups: Sequence[Arm], scored: Collection[str] | None = None) -> list[Arm]:
    """The best arm by validation of each backbone, the best of them first; one with all its results before any other.

    Args:
        scored: trial_ids whose predictions are at hand; arms without any are passed over. None: all will do.
    """
    found: dict[str, Arm] = {}
    for arm in by_validation(groups):
        if scored is None or any(trial.trial_id in scored for trial in arm.shown):
            found.setdefault(arm.model, arm)
    return list(found.values())


def pretrained(trial: Trial) -> str:
    """Which weights a trial began with, and what those had learnt from, as its record says.

    Without such a record more than the file's name is said only where the path is that of the published checkpoint.
    """
    if trial.weights == "random":
        return "random weights"
    record = trial.began_from
    if record.get("origin") and record.get("pretraining"):
        return _told(str(record["origin"]), str(record["pretraining"]), record.get("objective"))
    spec, path = REGISTRY.get(trial.config.get("model", "")), PurePath(trial.weights)
    for source in spec.weights if spec else ():
        if spec is not None and _is_of(path, source):
            return _told(str(source.hub or source.file), spec.pretraining, spec.objective)
    return f"weights {path.name}"


def _told(origin: str, pretraining: str, objective: str | None) -> str:
    return f"{origin}: {pretraining} ({objective})" if objective else f"{origin}: {pretraining}"


def _is_of(path: PurePath, source: WeightSource) -> bool:
    """Whether a path ends as the hub's cache and torch's name this source."""
    if source.file is not None:
        return path.name == source.file
    return source.hub is not None and f"models--{source.hub.replace('/', '--')}" in path.parts


def checkpoints(trials: Sequence[Trial]) -> str:
    """The weights of every backbone of the run, in one sentence."""
    said = dict.fromkeys(f"{title(trial.config.get('model', ''))}: {pretrained(trial)}" for trial in trials)
    return f"Weights: {'; '.join(said)}." if any(trial.weights != "random" for trial in trials) else "Random weights."


def _parts(trial: Trial) -> tuple[str, ...]:
    """What tells its arm apart, in words; the backbone first."""
    arm = arm_of(trial.config)
    return (
        title(arm.model),
        STRATEGIES.get(arm.strategy, arm.strategy),
        f"targets {arm.lora_targets}" if arm.lora_targets else "",
        "augmented" if arm.augment else "unaugmented",
    )
