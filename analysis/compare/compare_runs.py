"""Compare a run with another run or with the JSON files of an earlier sweep: shortcomings, changes, and the difference
of the common arms (this run minus the other).

Only the test accuracy has an interval, if both sides have predictions of the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from analysis.compare.changes import by_arm, changes_between_runs, changes_in_settings
from analysis.compare.experiments import Experiment, arm_title, of_trials, read_experiments
from analysis.compare.shortcomings import shortcomings
from analysis.load.predictions import correct_by_clip
from analysis.load.trials import counted_states
from analysis.report import read_run, write_files
from analysis.run_summary import Findings
from analysis.stats.contrast import contrast
from analysis.write.blocks import Block, Items, Section, Table, Text
from analysis.write.markdown import to_markdown
from sousaphone.config import ArmKey
from sousaphone.errors import UserError, printable
from sousaphone.runs.directory import RunDirectory
from sousaphone.text import counted, first_few

HEAD = ("arm", "here", "there", "validation accuracy", "validation macro F1", "test accuracy")
_OTHER_NUMBERS = "none: different numbers of clips were scored (limit_eval_batches)"
_HOW = (
    "Common arms, this run minus the other. Validation: means over finished seeds. Test accuracy: mean over players of "
    "the difference on the same clips, seeds averaged first, with its 95 % interval, the wider of that over players "
    "(with both sides' seeds, if each has at least three) and that over clips. The difference is due to all changes "
    "between the two runs together, not to any single one."
)
# Clips of the same name are the same clip only if these labels agree.
_LABELS = ("player", "rudiment", "audio_path", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec")


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the comparison."""

    name: str
    experiments: Sequence[Experiment]
    predictions: pd.DataFrame  # on the test clips, see `read_predictions`; may be empty
    remarks: Sequence[str] = ()  # files that could not be read
    run: Findings | None = None  # None for a directory of experiment files

    @property
    def state(self) -> str:
        """The number of experiments by status, in words."""
        return counted_states(each.status for each in self.experiments)

    @cached_property
    def arms(self) -> dict[ArmKey, list[Experiment]]:
        return by_arm(self.experiments)


@dataclass(frozen=True)
class Comparison:
    """The result of comparing two sides."""

    here: Side
    there: Side
    lacks: Sequence[str]  # shortcomings of the other side
    changed: Sequence[str]
    alone: Sequence[str]  # arms of only one side
    rows: Sequence[Sequence[str]]  # columns of HEAD, for the common arms

    @property
    def section(self) -> Section:
        """The full comparison."""
        here, there = self.here, self.there
        other = "a run" if there.run else "a directory of experiment files"
        blocks: list[Block] = [
            Text(f"Here: {here.name}, {counted(len(here.experiments), 'trial')}: {here.state}."),
            Text(f"There: {there.name}, {other} with {counted(len(there.experiments), 'experiment')}: {there.state}."),
        ]
        for heading, items in (
            ("Shortcomings of the other side and their consequences:", self.lacks),
            ("Changes:", self.changed),
            ("Arms of only one side:", self.alone),
        ):
            blocks += [Text(heading), Items(items)] if items else []
        if self.rows:
            blocks += [Text(_HOW), Table(HEAD, self.rows, wordy=HEAD[1:])]
        else:
            blocks.append(Text("There are no common arms, so no results are compared."))
        return Section(f"Compared with {there.name}", blocks)

    @property
    def short(self) -> list[str]:
        """The comparison as lines for a terminal, without the names of arms of only one side."""
        lines = [f"here:  {self.here.name}: {self.here.state}", f"there: {self.there.name}: {self.there.state}"]
        for heading, items in (("shortcomings of the other side:", self.lacks), ("changes:", self.changed)):
            lines += [heading, *(f"  {item}" for item in items)] if items else []
        lines.append(f"{counted(len(self.rows), 'common arm')}, {counted(len(self.alone), 'arm')} of only one side")
        for arm, _, _, accuracy, f1, test in self.rows:
            lines += [f"  {arm}", f"    validation accuracy {accuracy}; macro F1 {f1}", f"    test accuracy {test}"]
        return lines


def comparison(found: Findings, other: Path) -> Comparison:
    """Compare a run with another one, or with a directory of JSON files, one per experiment; else raise a UserError."""
    if other.resolve() == found.path.resolve():
        raise UserError(f"{other} is the run itself; give another one")
    here, there = _side_of(found), _read_side(other)
    if there.run:
        changed = changes_between_runs(found, there.run)
    else:
        changed = changes_in_settings(here.experiments, there.experiments)
    lacks = [*shortcomings(there.experiments, there.run), *there.remarks]
    alone = [f"only here: {arm_title(arm)}" for arm in here.arms if arm not in there.arms]
    alone += [f"only there: {arm_title(arm)}" for arm in there.arms if arm not in here.arms]
    rows = [_row(arm, here, there) for arm in here.arms if arm in there.arms]
    return Comparison(here, there, lacks, changed, alone, rows)


def write_comparison(run: Path, other: Path, output: Path | None = None) -> tuple[list[str], Path]:
    """Write comparison.md to `output` (RUN/report by default); return a short form for the terminal, and its path."""
    result = comparison(read_run(run), other)
    directory = output if output is not None else RunDirectory(run).report
    text = to_markdown(f"{result.here.name} compared", [result.section])
    write_files(directory, {"comparison.md": text.encode()})
    return result.short, directory / "comparison.md"


