"""Arms (trials that differ in their seed alone): their labels, colours, scores and pretrained weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, groupby
from pathlib import Path
from typing import Any

from analysis.load.trials import Trial
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TAGGED, ArmKey, arm_of
from sousaphone.strategies import STRATEGIES
from sousaphone.weights.identity import claimed

# Okabe and Ito (2008): distinguishable with all common colour blindness; without yellow, which is too pale on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Each colour also has a shape, named as in Matplotlib and in plotly.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")


@dataclass(frozen=True)
class Arm:
    """Trials that differ in their seed alone."""

    label: str  # the options that distinguish this arm from the others of the run
    variant: str  # the label without the backbone
    model: str
    strategy: str
    lora_targets: str
    augment: bool
    tag: str  # of its further settings, equal for arms that differ in the backbone or in augmentation alone
    trials: tuple[Trial, ...]

    @property
    def shown(self) -> list[Trial]:
        """The trials with all their results; if there are none, all trials. The two kinds are never averaged."""
        return [trial for trial in self.trials if trial.full] or list(self.trials)

    @property
    def full(self) -> bool:
        """Whether the trials shown have all their results."""
        return self.shown[0].full

    def values(self, metric: str) -> list[float]:
        """The metric of each shown trial that has it, from its best epoch."""
        return [trial.best[metric] for trial in self.shown if metric in trial.best]

    def mean(self, metric: str) -> float | None:
        """The mean of `values`; None if there are none."""
        values = self.values(metric)
        return sum(values) / len(values) if values else None

    @property
    def score(self) -> float:
        """The score by which arms are ranked: validation macro F1."""
        mean = self.mean("val_macro_f1")
        return -math.inf if mean is None else mean

    @property
    def label_without_augmentation(self) -> str:
        """The label that this arm and the one that differs in augmentation alone have in common."""
        return self.label.removesuffix(" · augmented").removesuffix("augmented") or title(self.model)

    @property
    def name(self) -> str:
        """The label, with the state unless all trials have all their results."""
        return f"{self.label} ({self.state})" if self.state else self.label

    @property
    def state(self) -> str:
        """The state of its trials in words; empty if all have all their results."""
        if all(trial.full for trial in self.trials):
            return ""
        if self.full:
            return f"{len(self.shown)} of {len(self.trials)} seeds"
        return ", ".join(dict.fromkeys(trial.status.replace("_", " ") for trial in self.trials))


def title(model: str) -> str:
    """Return the display name of a backbone."""
    return REGISTRY[model].title if model in REGISTRY else model


@dataclass(frozen=True)
class Look:
    """The colour and shape of a backbone in figures; the shape as named in Matplotlib and in plotly."""

    colour: str
    marker: str  # Matplotlib
    symbol: str  # plotly


def paled(colour: str, opaque: float = 0.4) -> str:
    """The opaque colour that looks like this colour on white at this opacity; overlaps do not get darker."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(255 - opaque * (255 - part)):02x}" for part in parts)


def looks(trials: Sequence[Trial]) -> Mapping[str, Look]:
    """Return a look for each backbone; a registered backbone has the same in every run."""
    models = dict.fromkeys([*REGISTRY, *(trial.config.get("model", "") for trial in trials)])
    return dict(zip(models, cycle(map(Look, _COLOURS, _MARKERS, _SYMBOLS)), strict=False))


def arms(trials: Sequence[Trial]) -> list[Arm]:
    """Return the arms of a run in the order of the plan."""
    groups: dict[ArmKey, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(arm_of(trial.config), []).append(trial)
    settings = settings_of(trials)
    parts_of = [_parts(arm, in_words(settings[group[0].trial_id])) for arm, group in groups.items()]
    varies = [len(set(values)) > 1 for values in zip(*parts_of, strict=True)]
    found = []
    for parts, (arm, group) in zip(parts_of, groups.items(), strict=True):
        variant = " · ".join(part for part, varied in zip(parts[1:], varies[1:], strict=True) if part and varied)
        label = " · ".join(filter(None, (parts[0], variant)))
        found.append(Arm(label, variant, **arm._asdict(), trials=tuple(group)))
    return found


def settings_of(trials: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Return the settings, beyond those of `ArmKey`, in which the trials of a backbone differ, by trial_id; none for
    trials whose sweep varies no others."""
    names: dict[str, list[str]] = {}
    for model, group in groupby(sorted(trials, key=_model), key=_model):
        first, *others = (trial.config for trial in group)
        names[model] = [
            name
            for name in first
            if name not in ("seed", "cache_dir", *ArmKey._fields)
            and any(each.get(name) != first[name] for each in others)
        ]
    tags = {trial.trial_id: arm_of(trial.config).tag for trial in trials}
    return {
        trial.trial_id: {name: trial.config.get(name) for name in names[_model(trial)] if tags[trial.trial_id]}
        for trial in trials
    }


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as text, such as `lr=0.005 · r=16`."""
    return " · ".join(f"{TAGGED.get(name, name)}={value_in_words(value)}" for name, value in settings.items())


def value_in_words(value: Any) -> str:
    """Return the value of a setting as text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _model(trial: Trial) -> str:
    return str(trial.config.get("model", ""))


def by_validation(groups: Sequence[Arm]) -> list[Arm]:
    """Sort arms by validation score, the best first; arms with all their results come before the others."""
    return sorted(groups, key=lambda arm: (not arm.full, -arm.score))


def best_of_each(groups: Sequence[Arm], scored: Collection[str] | None = None) -> list[Arm]:
    """Return the best arm of each backbone, in the order of `by_validation`; if given, only arms of `scored` trials."""
    found: dict[str, Arm] = {}
    for arm in by_validation(groups):
        if scored is None or any(trial.trial_id in scored for trial in arm.shown):
            found.setdefault(arm.model, arm)
    return list(found.values())


def pretrained(trial: Trial) -> str:
    """Describe a trial's pretrained weights and their pretraining, from its record.

    Without a record, only the file's name is given unless the path is that of a published checkpoint.
    """
    if trial.weights == "random":
        return "random weights"
    record, path = trial.began_from, Path(trial.weights)
    origin, pretraining, objective = (record.get(name) for name in ("origin", "pretraining", "objective"))
    if not (origin and pretraining):
        spec = REGISTRY.get(trial.config.get("model", ""))
        source = claimed(spec, path) if spec else None
        if spec is None or source is None:
            return f"weights {path.name}"
        origin, pretraining, objective = source.hub or source.file, spec.pretraining, spec.objective
    return f"{origin}; pretraining: {pretraining}" + (f" ({objective})" if objective else "")


def checkpoints(trials: Sequence[Trial]) -> str:
    """Describe the pretrained weights of all backbones in one sentence."""
    if all(trial.weights == "random" for trial in trials):
        return "Random weights."
    weights = dict.fromkeys(f"{title(trial.config.get('model', ''))}: {pretrained(trial)}" for trial in trials)
    return f"Weights: {'; '.join(weights)}."


def _parts(arm: ArmKey, settings: str) -> tuple[str, ...]:
    """Return the parts of an arm's label, the backbone first."""
    return (
        title(arm.model),
        STRATEGIES[arm.strategy].title if arm.strategy in STRATEGIES else arm.strategy,
        f"targets {arm.lora_targets}" if arm.lora_targets else "",
        settings,
        "augmented" if arm.augment else "unaugmented",
    )
