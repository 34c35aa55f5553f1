"""What is compared: arms (trials that differ in their seed alone), how they are called and coloured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.trials import Trial
from sousaphone.backbones.registry import REGISTRY

# Okabe and Ito (2008): told apart under every common colour blindness; yellow is too pale for white paper.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STRATEGIES = {"lora": "LoRA", "head": "head only", "full": "full fine-tuning"}


@dataclass(frozen=True)
class Arm:
    """Trials that differ in their seed alone.

    Attributes:
        label: what sets this arm apart from the others of the run.
    """

    label: str
    model: str
    strategy: str
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

    @property
    def state(self) -> str:
        """What became of its trials, for where a number is missing or not the last word; empty if none is."""
        if all(trial.full for trial in self.trials):
            return ""
        if self.full:
            return f"{len(self.shown)} of {len(self.trials)} seeds"
        return ", ".join(dict.fromkeys(trial.status for trial in self.trials))


def title(model: str) -> str:
    """A backbone's proper name."""
    return REGISTRY[model].title if model in REGISTRY else model


def colours(trials: Sequence[Trial]) -> Mapping[str, str]:
    """A colour for each backbone of the run; one in the registry has the same colour in every run."""
    known = list(dict.fromkeys([*REGISTRY, *(trial.config.get("model", "") for trial in trials)]))
    return {model: _COLOURS[i % len(_COLOURS)] for i, model in enumerate(known)}


def arms(trials: Sequence[Trial]) -> list[Arm]:
    """The arms of a run in the order of the plan."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(_parts(trial), []).append(trial)
    # A part that is the same everywhere says nothing, except for the backbone's name.
    varies = [i == 0 or len({parts[i] for parts in groups}) > 1 for i in range(len(_parts(trials[0])))]
    return [
        Arm(
            label=" · ".join(part for part, shown in zip(parts, varies, strict=True) if shown and part),
            model=group[0].config.get("model", ""),
            strategy=group[0].config.get("strategy", ""),
            augment=bool(group[0].config.get("augment")),
            trials=tuple(group),
        )
        for parts, group in groups.items()
    ]


def _parts(trial: Trial) -> tuple[str, ...]:
    config = trial.config
    strategy = config.get("strategy", "")
    return (
        title(config.get("model", "")),
        _STRATEGIES.get(strategy, strategy),
        f"targets {config.get('lora_targets')}" if strategy == "lora" else "",
        "augmented" if config.get("augment") else "unaugmented",
    )
