"""`Findings`: everything that was read of a run, and the statements derived from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.load.trials import Trial
from analysis.stats.arms import Arm, Look, arms, best_of_each, by_validation, looks, paled, settings_of, title
from analysis.stats.calibration import WAYS, Scaling, scaling
from analysis.stats.classes import Classes, classes_of
from analysis.stats.pairs import Pair, augmentation_pairs, other_pairs
from analysis.stats.search_results import SearchResults
from analysis.stats.slices import Slice, accuracy_of
from analysis.stats.verdict import Verdict, judge
from analysis.stats.verdict_text import UNKNOWN_PLAYERS, players_text
from sousaphone.config import FEW_PLAYERS
from sousaphone.runs.baseline_results import Baseline, BaselineResults
from sousaphone.runs.deployment import Deployment
from sousaphone.runs.directory import RunDirectory, banner
from sousaphone.runs.predictions import AVERAGED_LOGITS, LOGITS
from sousaphone.runs.statuses import Status
from sousaphone.text import counted, in_words


@dataclass(frozen=True, eq=False)
class Findings:
    """A run as read for its report."""

    path: Path  # run directory
    plan: Mapping[str, Any]  # content of run.json
    trials: Sequence[Trial]
    live: bool  # whether a driver is running
    written: str  # time of the report, ISO 8601
    remarks: Sequence[str]  # problems in reading the run
    predictions: pd.DataFrame  # on the test clips, see `analysis.load.predictions.read_predictions`
    baseline_results: BaselineResults | None = None  # None if not measured
    adapter_bytes: Mapping[str, int] = field(default_factory=dict)  # size of the trained weights' file, by trial_id
    further_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # clips and players of other test sets
    baseline_rows: pd.DataFrame | None = None  # test predictions of the best baseline, see `read_baseline`
    deployment: Deployment = field(default_factory=lambda: Deployment(()))
    search: SearchResults | None = None  # None for a sweep without a search
    validated: Classes | None = None  # rudiments of the validation clips, in older runs of the test clips

    @property
    def name(self) -> str:
        return str(self.plan.get("name") or self.path.name)

    @property
    def data(self) -> Mapping[str, Any]:
        """The data set as planned."""
        return self.plan.get("data") or {}

    @property
    def request(self) -> Mapping[str, Any]:
        """The options of the launch."""
        return self.plan.get("request") or {}

    @property
    def banner(self) -> str | None:
        """The banner of results that show nothing about the published models; None for others."""
        return banner((t.config.get("model", ""), t.config.get("scale", "nano"), t.weights) for t in self.trials)

    @property
    def compared(self) -> list[Trial]:
        """The trials that are results: all but those of a search, which is in a section of its own."""
        proposed = self.search.search.proposals if self.search else {}
        return [trial for trial in self.trials if trial.trial_id not in proposed]

    @property
    def to_explain(self) -> list[Trial]:
        """All trials but those of a search that diverged, as some settings may."""
        own = {trial.trial_id for trial in self.compared}
        return [trial for trial in self.trials if trial.trial_id in own or trial.status is not Status.DIVERGED]

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
        return sorted(self.compared, key=lambda trial: trial.best.get("val_macro_f1", -math.inf), reverse=True)

    @cached_property
    def groups(self) -> list[Arm]:
        """The arms, the best by validation (macro F1) first."""
        return by_validation(arms(self.compared))

    @cached_property
    def best(self) -> list[Arm]:
        """The best arm by validation of each backbone, among those with predictions."""
        return best_of_each(self.groups, self._by_trial.keys())

    @cached_property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings that the sweep varies beyond those of an arm's name, by trial_id."""
        return settings_of(self.compared)

    def rows(self, arm: Arm) -> pd.DataFrame:
        """The predictions, without logits, of the trials that the arm shows; empty if there are none."""
        found = [self._by_trial[trial_id] for trial_id in self.scored(arm)]
        return pd.concat(found) if found else self.predictions.iloc[:0]

    def scored(self, arm: Arm) -> list[str]:
        """The ids of the trials in `rows`."""
        return [trial.trial_id for trial in arm.shown if trial.trial_id in self._by_trial]

    @cached_property
    def _by_trial(self) -> dict[str, pd.DataFrame]:
        predictions = self.predictions.drop(columns=[*LOGITS, *AVERAGED_LOGITS], errors="ignore")
        groups = predictions.groupby("trial_id", observed=True, sort=False) if len(predictions) else ()
        return {str(name): rows for name, rows in groups}

    @cached_property
    def looks(self) -> Mapping[str, Look]:
        """The colour and shape of each backbone."""
        return looks(self.trials)

    def look(self, arm: Arm) -> Look:
        """The arm's shape and colour; the colour is pale if its results are partial."""
        look = self.looks[arm.model]
        return look if arm.full else replace(look, colour=paled(look.colour))

    @property
    def baselines(self) -> list[Baseline]:
        """The baselines with results."""
        return [each for each in self.baseline_results.baselines if each.scores] if self.baseline_results else []

    @property
    def tuning(self) -> list[str]:
        """How the learning rates were chosen, since the verdict depends on it."""
        if "tuning" in self.plan:
            return [str(self.plan["tuning"])] if self.plan["tuning"] else []
        # Older runs have it as a note.
        return [str(note) for note in self.plan.get("notes") or () if str(note).startswith("learning rate")]

    @property
    def promotion(self) -> str | None:
        """The run and trial from which this run was promoted, in one sentence; None if it was not promoted."""
        origin = self.plan.get("promoted_from")
        if not origin:
            return None
        f1 = formatted(origin.get("val_macro_f1"), ".3f", "not known")
        accuracy = formatted(origin.get("val_acc"), ".1%", "not known")
        return (
            f"Promoted from trial {origin.get('trial_id')} of run {origin.get('run')}, which had a validation macro F1 "
            f"of {f1} and an accuracy of {accuracy} over {counted(origin.get('epochs'), 'epoch')}."
        )

    @cached_property
    def calibrated(self) -> list[tuple[Arm, Trial, dict[str, Scaling]]]:
        """The best trial of each arm that has temperatures, and its calibration by way of scoring (`WAYS`)."""
        found = []
        for arm in self.groups:
            for trial in (each for each in self._by_score if each in arm.shown):
                rows = self.predictions[self.predictions.trial_id == trial.trial_id]
                if own := {way: scaled for way in WAYS if (scaled := scaling(rows, trial.last, way)) is not None}:
                    found.append((arm, trial, own))
                    break
        return found

    @property
    def time_unit(self) -> str:
        """What the run's seconds of training count: processor, GPU or wall time."""
        return self.trials[0].time_unit

    def next_steps(self, trials: Sequence[Trial]) -> list[tuple[str, str | None]]:
        """Return (purpose, command or None) for continuing unfinished trials; empty while the run is running."""
        ends = {trial.trial_id: (trial.status, trial.cause) for trial in trials}
        return [] if self.live else RunDirectory(self.path).next_steps(self.plan, ends)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The setup of the run as (name, value) pairs."""
        data, origin, request = self.data, self.plan.get("provenance") or {}, self.request
        clips, players = data.get("clips") or {}, data.get("players") or {}
        splits = [split for split in ("train", "validation", "test") if split in clips]
        sizes = ", ".join(f"{split} {clips[split]} of {counted(players.get(split), self.unit)}" for split in splits)
        unknown = "" if self.players_known or not sizes else "; groups of recordings (players unknown)"
        synthetic = " (synthetic, the built-in set)" if data.get("synthetic") else ""
        dirty = " with uncommitted changes" if origin.get("git_dirty") else ""
        versions = ", ".join(f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version)
        device = dict.fromkeys((request.get("device"), origin.get("device")))
        seconds = self.plan.get("limits") or {}
        limits = ((seconds.get("trial"), "per trial"), (seconds.get("stall"), "without a finished batch"))
        rates: dict[str, dict[str, None]] = {}  # in order
        for config in (trial.config for trial in self.compared if "learning_rate" in trial.config):
            rates.setdefault(title(config.get("model", "")), {})[f"{config['learning_rate']:g}"] = None
        one = len({rate for own in rates.values() for rate in own}) == 1
        rate_texts = [" / ".join(own) if one else f"{model} {' / '.join(own)}" for model, own in rates.items()]
        pairs = [
            ("Command", self.plan.get("command")),
            ("Started", self.plan.get("created")),
            *(("Extended", _extension(extension)) for extension in self.plan.get("extensions") or ()),
            ("Data", f"{data.get('root', '?')}{synthetic}"),
            ("Clips", f"{sizes}{unknown}"),
            ("Data fingerprint", str(data.get("fingerprint", ""))[:16]),
            ("Commit", f"{origin.get('git_commit', 'unknown')}{dirty}"),
            ("Versions", versions),
            ("Host", origin.get("host")),
            ("Seeds", _seeds(*self.seeds_planned)),
            ("Learning rates", ", ".join(dict.fromkeys(rate_texts))),
            ("Settings", ", ".join(f"{name}={value}" for name, value in (request.get("settings") or {}).items())),
            ("Device", ", ".join(str(name) for name in device if name)),
            ("Precision", ", ".join(dict.fromkeys(trial.precision for trial in self.compared))),
            ("Limits", ", ".join(f"{in_words(value)} {text}" for value, text in limits if value is not None)),
        ]
        return [(name, str(value)) for name, value in pairs if value]

    @property
    def notes(self) -> list[str]:
        """Notes of the launcher and remarks about reading the run."""
        return list(dict.fromkeys([*map(str, self.plan.get("notes") or ()), *self.tuning, *self.remarks]))

    @cached_property
    def verdict(self) -> Verdict:
        best = self.baseline_results.best if self.baseline_results else None
        baseline = (best.title, self.baseline_rows) if best is not None and self.baseline_rows is not None else None
        deployed = {card.trial: card.fastest for card in self.deployment.cards}
        return judge(self.compared, self.predictions, self.banner, self.cpu_ms, self.players_known, baseline, deployed)

    @cached_property
    def other_pairs(self) -> list[Pair]:
        """All pairs of the backbones' best arms but winner and rival, if those were compared."""
        return other_pairs(self.verdict.compared, self.predictions) if self.verdict.chosen is not None else []

    @cached_property
    def augmentation(self) -> list[Pair]:
        """Augmented minus unaugmented, for each backbone with both."""
        return augmentation_pairs(self.verdict.groups, self.predictions)

    @cached_property
    def classes(self) -> Classes | None:
        """The rudiments of the test clips; None without predictions."""
        return classes_of(self.predictions)

    @property
    def chance_percent(self) -> float | None:
        """The accuracy of a random prediction of the test clips, percent; None without predictions."""
        return 100 * self.classes.chance if self.classes else None

    @cached_property
    def tested(self) -> dict[str, Slice]:
        """The test accuracy of each trial with predictions, as a mean over players, by trial_id."""
        return {trial_id: accuracy_of(rows) for trial_id, rows in self._by_trial.items()}

    @property
    def seeds_planned(self) -> tuple[list[int], list[int]]:
        """The numbers of seeds of each arm that were planned at first, and of those added later by --extend."""
        added = {str(name) for extension in self.plan.get("extensions") or () for name in extension.get("added") or ()}
        names = [[trial.trial_id for trial in arm.trials] for arm in self.groups]
        later = [sum(name in added for name in own) for own in names]
        pairs = [(len(own) - more, more) for own, more in zip(names, later, strict=True) if more < len(own)]
        return [first for first, _ in pairs], [more for _, more in pairs]

    @property
    def warning_of_added_seeds(self) -> str | None:
        """A warning if seeds were added to planned arms; else None."""
        first, later = self.seeds_planned
        if not any(later):
            return None
        return (
            f"{_range(first, 'seed')} per arm {'was' if max(first) == 1 else 'were'} planned at first, and "
            f"{_range(later, 'seed')} added later by --extend. Adding seeds until a difference is significant inflates "
            "claims: decide on their number beforehand, and report it."
        )

    @property
    def players_known(self) -> bool:
        """Whether players are known; if not, each group of recordings with the same name stem counts as one."""
        known = self.data.get("players_known")
        if known is None:  # older runs have it as a note
            return not any("players unknown" in str(note) for note in self.plan.get("notes") or ())
        return bool(known)

    @property
    def unit(self) -> str:
        """What is counted as a player: `player`, or `group` of recordings."""
        return "player" if self.players_known else "group"

    @property
    def test_players(self) -> int | None:
        """The number of test players; None if not known."""
        if len(self.predictions):
            return int(self.predictions.player.nunique())
        planned: int | None = (self.data.get("players") or {}).get("test")
        return planned

    @property
    def too_few_players(self) -> str | None:
        """A sentence if the data have too few test players for any run to have a winner; else None."""
        if self.test_players is None or self.test_players >= FEW_PLAYERS:
            return None
        return (
            f"No run can have a winner on these data: the test clips are of "
            f"{players_text(self.test_players, self.unit)}; at least {FEW_PLAYERS} are needed."
        )

    @property
    def without_effect(self) -> str | None:
        """A sentence if augmentation varies but its effect cannot be estimated; else None."""
        models = [{t.config.get("model") for t in self.ranked if t.config.get("augment") is on} for on in (True, False)]
        if self.test_players != 1 or not set.intersection(*models):
            return None
        return f"No effect of augmentation is given: the test clips are of one {self.unit}; an interval needs two."

    @cached_property
    def cpu_ms(self) -> dict[str, float]:
        """Milliseconds per clip on one core, by trial_id, where measured."""
        if self.baseline_results is None:
            return {}
        return self.baseline_results.milliseconds({trial.trial_id: trial.config for trial in self.trials})

    @property
    def limits(self) -> list[str]:
        """The limitations of the result."""
        seeds = [n for arm in self.groups if (n := sum(bool(trial.history) for trial in arm.shown))]  # of each arm
        clips, players = ((self.data.get(key) or {}).get("test") for key in ("clips", "players"))
        rendered = bool((self.predictions.soundfont != "").any())  # with a SoundFont, from MIDI
        remedy = " (measure it with --hold-out soundfont=NAME or preset=NAME)"
        found = []
        if seeds and max(seeds) == 1:
            found.append("One seed per arm: the variation between repetitions is unknown.")
        elif seeds:
            spread = f"their spread is that of initialisation and data order, not of {self.unit}s."
            found.append(f"{_range(seeds, 'seed')} per arm: {spread}")
        part = [most for t in self.trials if (most := t.most_scored) is not None]
        if part:
            found.append(
                f"At most {_range(part, 'clip')} of each split were scored (limit_eval_batches): validation and test "
                "results are of part of the clips and not comparable with the baselines, which were scored on all."
            )
        elif clips:
            half = 100 * 1.96 * math.sqrt(0.25 / clips)
            found.append(
                f"{counted(clips, 'test clip')} of {players_text(players, self.unit)}: for independent clips, an "
                f"accuracy near 50 % has a 95 % margin of error of about ±{half:.0f} percentage points. Clips of one "
                f"{self.unit} may be correlated, which makes the margin larger; the intervals over {self.unit}s "
                "include this."
            )
        if not self.players_known:
            found.append(UNKNOWN_PLAYERS)
        elif not self.request.get("hold_out"):
            found.append(
                "The players of the test clips are not in training, but their drum sounds and rooms may be; the "
                f"accuracy on other sounds and rooms is unknown{remedy if rendered else ''}."
            )
        steps = [limit for t in self.trials if (limit := t.config.get("limit_train_batches")) is not None]
        if steps:
            found.append(
                f"Each epoch had only {min(steps)} optimiser steps (limit_train_batches): most training clips were not "
                "used in every epoch."
            )
        if self.data.get("synthetic"):
            found.append("The clips are synthetic; nothing was evaluated on real drum recordings.")
        elif rendered:
            found.append("Test clips whose labels name a SoundFont are synthesised, not real drum recordings.")
        if self.search is None:
            fixed = "Learning rates and other settings were fixed beforehand; others may change the ranking."
        else:
            fixed = (
                f"The search tried {counted(self.search.search.configurations, 'configuration')} of each backbone in "
                f"{', '.join(self.search.settings)}; other values and settings may change the ranking."
            )
        return [*found, fixed]


def formatted(value: float | None, style: str, unknown: str = "–") -> str:
    """Format a number; None becomes `unknown`."""
    return unknown if value is None else format(value, style)


def _range(numbers: Sequence[int], noun: str) -> str:
    """Format a range: `3 seeds`, `1 to 3 seeds`."""
    fewest, most = min(numbers), max(numbers)
    return f"{fewest} to {counted(most, noun)}" if fewest < most else counted(most, noun)


def _seeds(first: Sequence[int], later: Sequence[int]) -> str:
    if not first:
        return ""
    return f"{_range(first, 'seed')} per arm planned, {_range(later, 'seed') if any(later) else 'none'} added later"


def _extension(extension: Mapping[str, Any]) -> str:
    added = extension.get("added") or ()
    return f"{extension.get('created', '?')}, by {counted(len(added), 'trial')}: {', '.join(map(str, added))}"