def _read_side(path: Path) -> Side:
    if not path.is_dir():
        raise UserError(f"{path} is not a directory; give a run, or a directory of experiment files")
    if RunDirectory(path).exists:
        return _side_of(read_run(path))
    experiments, damaged = read_experiments(path)
    remarks = [f"{counted(len(damaged), 'file')} could not be read: {first_few(damaged, 5)}"] if damaged else []
    return Side(printable(path.resolve().name), experiments, pd.DataFrame({"trial_id": []}), remarks)


def _side_of(found: Findings) -> Side:
    return Side(found.name, of_trials(found.trials), found.predictions, found.remarks, found)


def _row(arm: ArmKey, here: Side, there: Side) -> tuple[str, ...]:
    ours, theirs = here.arms[arm], there.arms[arm]
    instead = None if _equal_limits(ours, theirs) else _OTHER_NUMBERS
    data = [side.run.data.get("fingerprint") if side.run else None for side in (here, there)]
    if None not in data and data[0] != data[1]:
        instead = "none: validated on different clips"
    return (
        arm_title(arm),
        counted_states(each.status for each in ours),
        counted_states(each.status for each in theirs),
        _change("val_acc", ours, theirs, instead),
        _change("val_macro_f1", ours, theirs, instead),
        _test_change(ours, theirs, here.predictions, there.predictions),
    )


def _equal_limits(ours: Sequence[Experiment], theirs: Sequence[Experiment]) -> bool:
    """Whether all finished experiments were scored on equally many clips of each split."""
    return len({each.most_scored for each in (*ours, *theirs) if each.full}) < 2


def _change(metric: str, ours: Sequence[Experiment], theirs: Sequence[Experiment], instead: str | None = None) -> str:
    """Format the difference of the two means and both means (or return `instead`); if one is missing, say which."""
    split, means = "validation" if metric.startswith("val_") else "test", []
    for where, experiments in (("here", ours), ("there", theirs)):
        full = [each for each in experiments if each.full]
        values = [each.scores[metric] for each in full if metric in each.scores]
        if not values:
            return f"none: no {split} metric {where}" if full else f"none: no finished experiment {where}"
        means.append(sum(values) / len(values))
    if instead is not None:
        return instead
    first, second = means
    if metric.endswith("_acc"):
        return f"{_points(first - second)} ({first:.1%} − {second:.1%})"
    return f"{_signed(first - second, '.3f')} ({first:.3f} − {second:.3f})"


def _test_change(
    ours: Sequence[Experiment], theirs: Sequence[Experiment], here: pd.DataFrame, there: pd.DataFrame
) -> str:
    """Format the difference of test accuracy, with its interval if both sides have predictions of the same clips."""
    means = _change("test_acc", ours, theirs)
    if means.startswith("none"):
        return means
    if not any(each.validated for each in theirs):
        values = {f"{each.scores['test_acc']:.1%}" for each in theirs if each.full and "test_acc" in each.scores}
        return f"none: {', '.join(sorted(values))} there is unreliable without any validation"
    own, other = (
        table[table.trial_id.isin([each.name for each in experiments if each.full])]
        for table, experiments in ((here, ours), (there, theirs))
    )
    if own.empty or other.empty:
        if not _equal_limits(ours, theirs):
            return _OTHER_NUMBERS
        return f"{means}; no interval: no predictions {'here' if own.empty else 'there'}"
    same = _same_clips(own, other)
    (first, players), (second, _) = (
        correct_by_clip(table[table.sample_id.isin(same)], list(table.trial_id.unique())) for table in (own, other)
    )
    clips = first.index.intersection(second.index)
    if clips.empty:
        return "none: scored on different test clips"
    try:
        found = contrast(first, second, players)
    except ValueError:
        accuracies = [float(table.loc[clips].mean(axis=1).mean()) for table in (first, second)]
        difference = _points(accuracies[0] - accuracies[1])
        return f"{difference} on {counted(len(clips), 'clip')}; no interval: only one player"
    return (
        f"{_points(found.difference)} (95 %: {_signed(100 * found.low, '.1f')} to {_signed(100 * found.high, '.1f')}; "
        f"{counted(found.players, 'player')}, {counted(found.clips, 'clip')})"
    )


def _same_clips(here: pd.DataFrame, there: pd.DataFrame) -> set[str]:
    """Return the names of the clips whose labels all agree, since two data sets may use a name for different audio.

    Labels that one side lacks (older runs have no audio_path) are not compared.
    """
    first, second = (table.drop_duplicates("sample_id").set_index("sample_id") for table in (here, there))
    common = first.index.intersection(second.index)
    equal = pd.Series(True, index=common)
    for label in _LABELS:
        one, two = (table.loc[common, label].astype(object).fillna("").astype(str) for table in (first, second))
        if one.ne("").any() and two.ne("").any():
            equal &= one.eq(two)
    return set(common[equal])


def _points(difference: float) -> str:
    return f"{_signed(100 * difference, '.1f')} points"


def _signed(value: float, style: str) -> str:
    """Format a number with its sign (a Unicode minus); zero has no sign."""
    text = format(abs(value), style)
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text
