"""One backbone's contenders, measured in turn, round after round: whatever disturbs the machine disturbs them alike.

On a GPU one after the other, ours first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from sousaphone.backbones.registry import REGISTRY
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS

from . import floor
from .baselines import Careful, Plain
from .clips import Clips, cached
from .concurrency import Team
from .ours import Ours
from .result import Round, fastest
from .setting import Setting, rest

OURS, AUGMENTED, SWEEP = "ours", "ours, augmented", "ours, as a sweep"
BASELINES = ("plain", "careful")


class Trainer(Protocol):
    def train(self, steps: int, shares: bool) -> Round: ...
    def close(self) -> None: ...


@runtime_checkable
class Scorer(Trainer, Protocol):
    def evaluate(self, clips: int) -> Round: ...


@dataclass
class Measured:
    """A backbone's rounds by contender, its work and its cache.

    Attributes:
        cache_ms: of decoding and resampling a clip, which ours does once for all epochs.
    """

    model: str
    batch: int
    train: dict[str, list[Round]] = field(default_factory=dict)
    evaluation: dict[str, list[Round]] = field(default_factory=dict)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    work: floor.Work | None = None
    cache_ms: float = 0.0

    def best(self, contender: str) -> Round:
        """The fastest round, of whichever precision."""
        return fastest([one for name in self.precisions(contender) for one in self.train[name]])

    def precisions(self, contender: str) -> list[str]:
        return [name for name in self.train if name == contender or name.startswith(f"{contender} (")]

    def faster(self, contender: str) -> str:
        """The precision that counts."""
        return max(self.precisions(contender), key=lambda name: fastest(self.train[name]).rate)

    def processor_gain(self) -> float:
        """Processor time a clip of the better baseline over that of ours: the gain on cores that are kept busy."""
        least = {name: min(one.processor_ms for one in rounds) for name, rounds in self.train.items()}
        return min(ms for name, ms in least.items() if name.startswith(BASELINES)) / least[OURS]

    def gain(self, ours: str = OURS) -> float:
        """Clips per second of ours over those of the better baseline."""
        return self.best(ours).rate / max(self.best(name).rate for name in BASELINES)

    @property
    def as_run(self) -> str:
        """Which of ours is what the program does on this machine: a trial on each core at nano, else one on all."""
        return SWEEP if SWEEP in self.train else OURS


def measure(model: str, setting: Setting, clips: Clips, scratch: Path, say: Callable[[str], None]) -> Measured:
    config = setting.config(model)
    on_gpu = setting.device == "cuda"
    torch.set_num_threads(setting.threads)
    classifier = build_model(config, len(SLUGS)).train()
    measured = Measured(model, setting.batch)
    rate = REGISTRY[model].sample_rate
    measured.work = floor.count(classifier, torch.rand(1, round(config.clip_seconds * rate)) - 0.5)
    classifier.to(config.device)
    # On CUDA ours rounds what is frozen, and the baselines have autocast do so: each has a model of its own.
    own = build_model(config, len(SLUGS)).train().place(torch.device("cuda")) if on_gpu else classifier
    cache, seconds = cached(clips, rate, scratch)
    measured.cache_ms = 1000 * seconds
    contenders: dict[str, Trainer] = {
        OURS: Ours(config, own, clips, cache),
        AUGMENTED: Ours(dataclasses.replace(config, augment=True), own, clips, cache),
    }
    for bf16 in (True, False) if setting.device == "cpu" else (True,):
        name = "bf16" if bf16 else "fp32"
        contenders[f"plain ({name})"] = Plain(config, classifier, clips, bf16)
        careful = Careful(config, classifier, clips, bf16, setting.cores, settles=not setting.heavy)
        contenders[f"careful ({name})"] = careful
    if (setting.scale, setting.device) == ("nano", "cpu") and setting.cores > 1:
        contenders[SWEEP] = Team(setting.cores, config, cache, clips.dataset.clips, scratch)
    try:
        (_one_by_one if on_gpu else _in_turn)(measured, contenders, setting, say)
    finally:
        for contender in contenders.values():
            contender.close()
    return measured


def _in_turn(measured: Measured, contenders: dict[str, Trainer], setting: Setting, say: Callable[[str], None]) -> None:
    """Round after round."""
    if not setting.heavy:
        # Kernels are chosen, workers started, pages mapped; and a precision that is far slower is left out.
        first = {name: contender.train(1, False).processor_ms for name, contender in contenders.items()}
        for name in [name for name in first if first[name] > 2 * first.get(other_precision(name), first[name])]:
            say(f"{measured.model}: {name} took {first[name]:.0f} ms of processor a clip, so it is left out")
            contenders.pop(name).close()
    for _ in range(setting.rounds):
        for name, contender in contenders.items():
            rest()
            _keep(measured, name, contender.train(setting.steps, setting.device == "cpu"), say)
            # Augmentation has no part in it.
            if not setting.heavy and isinstance(contender, Scorer) and name != AUGMENTED:
                rest()
                scored = contender.evaluate(setting.batch * setting.steps)
                measured.evaluation.setdefault(name, []).append(scored)
    for name, contender in contenders.items():
        if name != SWEEP:
            # Waiting for a device after each stage costs time there, so shares get a round of their own.
            kept = fastest(measured.train[name])
            measured.shares[name] = kept.shares or contender.train(setting.steps, True).shares


def _one_by_one(
    measured: Measured, contenders: dict[str, Trainer], setting: Setting, say: Callable[[str], None]
) -> None:
    """On a GPU, ours first: a baseline's decoders take the processor from whoever runs beside them. They take seconds
    where ours takes a tenth of one, so a baseline trains for one round, the plain one for a tenth of it."""
    for name, contender in list(contenders.items()):
        slow = name.startswith(BASELINES)
        steps = max(1, setting.steps // 10) if name.startswith("plain") else setting.steps
        contender.train(1, False)
        for _ in range(1 if slow else setting.rounds):
            _keep(measured, name, contender.train(steps, False), say)
        if not slow:
            if isinstance(contender, Scorer) and name != AUGMENTED:
                rounds = [contender.evaluate(setting.batch * steps) for _ in range(setting.rounds)]
                measured.evaluation[name] = rounds
            # Waiting for a GPU after each stage costs time there, so shares get a round of their own.
            measured.shares[name] = contender.train(steps, True).shares
        contenders.pop(name).close()


def _keep(measured: Measured, name: str, found: Round, say: Callable[[str], None]) -> None:
    rounds = measured.train.setdefault(name, [])
    rounds.append(found)
    say(f"{measured.model} round {len(rounds)}: {name} {found.rate:.3g} clips/s, {found.processor_ms:.1f} ms a clip")


def other_precision(name: str) -> str:
    """The same baseline's other contender on a CPU; of ours, nobody."""
    return name.replace("bf16", "fp32") if "bf16" in name else name.replace("fp32", "bf16")
