"""This run against another one, or against the JSON files of an earlier sweep: what each lacks, what changed, and by
how much the arms that both have differ (this run's minus the other's).

Only the test accuracy gets an interval, where both have kept their predictions of each clip and the clips are the same.
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
from analysis.report import read_run
from analysis.run_summary import Findings
from analysis.stats.statistics import contrast
from analysis.write.blocks import Block, Items, Section, Table, Text
from analysis.write.markdown import to_markdown
from sousaphone.config import ArmKey
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.runs.directory import RunDirectory
from sousaphone.text import counted

FILE_NAME = "comparison.md"
HEAD = ("arm", "here", "there", "validation accuracy", "validation macro F1", "test accuracy")
_MOST_NAMES = 5
_OTHER_NUMBERS = "none: other numbers of clips were scored (limit_eval_batches)"
_HOW = (
    "Arms that both have, this one minus the other. Validation: means over the seeds that ran to their end. Test "
    "accuracy: mean over players of the difference on the same clips, seeds averaged first, with its 95 % interval "
    "over players, and over seeds where both have three or more. A difference between two runs is that of everything "
    "that changed between them, and not the effect of any one change."
)
# What must agree for a clip of the same name to be the same clip.
_LABELS = ("player", "rudiment", "audio_path", "tempo_bpm", "skill_tier", "soundfont", "preset", "duration_sec")


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two that are compared."""

    name: str
    experiments: Sequence[Experiment]  # all of them, whatever became of them
    answers: pd.DataFrame | None  # of its trials to each test clip, see `read_predictions`; None where nobody kept them
    remarks: Sequence[str]  # what could not be read
    run: Findings | None = None  # None for a directory of files

    @property
    def state(self) -> str:
        """What became of its experiments, in words."""
        return counted_states(each.status for each in self.experiments)

    @property
    def data(self) -> str | None:
        """Which clips it was trained and validated on, where that is known."""
        return None if self.run is None else (self.run.plan.get("data") or {}).get("fingerprint")

    @cached_property
    def arms(self) -> dict[ArmKey, list[Experiment]]:
        return by_arm(self.experiments)


@dataclass(frozen=True)
class Comparison:
    """All that is said of two sides."""

    here: Side
    there: Side
    lacks: Sequence[str]
    changed: Sequence[str]
    alone: Sequence[str]  # the arms that only one side has
    rows: Sequence[Sequence[str]]  # under HEAD, of the arms that both have

    @property
    def section(self) -> Section:
        """All of it."""
        other = "a run" if self.there.run else "a directory of experiment files"
        experiments = counted(len(self.there.experiments), "experiment")
        blocks: list[Block] = [
            Text(f"Here: {self.here.name}, {counted(len(self.here.experiments), 'trial')}: {self.here.state}."),
            Text(f"There: {self.there.name}, {other} with {experiments}: {self.there.state}."),
        ]
        for words, items in (
            ("What the other lacks, and what that means for its numbers:", self.lacks),
            ("What changed:", self.changed),
            ("Arms that only one of them has:", self.alone),
        ):
            blocks += [Text(words), Items(items)] if items else []
        if self.rows:
            blocks += [Text(_HOW), Table(HEAD, self.rows, wordy=HEAD[1:])]
        else:
            blocks.append(Text("They have no arm in common, so no numbers are compared."))
        return Section(f"Compared with {self.there.name}", blocks)

    @property
    def short(self) -> list[str]:
        """The same for a terminal, without what is only in one."""
        lines = [f"here:  {self.here.name}: {self.here.state}", f"there: {self.there.name}: {self.there.state}"]
        for words, items in (("what the other lacks:", self.lacks), ("what changed:", self.changed)):
            lines += [words, *(f"  {item}" for item in items)] if items else []
        lines.append(f"{counted(len(self.rows), 'arm')} in both, {counted(len(self.alone), 'arm')} in one alone")
        for arm, _, _, accuracy, f1, test in self.rows:
            lines += [f"  {arm}", f"    validation accuracy {accuracy}; macro F1 {f1}", f"    test accuracy {test}"]
        return lines


def comparison(found: Findings, other: Path) -> Comparison:
    """
    Args:
        found: this run.
        other: the directory of another one, or of JSON files, one an experiment.

    Raises:
        UserError: `other` is neither, or is this run itself.
    """
    if other.resolve() == found.path.resolve():
        raise UserError(f"{other} is the run itself; give another one to compare it with")
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
    """Write comparison.md.

    Args:
        output: where it goes; RUN/report by default.

    Returns:
        It in short, for a terminal, and the file.

    Raises:
        UserError: one of them is not there, or the file cannot be written.
    """
    result = comparison(read_run(run), other)
    directory = output if output is not None else RunDirectory(run).report
    path = directory / FILE_NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(to_markdown(f"{result.here.name} compared", [result.section]), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{directory} cannot take the comparison ({error.strerror}); give another one with --output"
        ) from error
    return result.short, path


