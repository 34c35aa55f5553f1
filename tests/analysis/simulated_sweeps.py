"""Sweeps from a generative model whose true accuracies are known.

A clip is classified correctly with the probability sigmoid(arm + seed + player + rudiment + clip + arm·player +
arm·rudiment + seed·player), independent effects on the logit scale; players, rudiments and clips are the same for all
arms. The intercept of each arm is solved so that its accuracy, in expectation over players, clips and seeds and for the
rudiments of the sweep, is exactly the given one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from analysis.load.trials import Trial
from analysis.stats.arms import Arm
from sousaphone.runs.statuses import Status

BACKBONES = ("ast", "htsat", "efficientat", "beats")
_RUDIMENTS, _VALIDATION_PLAYERS = 40, 4
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(31)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """What the sweeps of one cell have in common. Deviations are on the logit scale (0.1 is 2.5 points at 50 %)."""

    players: int
    clips: int  # test clips; as many validation clips
    accuracy: float  # of the first backbone, with and without augmentation
    step: float = 0.0  # by which the accuracy of each next backbone is lower
    seeds: int = 3
    seed_deviation: float = 0.1
    spread: float = 1.0  # factor of the deviations that concern players

    def accuracies(self) -> list[float]:
        """The true accuracy of each backbone."""
        return [max(self.accuracy - number * self.step, 0.005) for number in range(len(BACKBONES))]


@dataclass(frozen=True)
class Sweep:
    trials: list[Trial]
    predictions: pd.DataFrame
    baseline: tuple[str, pd.DataFrame]
    truth: dict[str, float]  # true accuracy of each trained model over players, by trial_id; of the arm if of_backbones
    of_arm: dict[str, float]  # true accuracy in expectation over seeds, by trial_id

    def true_difference(self, first: Arm, second: Arm, of_backbones: bool) -> float:
        """The estimand: between the arms in expectation over seeds, or between these trained models."""
        values = self.of_arm if of_backbones else self.truth
        one, other = (np.mean([values[trial.trial_id] for trial in arm.shown]) for arm in (first, second))
        return float(round(one - other, 9))


def simulate(cell: Cell, rng: np.random.Generator) -> Sweep:
    """Draw one sweep: four backbones with and without augmentation, and a baseline far below."""
    arms = [(model, augment) for model in BACKBONES for augment in (False, True)]
    targets = np.repeat(cell.accuracies(), 2)
    targets = np.append(targets, max(targets.min() - 0.2, 0.3 * targets.min()))  # the baseline is last
    seeds = np.full(len(targets), cell.seeds)
    seeds[-1] = 1
    arm_of = np.repeat(np.arange(len(targets)), seeds)  # of each model
    by_player = 0.6 * cell.spread, 0.3 * cell.spread, 0.15 * cell.spread  # player, arm·player, seed·player
    clip_deviation = 0.8
    rudiment = rng.normal(0, 0.8, _RUDIMENTS) + rng.normal(0, 0.4, (len(targets), _RUDIMENTS))  # [arms, rudiments]
    seed_deviation = np.full(len(targets), cell.seed_deviation)
    seed_deviation[-1] = 0.0
    fixed = np.hypot(np.linalg.norm(by_player), clip_deviation)
    intercept = _intercepts(targets, rudiment, np.hypot(fixed, seed_deviation))
    own = intercept[arm_of] + rng.normal(0, 1, len(arm_of)) * seed_deviation[arm_of]  # of each model
    truth = _accuracies(own, rudiment[arm_of], np.full(len(own), fixed))

    players, total = cell.players + _VALIDATION_PLAYERS, 2 * cell.clips
    test = np.arange(cell.clips) % cell.players
    player_of = np.concatenate([test, cell.players + np.arange(cell.clips) % _VALIDATION_PLAYERS])
    rudiment_of = rng.integers(_RUDIMENTS, size=total)
    shared = rng.normal(0, by_player[0], players)[player_of] + rng.normal(0, clip_deviation, total)
    logits = own[:, None] + shared + rudiment[arm_of][:, rudiment_of]
    logits += rng.normal(0, by_player[1], (len(targets), players))[arm_of][:, player_of]
    logits += rng.normal(0, by_player[2], (len(own), players))[:, player_of]
    correct = rng.random(logits.shape) < expit(logits)  # [models, clips]
    validated = correct[:, cell.clips :].mean(axis=1)

    trials = [
        _trial(*arms[arm], int(number), float(score))
        for arm, number, score in zip(
            arm_of[:-1], np.concatenate([np.arange(n) for n in seeds]), validated, strict=False
        )
    ]
    names = [trial.trial_id for trial in trials]
    clips = pd.DataFrame({"sample_id": np.arange(cell.clips), "player": test.astype(str)})
    predictions = pd.DataFrame(
        {
            "trial_id": pd.Categorical.from_codes(np.repeat(np.arange(len(names)), cell.clips), names),
            "sample_id": np.tile(clips.sample_id.to_numpy(), len(names)),
            "player": np.tile(clips.player.to_numpy(), len(names)),
            "correct": correct[:-1, : cell.clips].ravel(),
        }
    )
    return Sweep(
        trials,
        predictions,
        ("baseline", clips.assign(correct=correct[-1, : cell.clips])),
        dict(zip(names, truth.tolist(), strict=False)),
        dict(zip(names, targets[arm_of].tolist(), strict=False)),
    )


def _accuracies(intercept: Floats, rudiment: Floats, deviation: Floats) -> Floats:
    """Mean accuracy over rudiments and normal effects, [N], of models with intercepts [N] and rudiments [N, 40]."""
    logits = (intercept[:, None] + rudiment)[:, :, None] + deviation[:, None, None] * _NODES
    return np.asarray((expit(logits) @ _WEIGHTS).mean(axis=1))


def _intercepts(targets: Floats, rudiment: Floats, deviation: Floats) -> Floats:
    """The intercepts with which `_accuracies` are the targets, by bisection."""
    low, high = np.full(len(targets), -15.0), np.full(len(targets), 15.0)
    for _ in range(40):
        middle = (low + high) / 2
        below = _accuracies(middle, rudiment, deviation) < targets
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _trial(model: str, augment: bool, seed: int, score: float) -> Trial:
    config: dict[str, Any] = {"model": model, "strategy": "lora", "lora_targets": "all-linear", "augment": augment}
    history = [{"epoch": 1, "best_epoch": 1, "val_macro_f1": score, "val_acc": score}]
    return Trial(f"{model}-{augment}-{seed}", {**config, "seed": seed}, Status.COMPLETED, history=history)
