"""What may be said of a run and what may not: words shared by the summary and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.trials import Trial
from sousaphone.config import RETRIED, TrainConfig
from sousaphone.durations import in_words
from sousaphone.rudiments import SLUGS
from sousaphone.run import RunDirectory, banner
from sousaphone.words import counted

COLUMNS = {
    "val_macro_f1": "macro-averaged F1 on the validation clips, of the best epoch; the table is ordered by it",
    "val_acc, test_acc": f"share of clips named rightly among {len(SLUGS)} rudiments (chance: {100 / len(SLUGS):g} %)",
    "epochs": "finished, of those planned",
    "test": "measured once, with the weights of the best validation epoch",
    "trainable": "parameters that train: adapters and fresh layers",
    "seconds": "time in training steps, evaluation not counted",
    "MB": "peak memory: on a GPU of the device; on a CPU of the whole process, which serves several trials in turn",
}


@dataclass(frozen=True)
class Findings:
    """A run as its report sees it.

    Attributes:
        path: the run's directory.
        live: whether a driver works on it at this moment.
        written: when the report was written, ISO 8601.
        remarks: what went otherwise than expected in reading it.
    """

    path: Path
    plan: Mapping[str, Any]
    trials: Sequence[Trial]
    live: bool
    written: str
    remarks: Sequence[str]

    @property
    def name(self) -> str:
        return str(self.plan.get("name") or self.path.name)

    @property
    def banner(self) -> str | None:
        """What stands above results that say nothing about the published models."""
        # Only these two fields matter to it, and an old plan may hold others that today's limits refuse.
        arms = {(t.config.get("scale", "nano"), t.weights) for t in self.trials}
        return banner([TrainConfig(scale=scale, weights=weights) for scale, weights in sorted(arms)])

    @property
    def ranked(self) -> list[Trial]:
        """The trials with all their results, the best validation score first."""
        return _by_score([trial for trial in self.trials if trial.full])

    @property
    def partial(self) -> list[Trial]:
        """The trials with results of fewer epochs than planned, the best validation score first."""
        return _by_score([trial for trial in self.trials if trial.partial])

    @property
    def partial_note(self) -> str:
        """What must stand above their numbers."""
        others = "the table above" if self.ranked else "those of a trial that ran to its end"
        return f"These are of fewer epochs than planned, so not comparable with {others}."

    @property
    def without_results(self) -> list[Trial]:
        """The trials without a finished epoch, in the order of the plan."""
        return [trial for trial in self.trials if not trial.full and not trial.partial]

    @property
    def state(self) -> str:
        """How far the run is, in one sentence."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        live = "; the run is still going on" if self.live else ""
        return f"{counted(len(self.trials), 'planned trial')}: {words}{live}."

    @property
    def promotion(self) -> str | None:
        """Where this run's trial comes from, in one sentence; None if it was not promoted from another run."""
        origin = self.plan.get("promoted_from")
        if not origin:
            return None
        scores = ((origin.get(name), style) for name, style in (("val_macro_f1", "{:.3f}"), ("val_acc", "{:.1%}")))
        f1, accuracy = ("not known" if value is None else style.format(value) for value, style in scores)
        return (
            f"Promoted from trial {origin.get('trial_id')} of run {origin.get('run')}, whose validation macro F1 was "
            f"{f1} and accuracy {accuracy}, over {counted(origin.get('epochs'), 'epoch')} there."
        )

    @property
    def next_steps(self) -> list[tuple[str, str | None]]:
        """(what for, the line to type, None where there is none) for all that can be gone on with; nothing while a
        driver is at it."""
        if self.live:
            return []
        resume = RunDirectory(self.path).resume_command
        steps: list[tuple[Sequence[str], str, str | None]] = [
            (("interrupted", "pending"), "interrupted or not begun. Go on with:", resume),
            (RETRIED, "failed or out of memory. Once the cause is gone, try again with:", f"{resume} --retry-failed"),
            (
                ("time_limit",),
                "stopped by a time limit. Go on under a longer one (such as 2h), or none:",
                f"{resume} --trial-time-limit none",
            ),
            (("diverged",), "would diverge again. Begin a new run with a lower --set learning_rate.", None),
        ]
        found = []
        for statuses, words, line in steps:
            if number := sum(trial.status in statuses for trial in self.trials):
                found.append((f"{counted(number, 'trial')}: {words}", line))
        return found

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What ran: (name, value) pairs."""
        data, origin = self.plan.get("data") or {}, self.plan.get("provenance") or {}
        clips, players = data.get("clips") or {}, data.get("players") or {}
        splits = [split for split in ("train", "validation", "test") if split in clips]
        sizes = ", ".join(f"{split} {clips[split]} of {counted(players.get(split), 'player')}" for split in splits)
        synthetic = " (synthetic, the built-in set)" if data.get("synthetic") else ""
        dirty = " with uncommitted changes" if origin.get("git_dirty") else ""
        versions = ", ".join(f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version)
        device = dict.fromkeys(((self.plan.get("request") or {}).get("device"), origin.get("device")))
        pairs = [
            ("Command", self.plan.get("command")),
            ("Begun", self.plan.get("created")),
            *(("Extended", _extension(extension)) for extension in self.plan.get("extensions") or ()),
            ("Data", f"{data.get('root', '?')}{synthetic}"),
            ("Clips", sizes),
            ("Data fingerprint", str(data.get("fingerprint", ""))[:16]),
            ("Commit", f"{origin.get('git_commit', 'unknown')}{dirty}"),
            ("Versions", versions),
            ("Host", origin.get("host")),
            ("Device", ", ".join(str(name) for name in device if name)),
            ("Limits", _limits_in_words(self.plan.get("limits") or {})),
        ]
        return [(name, str(value)) for name, value in pairs if value]

    @property
    def notes(self) -> list[str]:
        """What the launcher and the reading of the run had to say."""
        return [*map(str, self.plan.get("notes") or ()), *self.remarks]

    @property
    def verdict(self) -> str:
        """What the order of the table allows to be said."""
        if self.banner:
            return "No backbone is declared the best: the numbers show only that every part of the tool ran."
        if not self.ranked or "val_macro_f1" not in self.ranked[0].best:
            return "No trial has run to its end, so there is nothing to compare yet."
        best = self.ranked[0]
        return (
            f"Best by validation: {best.trial_id} (macro F1 {best.best['val_macro_f1']:.3f}). This speaks of these "
            "trained models on these clips, not of the backbones in general; see below before building on it."
        )

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
            [t.trial_id, *(f"{t.last[name]:.3f}" if name in t.last else "–" for name in ("test_acc", *names))]
            for t in (*self.ranked, *self.partial)
        ]
        return ("trial", "test_acc", *names), rows, "; ".join(words for _, words in shown)

    @property
    def limits(self) -> list[str]:
        """What the result does not show."""
        data = self.plan.get("data") or {}
        seeds = len({trial.config.get("seed") for trial in self.trials})
        clips, players = ((data.get(key) or {}).get("test") for key in ("clips", "players"))
        said = [
            "One seed for each arm: how much a repetition would differ is not known."
            if seeds == 1
            else f"{counted(seeds, 'seed')}: the spread between them is of initialisation and order, not of players."
        ]
        if clips:
            half = 100 * 1.96 * math.sqrt(0.25 / clips)
            said.append(
                f"{counted(clips, 'test clip')} of {counted(players, 'player')}: by counting alone an accuracy near "
                f"50 % is uncertain by about ±{half:.0f} points; clips of one player are alike, so in truth by more."
            )
        if not (self.plan.get("request") or {}).get("hold_out"):
            said.append(
                "Test clips are of unseen players in seen timbres: how well a kit or room never heard in training is "
                "recognised, --hold-out would tell."
            )
        if data.get("synthetic"):
            said.append("The clips are synthetic: nothing here was measured on played drums.")
        said.append(
            "Learning rates and other settings were fixed beforehand; another setting may turn the order round."
        )
        return said


def _by_score(trials: Sequence[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.best.get("val_macro_f1", -math.inf), reverse=True)


def _extension(extension: Mapping[str, Any]) -> str:
    added = extension.get("added") or ()
    return f"{extension.get('created', '?')}, by {counted(len(added), 'trial')}: {', '.join(map(str, added))}"


def _limits_in_words(limits: Mapping[str, float | None]) -> str:
    words = {"trial": "a trial", "stall": "without a batch"}
    known = [(limits.get(name), text) for name, text in words.items()]
    return ", ".join(f"{in_words(seconds)} {text}" for seconds, text in known if seconds is not None)