def _read_side(path: Path) -> Side:
    if not path.is_dir():
        raise UserError(f"{path} is no directory; give a run, or a directory of experiment files")
    if RunDirectory(path).exists:
        return _side_of(read_run(path))
    experiments, damaged = read_experiments(path)
    remarks = []
    if damaged:
        more = f" and {len(damaged) - _MOST_NAMES} more" if len(damaged) > _MOST_NAMES else ""
        remarks.append(f"{counted(len(damaged), 'file')} could not be read: {', '.join(damaged[:_MOST_NAMES])}{more}")
    return Side(path.resolve().name, experiments, None, remarks)


def _side_of(found: Findings) -> Side:
    answers = None if found.predictions.empty else found.predictions
    return Side(found.name, of_trials(found.trials), answers, found.remarks, found)


def _row(arm: ArmKey, here: Side, there: Side) -> tuple[str, ...]:
    ours, theirs = here.arms[arm], there.arms[arm]
    other = None if _scored_alike(ours, theirs) else _OTHER_NUMBERS
    if None not in (here.data, there.data) and here.data != there.data:
        other = "none: validated on other clips"
    validation = [_change(metric, ours, theirs, "validation", other) for metric in ("val_acc", "val_macro_f1")]
    return (
        arm_title(arm),
        counted_states(each.status for each in ours),
        counted_states(each.status for each in theirs),
        *validation,
        _test_change(ours, theirs, here.answers, there.answers),
    )


def _scored_alike(ours: Sequence[Experiment], theirs: Sequence[Experiment]) -> bool:
    """Whether as many clips of each split were scored for all that ran to their end."""
    return len({each.most_scored for each in (*ours, *theirs) if each.full}) < 2


def _change(
    metric: str, ours: Sequence[Experiment], theirs: Sequence[Experiment], what: str, instead: str | None = None
) -> str:
    """The difference of two means with both of them, or what is said instead; why not, where one is missing."""
    known = []
    for where, experiments in (("here", ours), ("there", theirs)):
        full = [each for each in experiments if each.full]
        values = [each.scores[metric] for each in full if metric in each.scores]
        if not full:
            return f"none: nothing ran to its end {where}"
        if not values:
            return f"none: no {what} metric {where}"
        known.append(sum(values) / len(values))
    if instead is not None:
        return instead
    first, second = known
    if metric.endswith("_acc"):
        return f"{_points(first - second)} ({first:.1%} − {second:.1%})"
    return f"{_signed(first - second, '.3f')} ({first:.3f} − {second:.3f})"


def _test_change(
    ours: Sequence[Experiment], theirs: Sequence[Experiment], here: pd.DataFrame | None, there: pd.DataFrame | None
) -> str:
    bare = _change("test_acc", ours, theirs, "test")
    if not all(any(each.full and "test_acc" in each.scores for each in side) for side in (ours, theirs)):
        return bare
    if not any(each.validated for each in theirs):
        values = {f"{each.scores['test_acc']:.1%}" for each in theirs if each.full and "test_acc" in each.scores}
        return f"none: {', '.join(sorted(values))} there, without any validation, is not to be trusted"
    own, others = _answers(here, ours), _answers(there, theirs)
    if own is None or others is None:
        if not _scored_alike(ours, theirs):
            return _OTHER_NUMBERS
        return f"{bare}; no interval: what was said of each clip is not kept {'here' if own is None else 'there'}"
    same = _same_clips(own, others)
    (first, players), (second, _) = (
        correct_by_clip(table[table.sample_id.isin(same)], list(table.trial_id.unique())) for table in (own, others)
    )
    clips = first.index.intersection(second.index)
    if clips.empty:
        return "none: they were scored on other test clips"
    try:
        found = contrast(first, second, players)
    except ValueError:
        right = [float(table.loc[clips].mean(axis=1).mean()) for table in (first, second)]
        return f"{_points(right[0] - right[1])} on {counted(len(clips), 'clip')}; no interval: of one player"
    return (
        f"{_points(found.difference)} (95 %: {_signed(100 * found.low, '.1f')} to {_signed(100 * found.high, '.1f')}; "
        f"{counted(found.players, 'player')}, {counted(found.clips, 'clip')})"
    )


def _answers(answers: pd.DataFrame | None, experiments: Sequence[Experiment]) -> pd.DataFrame | None:
    """Those of the experiments that ran to their end; None without any."""
    names = [each.name for each in experiments if each.full]
    table = None if answers is None else answers[answers.trial_id.isin(names)]
    return None if table is None or table.empty else table


def _same_clips(here: pd.DataFrame, there: pd.DataFrame) -> set[str]:
    """The names of the clips that are the same by all their labels; a name alone may stand for other audio.

    A label that one side does not know at all (an older run has no audio_path) is not held against it.
    """
    first, second = (table.drop_duplicates("sample_id").set_index("sample_id") for table in (here, there))
    common = first.index.intersection(second.index)
    equal = pd.Series(True, index=common)
    for label in _LABELS:
        one, two = (table.loc[common, label].astype(str).replace("nan", "") for table in (first, second))
        if one.ne("").any() and two.ne("").any():
            equal &= one.eq(two)
    return set(common[equal])


def _points(difference: float) -> str:
    return f"{_signed(100 * difference, '.1f')} points"


def _signed(value: float, style: str) -> str:
    """With its sign, a true minus; no sign on what rounds to zero."""
    text = format(abs(value), style)
    return text if float(text) == 0 else ("−" if value < 0 else "+") + text
