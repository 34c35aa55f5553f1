"""A run as its report sees it: all that was read, and what follows from it in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load.predictions import scored_trials
from analysis.load.trials import Trial
from analysis.stats.arms import arms, title
from analysis.stats.verdict import UNKNOWN_PLAYERS, Verdict, heard, judge
from sousaphone.config import FEW_PLAYERS
from sousaphone.runs.baseline_results import BaselineResults
from sousaphone.runs.directory import RunDirectory, banner
from sousaphone.text import counted, in_words


@dataclass(frozen=True, eq=False)
class Findings:
    """A run as its report sees it."""

    path: Path  # the run's directory
    plan: Mapping[str, Any]
    trials: Sequence[Trial]
    live: bool  # whether a driver works on it at this moment
    written: str  # when the report was written, ISO 8601
    remarks: Sequence[str]  # what went otherwise than expected in reading it
    predictions: pd.DataFrame  # of the test clips, see `analysis.load.predictions.read_predictions`
    baseline_results: BaselineResults | None = None  # None where they were not measured
    adapter_bytes: Mapping[str, int] = field(default_factory=dict)  # of what a trial learnt, as a file, by trial_id
    further_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # clips and players of further test sets

    @property
    def name(self) -> str:
        return str(self.plan.get("name") or self.path.name)

    @property
    def banner(self) -> str | None:
        """What stands above results that say nothing about the published models."""
        return banner((t.config.get("model", ""), t.config.get("scale", "nano"), t.weights) for t in self.trials)

    @property
    def ranked(self) -> list[Trial]:
        """The trials with all their results, the best validation score first."""
        return [trial for trial in self._by_score if trial.full]

    @property
    def partial(self) -> list[Trial]:
        """The trials with results of fewer epochs than planned, the best validation score first."""
        return [trial for trial in self._by_score if trial.partial]

    @property
    def _by_score(self) -> list[Trial]:
        return sorted(self.trials, key=lambda trial: trial.best.get("val_macro_f1", -math.inf), reverse=True)

    @property
    def tuning(self) -> list[str]:
        """How the learning rates were come by, as the sweep says: a verdict on untuned ones is one on them as well."""
        if "tuning" in self.plan:
            return [str(self.plan["tuning"])] if self.plan["tuning"] else []
        # run.json of a run begun before it had this field: there it is a note.
        return [str(note) for note in self.plan.get("notes") or () if str(note).startswith("learning rate")]

    @property
    def promotion(self) -> str | None:
        """Where this run's trial comes from, in one sentence; None if it was not promoted from another run."""
        origin = self.plan.get("promoted_from")
        if not origin:
            return None
        f1, accuracy = (_score(name, origin.get(name), "not known") for name in ("val_macro_f1", "val_acc"))
        return (
            f"Promoted from trial {origin.get('trial_id')} of run {origin.get('run')}, whose validation macro F1 was "
            f"{f1} and accuracy {accuracy}, over {counted(origin.get('epochs'), 'epoch')} there."
        )

    def next_steps(self, trials: Sequence[Trial]) -> list[tuple[str, str | None]]:
        """(what for, the line to type, None where there is none) for those that are not full; nothing while a driver
        is at it."""
        return [] if self.live else RunDirectory(self.path).next_steps((t.status, t.cause) for t in trials)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What ran: (name, value) pairs."""
        data, origin, request = (self.plan.get(name) or {} for name in ("data", "provenance", "request"))
        clips, players = data.get("clips") or {}, data.get("players") or {}
        splits = [split for split in ("train", "validation", "test") if split in clips]
        sizes = ", ".join(f"{split} {clips[split]} of {counted(players.get(split), self.unit)}" for split in splits)
        unknown = "" if self.players_known or not sizes else "; groups of recordings (players unknown)"
        synthetic = " (synthetic, the built-in set)" if data.get("synthetic") else ""
        dirty = " with uncommitted changes" if origin.get("git_dirty") else ""
        versions = ", ".join(f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version)
        device = dict.fromkeys((request.get("device"), origin.get("device")))
        pairs = [
            ("Command", self.plan.get("command")),
            ("Begun", self.plan.get("created")),
            *(("Extended", _extension(extension)) for extension in self.plan.get("extensions") or ()),
            ("Data", f"{data.get('root', '?')}{synthetic}"),
            ("Clips", f"{sizes}{unknown}"),
            ("Data fingerprint", str(data.get("fingerprint", ""))[:16]),
            ("Commit", f"{origin.get('git_commit', 'unknown')}{dirty}"),
            ("Versions", versions),
            ("Host", origin.get("host")),
            ("Learning rates", _by_model(self.trials, "learning_rate")),
            ("Settings", ", ".join(f"{name}={value}" for name, value in (request.get("settings") or {}).items())),
            ("Device", ", ".join(str(name) for name in device if name)),
            ("Limits", _limits_in_words(self.plan.get("limits") or {})),
        ]
        return [(name, str(value)) for name, value in pairs if value]

    @property
    def notes(self) -> list[str]:
        """What the launcher and the reading of the run had to say."""
        return list(dict.fromkeys([*map(str, self.plan.get("notes") or ()), *self.tuning, *self.remarks]))

    @cached_property
    def verdict(self) -> Verdict:
        """What may be said of which arm is best."""
        return judge(self.trials, self.predictions, self.banner, self.cpu_ms, self.players_known)

    @property
    def players_known(self) -> bool:
        """Whether what counts as a player is one, and no group of recordings with one name stem."""
        known = (self.plan.get("data") or {}).get("players_known")
        if known is None:  # run.json of a run begun before it had this field: there a note says so
            return not any("players unknown" in str(note) for note in self.plan.get("notes") or ())
        return bool(known)

    @property
    def unit(self) -> str:
        """What is counted as a player: `player`, or `group` of recordings."""
        return "player" if self.players_known else "group"

    @property
    def test_players(self) -> int | None:
        """Whom the test clips are of, as far as is known."""
        if len(self.predictions):
            return int(self.predictions.player.nunique())
        planned: int | None = ((self.plan.get("data") or {}).get("players") or {}).get("test")
        return planned

    @property
    def too_few_players(self) -> str | None:
        """That no winner could be named whatever the weights, in one sentence; None where there are enough players."""
        if self.test_players is None or self.test_players >= FEW_PLAYERS:
            return None
        return (
            f"On these data no run could name a winner: the test clips are of {heard(self.test_players, self.unit)}, "
            f"and it takes {FEW_PLAYERS}."
        )

    @property
    def without_effect(self) -> str | None:
        """Why nothing is said of augmentation although it was tried, in one sentence; None where more is to be said."""
        on, off = (
            {t.config.get("model") for t in self.ranked if t.config.get("augment") is way} for way in (True, False)
        )
        if self.test_players != 1 or not on & off:
            return None
        return f"What augmentation does is not told: the test clips are of one {self.unit}, and an interval takes two."

    @property
    def scored(self) -> set[str]:
        """The trials whose test predictions are at hand."""
        return scored_trials(self.predictions)

    @cached_property
    def cpu_ms(self) -> dict[str, float]:
        """Milliseconds of one core that a clip takes, by trial_id, where they were measured."""
        if self.baseline_results is None:
            return {}
        names = ("model", "strategy", "lora_targets")
        known = {
            t.trial_id: self.baseline_results.milliseconds(*(t.config.get(n, "") for n in names)) for t in self.trials
        }
        return {trial_id: ms for trial_id, ms in known.items() if ms is not None}

    @property
    def further(self) -> tuple[Sequence[str], list[Sequence[str]], str] | None:
        """What was scored beside the test clips: head and rows of a table, and what its columns are."""
        request = self.plan.get("request") or {}
        sets = [("held_out", f"held_out: test players' clips of {request.get('hold_out')}, which nobody trained on")]
        sets += [("also", f"also: {request.get('test_also')}")]
        shown = [(name, words) for name, words in sets if any(f"{name}_acc" in trial.last for trial in self.trials)]
        if not shown:
            return None
        names = [f"{name}_{metric}" for name, _ in shown for metric in ("acc", "macro_f1")]
        rows: list[Sequence[str]] = [
            [t.trial_id, *(_score(name, t.last.get(name)) for name in ("test_acc", *names))]
            for t in (*self.ranked, *self.partial)
        ]
        told = []
        for name, words in shown:
            clips, players = self.further_sizes.get(name, (0, 0))
            told.append(f"{words} ({counted(clips, 'clip')} of {heard(players, self.unit)})" if clips else words)
        return ("trial", "test_acc", *names), rows, "; ".join(told)

    @property
    def limits(self) -> list[str]:
        """What the result does not show."""
        data = self.plan.get("data") or {}
        # Of each arm, those that its numbers are of.
        seeds = [n for arm in arms(self.trials) if (n := sum(bool(trial.history) for trial in arm.shown))]
        clips, players = ((data.get(key) or {}).get("test") for key in ("clips", "players"))
        said = []
        if seeds:
            said.append(
                "One seed for each arm: how much a repetition would differ is not known."
                if max(seeds) == 1
                else f"{_range(seeds, 'seed')} an arm: the spread between them is of initialisation and order, not of "
                f"{self.unit}s."
            )
        part = [most for t in self.trials if (most := t.most_scored) is not None]
        if part:
            said.append(
                f"At most {_range(part, 'clip')} of each split were scored (limit_eval_batches): validation and test "
                "numbers are of part of the clips, and not to be compared with baselines, which heard all."
            )
        elif clips:
            half = 100 * 1.96 * math.sqrt(0.25 / clips)
            said.append(
                f"{counted(clips, 'test clip')} of {heard(players, self.unit)}: by counting alone an accuracy near "
                f"50 % is uncertain by about ±{half:.0f} points; clips of one {self.unit} are alike, so in truth by "
                "more."
            )
        if self.players_known and not (self.plan.get("request") or {}).get("hold_out"):
            said.append(
                "Test clips are of unseen players in seen timbres: how well a kit or room never heard in training is "
                "recognised, --hold-out would tell."
            )
        if not self.players_known:
            said.append(UNKNOWN_PLAYERS)
        steps = [limit for t in self.trials if (limit := t.config.get("limit_train_batches")) is not None]
        if steps:
            said.append(
                f"Only {min(steps)} optimiser steps an epoch were taken (limit_train_batches): most training clips "
                "were not heard in every epoch."
            )
        if data.get("synthetic"):
            said.append("The clips are synthetic: nothing here was measured on played drums.")
        elif (self.predictions.soundfont != "").any():  # SOUSA's clips are MIDI, played by a SoundFont
            said.append("Test clips whose labels name a SoundFont are synthesised: they are not of played drums.")
        return [
            *said,
            "Learning rates and other settings were fixed beforehand; another setting may turn the order round.",
        ]


def _range(numbers: Sequence[int], noun: str) -> str:
    """`3 seeds`, `1 to 3 seeds`."""
    fewest, most = min(numbers), max(numbers)
    return f"{fewest} to {counted(most, noun)}" if fewest < most else counted(most, noun)


def _score(name: str, value: float | None, unknown: str = "–") -> str:
    """A metric as the report prints it: accuracies in percent."""
    return unknown if value is None else format(value, ".1%" if name.endswith("_acc") else ".3f")


def _by_model(trials: Sequence[Trial], field: str) -> str:
    """A setting, with the backbones that it differs between."""
    values = {title(t.config.get("model", "")): f"{t.config[field]:g}" for t in trials if field in t.config}
    if len(set(values.values())) < 2:
        return next(iter(values.values()), "")
    return ", ".join(f"{model} {value}" for model, value in values.items())


def _extension(extension: Mapping[str, Any]) -> str:
    added = extension.get("added") or ()
    return f"{extension.get('created', '?')}, by {counted(len(added), 'trial')}: {', '.join(map(str, added))}"


def _limits_in_words(limits: Mapping[str, float | None]) -> str:
    known = ((limits.get("trial"), "a trial"), (limits.get("stall"), "without a batch"))
    return ", ".join(f"{in_words(seconds)} {text}" for seconds, text in known if seconds is not None)
