"""What may be said of a run and what may not: words shared by the summary and the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.trials import Trial
from sousaphone.config import TrainConfig
from sousaphone.rudiments import SLUGS
from sousaphone.run import RunDirectory, banner

COLUMNS = {
    "val_macro_f1": "macro-averaged F1 on the validation clips, of the best epoch; the table is ordered by it",
    "val_acc, test_acc": f"share of clips named rightly among {len(SLUGS)} rudiments (chance: {100 / len(SLUGS):g} %)",
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
    remarks: Sequence[str] = ()

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
        """The trials that ended well, the best validation score first."""
        good = [trial for trial in self.trials if trial.ended_well]
        return sorted(good, key=lambda trial: trial.best.get("val_macro_f1", -math.inf), reverse=True)

    @property
    def others(self) -> list[Trial]:
        """The trials that have not ended well, in the order of the plan."""
        return [trial for trial in self.trials if not trial.ended_well]

    @property
    def state(self) -> str:
        """How far the run is, in one sentence."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
        words = ", ".join(f"{count} {status}" for status, count in counts.items())
        live = "; the run is still going on" if self.live else ""
        return f"{len(self.trials)} planned trial{'s' if len(self.trials) != 1 else ''}: {words}{live}."

    @property
    def resume_command(self) -> str | None:
        """The line that goes on with this run; None where nothing is left to go on with, or someone is at it."""
        open_ends = any(trial.status in ("pending", "running", "interrupted") for trial in self.trials)
        return RunDirectory(self.path).resume_command if open_ends and not self.live else None

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What ran: (name, value) pairs."""
        data, origin = self.plan.get("data") or {}, self.plan.get("provenance") or {}
        clips, players = data.get("clips") or {}, data.get("players") or {}
        splits = [split for split in ("train", "validation", "test") if split in clips]
        sizes = ", ".join(f"{split} {clips[split]} of {_players(players.get(split))}" for split in splits)
        synthetic = " (synthetic, the built-in set)" if data.get("synthetic") else ""
        dirty = " with uncommitted changes" if origin.get("git_dirty") else ""
        versions = ", ".join(f"{name} {version}" for name, version in (origin.get("versions") or {}).items() if version)
        pairs = {
            "Command": self.plan.get("command"),
            "Begun": self.plan.get("created"),
            "Data": f"{data.get('root', '?')}{synthetic}",
            "Clips": sizes,
            "Data fingerprint": str(data.get("fingerprint", ""))[:16],
            "Commit": f"{origin.get('git_commit', 'unknown')}{dirty}",
            "Versions": versions,
            "Host": origin.get("host"),
        }
        return [(name, str(value)) for name, value in pairs.items() if value]

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
            return "No trial has ended with a validation score, so there is nothing to compare yet."
        best = self.ranked[0]
        return (
            f"Best by validation: {best.trial_id} (macro F1 {best.best['val_macro_f1']:.3f}). This speaks of these "
            "trained models on these clips, not of the backbones in general; see below before building on it."
        )

    @property
    def limits(self) -> list[str]:
        """What the result does not show."""
        data = self.plan.get("data") or {}
        seeds = len({trial.config.get("seed") for trial in self.trials})
        clips, players = ((data.get(key) or {}).get("test") for key in ("clips", "players"))
        said = [
            "One seed for each arm: how much a repetition would differ is not known."
            if seeds == 1
            else f"{seeds} seeds: the spread between them is of initialisation and order, not of players."
        ]
        if clips:
            half = 100 * 1.96 * math.sqrt(0.25 / clips)
            said.append(
                f"{clips} test clips of {_players(players)}: by counting alone an accuracy near 50 % is uncertain by "
                f"about ±{half:.0f} points; clips of one player are alike, so in truth by more."
            )
        if data.get("synthetic"):
            said.append("The clips are synthetic: nothing here was measured on played drums.")
        said.append(
            "Learning rates and other settings were fixed beforehand; another setting may turn the order round."
        )
        return said


def _players(count: int | None) -> str:
    return "1 player" if count == 1 else f"{'?' if count is None else count} players"
