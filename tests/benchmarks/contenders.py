"""Measure one backbone's contenders in turn, round after round, so that disturbances of the machine affect them alike.

On a GPU they are measured one after the other, ours first."""

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
from .setting import Setting, wait_until_idle

OURS, AUGMENTED, SWEEP = "ours", "ours, augmented", "ours, as a sweep"
FLOAT32 = "ours, float32"
BASELINES = ("plain", "careful")


class Trainer(Protocol):
    def train(self, steps: int, by_stage: bool) -> Round: ...
    def close(self) -> None: ...


@runtime_checkable
class Evaluator(Trainer, Protocol):
    def evaluate(self, clips: int) -> Round: ...


@dataclass
class Measured:
    """A backbone's rounds by contender. A baseline has one contender per precision, such as "plain (bf16)".

    Attributes:
        cache_ms: milliseconds per clip of building our cache, once for all epochs.
    """

    model: str
    batch: int
    train: dict[str, list[Round]] = field(default_factory=dict)
    evaluation: dict[str, list[Round]] = field(default_factory=dict)
    fractions: dict[str, dict[str, float]] = field(default_factory=dict)
    work: floor.Work | None = None
    cache_ms: float = 0.0

    def best(self, contender: str) -> Round:
        """The fastest round of any precision."""
        return fastest([one for name in self.precisions(contender) for one in self.train[name]])

    def precisions(self, contender: str) -> list[str]:
        return [name for name in self.train if name == contender or name.startswith(f"{contender} (")]

    def faster(self, contender: str) -> str:
        """The name of the faster precision."""
        return max(self.precisions(contender), key=lambda name: fastest(self.train[name]).rate)

    def processor_gain(self) -> float:
        """Processor time per clip of the better baseline divided by ours: the gain on fully used cores."""
        least = {name: min(one.processor_ms for one in rounds) for name, rounds in self.train.items()}
        return min(ms for name, ms in least.items() if name.startswith(BASELINES)) / least[OURS]

    def gain(self, ours: str = OURS) -> float:
        """Clips per second of ours divided by those of the better baseline."""
        return self.best(ours).rate / max(self.best(name).rate for name in BASELINES)

    @property
    def as_run(self) -> str:
        """The contender that is how a sweep runs here: one trial per core at nano scale on a CPU, else one on all."""
        return SWEEP if SWEEP in self.train else OURS


def measure(model: str, setting: Setting, clips: Clips, scratch: Path, log: Callable[[str], None]) -> Measured:
    config = setting.config(model)
    on_gpu = setting.device == "cuda"
    torch.set_num_threads(setting.threads)
    classifier = build_model(config, len(SLUGS)).train()
    measured = Measured(model, setting.batch)
    rate = REGISTRY[model].sample_rate
    measured.work = floor.count(classifier, torch.rand(1, round(config.clip_seconds * rate)) - 0.5)
    classifier.to(config.device)
    # In bfloat16 ours rounds frozen weights, and the baselines use autocast: each needs its own model.
    rounded = config.frozen_bfloat16
    own = build_model(config, len(SLUGS)).train().place(config) if rounded else classifier
    cache, seconds = cached(clips, rate, scratch)
    measured.cache_ms = 1000 * seconds
    contenders: dict[str, Trainer] = {
        OURS: Ours(config, own, clips, cache),
        AUGMENTED: Ours(dataclasses.replace(config, augment=True), own, clips, cache),
    }
    if rounded and not on_gpu:
        contenders[FLOAT32] = Ours(setting.config(model, "float32"), classifier, clips, cache)
    for bf16 in (True, False) if setting.device == "cpu" else (True,):
        name = "bf16" if bf16 else "fp32"
        contenders[f"plain ({name})"] = Plain(config, classifier, clips, bf16)
        careful = Careful(config, classifier, clips, bf16, setting.cores, skip_prefetched=not setting.heavy)
        contenders[f"careful ({name})"] = careful
    if (setting.scale, setting.device) == ("nano", "cpu") and setting.cores > 1:
        contenders[SWEEP] = Team(setting.cores, config, cache, clips.dataset.clips, scratch)
    try:
        (_one_by_one if on_gpu else _in_turn)(measured, contenders, setting, log)
    finally:
        for contender in contenders.values():
            contender.close()
    return measured


def _in_turn(measured: Measured, contenders: dict[str, Trainer], setting: Setting, log: Callable[[str], None]) -> None:
    if not setting.heavy:
        # The first step selects kernels, starts workers and maps memory; a precision that is far slower is dropped.
        first = {name: contender.train(1, False).processor_ms for name, contender in contenders.items()}
        for name in [name for name in first if first[name] > 2 * first.get(_other_precision(name), first[name])]:
            log(f"{measured.model}: {name} took {first[name]:.0f} ms of processor time per clip; skipped")
            contenders.pop(name).close()
    for _ in range(setting.rounds):
        for name, contender in contenders.items():
            wait_until_idle()
            _add_round(measured, name, contender.train(setting.steps, setting.device == "cpu"), log)
            # Evaluation does not augment.
            if isinstance(contender, Evaluator) and name != AUGMENTED:
                wait_until_idle()
                result = contender.evaluate(setting.batch * setting.steps)
                measured.evaluation.setdefault(name, []).append(result)
    for name, contender in contenders.items():
        if name != SWEEP:
            # On MPS the synchronisation after each stage takes time, so stages are timed in a separate round.
            best = fastest(measured.train[name])
            measured.fractions[name] = best.fractions or contender.train(setting.steps, True).fractions


def _one_by_one(
    measured: Measured, contenders: dict[str, Trainer], setting: Setting, log: Callable[[str], None]
) -> None:
    """For a GPU. Ours comes first, since the baselines' decoders would compete for the processor. A baseline's round
    takes seconds where ours takes a tenth of one, so baselines train for one round, plain for a tenth of it."""
    for name, contender in list(contenders.items()):
        is_baseline = name.startswith(BASELINES)
        steps = max(1, setting.steps // 10) if name.startswith("plain") else setting.steps
        contender.train(1, False)
        for _ in range(1 if is_baseline else setting.rounds):
            _add_round(measured, name, contender.train(steps, False), log)
        if not is_baseline:
            if isinstance(contender, Evaluator) and name != AUGMENTED:
                rounds = [contender.evaluate(setting.batch * steps) for _ in range(setting.rounds)]
                measured.evaluation[name] = rounds
            # The synchronisation after each stage takes time, so stages are timed in a separate round.
            measured.fractions[name] = contender.train(steps, True).fractions
        contenders.pop(name).close()


def _add_round(measured: Measured, name: str, found: Round, log: Callable[[str], None]) -> None:
    rounds = measured.train.setdefault(name, [])
    rounds.append(found)
    log(f"{measured.model} round {len(rounds)}: {name} {found.rate:.3g} clips/s, {found.processor_ms:.1f} ms per clip")


def _other_precision(name: str) -> str:
    return name.replace("bf16", "fp32") if "bf16" in name else name.replace("fp32", "bf16")
