"""Measure a run's yardsticks before its trials: what is there already is kept, and the rest is written as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sousaphone.baselines.classifiers import Hearing, measure_baseline, skipped, titles
from sousaphone.baselines.latency import models, time_arm
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name, is_here
from sousaphone.runs.baseline_results import Baseline, InferenceTime, Yardsticks, predictions_path
from sousaphone.text import Advance, counted, in_words, one_line, progress_bar
from sousaphone.training.memory import free_memory, is_out_of_memory

# What may go wrong with one yardstick and leave the trials as they are: the device, its memory, the disk, a weights or
# waveform file, features that tell nothing, scikit-learn not installed. Anything else is a defect and ends the launch.
_TROUBLE = (RuntimeError, MemoryError, OSError, ValueError, ImportError)

Announce = Callable[[str], None]


def measure_yardsticks(
    run: Path, trials: Sequence[TrainConfig], dataset: Dataset, announce: Announce
) -> Yardsticks | None:
    """Measure what a run lacks of its yardsticks, and keep it in the run's directory.

    Those with a result are kept, if they are of the same clips and seconds; those without one are tried again. One
    that cannot be measured says why and stops nothing. Threads and random state are left as they were.

    Args:
        run: the run's directory.
        trials: all that are planned.
        dataset: the clips that they are drawn, of every split.

    Returns:
        All of the run's; None if the disk takes none.
    """
    work = _Work.left(run, trials, dataset)
    if work:
        announce(
            f"measuring {work} to hold the trials against: seconds for 1,000 clips and nano models, minutes for more "
            "(--no-baselines leaves it out)"
        )
        began = time.perf_counter()
        try:
            with progress_bar("baselines and CPU times", len(work.names) + len(work.arms)) as advance:
                work.do(advance)
        except OSError as error:
            announce(f"they cannot be kept in {run} ({error.strerror or error}); the trials go on without them")
            return None
        finally:
            free_memory(work.hearing.device)
        announce(f"measured {work} in {in_words(time.perf_counter() - began)}")
    for why, names in _without_result(work.found).items():
        announce(f"  without a result: {', '.join(names)} ({why})")
    if best := work.found.best:
        scores = f"test_acc {best.scores['test_acc']:.3f}  test_macro_f1 {best.scores['test_macro_f1']:.3f}"
        announce(f"best baseline by val_macro_f1: {best.name} ({best.title})  {scores}")
    return work.found


@dataclass
class _Work:
    """What there is of a run's yardsticks, and what is left to measure.

    Attributes:
        names: of the baselines to measure.
        arms: a trial of each arm to time.
        found: all that there is a word on, in the order of `wanted` and `planned`; it grows.
        wanted: names of all baselines.
        planned: all arms.
    """

    run: Path
    hearing: Hearing
    names: list[str]
    arms: list[TrainConfig]
    found: Yardsticks
    wanted: list[str]
    planned: list[tuple[str, str, str]]

    @classmethod
    def left(cls, run: Path, trials: Sequence[TrainConfig], dataset: Dataset) -> _Work:
        firsts: dict[str, TrainConfig] = {}
        for trial in trials:
            firsts.setdefault(trial.model, trial)
        # A device that only a cluster's other machines have is none to measure on.
        device = trials[0].device if is_here(trials[0].device) else "cpu"
        hearing = Hearing(dataset, firsts, torch.device(device))
        planned, wanted = models(trials), list(titles(firsts))
        blank = Yardsticks((), (), device_name("cpu"), trials[0].clip_seconds, dataset.fingerprint)
        there = _there(run, blank)
        timed = [each for each in there.inference if each.built in planned and each.ms is not None]
        if there.cpu != blank.cpu and len(timed) < len(planned):
            timed = []  # of two processors' times none could be compared
        scored = [each for each in there.baselines if each.name in wanted and _is_whole(run, each)]
        lacking = [name for name in wanted if name not in {each.name for each in scored}]
        reasons = {name: why for name in lacking if (why := skipped(name, hearing))}
        work = cls(
            run,
            hearing,
            [name for name in lacking if name not in reasons],
            [trial for built, trial in planned.items() if built not in {each.built for each in timed}],
            replace(blank, cpu=there.cpu if timed else blank.cpu),
            wanted,
            list(planned),
        )
        work.add(*scored, *timed, *(_without(name, hearing, 0.0, why) for name, why in reasons.items()))
        return work

    def __bool__(self) -> bool:
        return bool(self.names or self.arms)

    def __str__(self) -> str:
        parts = [counted(len(self.names), "baseline")] if self.names else []
        parts += [f"the CPU time of {counted(len(self.arms), 'arm')}"] if self.arms else []
        return " and ".join(parts)

    def do(self, advance: Advance) -> None:
        """Measure what is left, and write each as it comes: an interruption loses the one in work.

        Args:
            advance: told what share of one measurement has been done.

        Raises:
            OSError: the run's directory takes no file.
        """
        clips = len(self.hearing.dataset.clips)
        hearing = replace(self.hearing, heard=lambda heard: advance(heard / clips))
        for name in self.names:
            self.add(_baseline(name, hearing, self.run))
            self.found.write(self.run)
        for trial in self.arms:
            self.add(_inference(trial))
            self.found.write(self.run)
            advance(1.0)

    def add(self, *new: Baseline | InferenceTime) -> None:
        baselines = [*self.found.baselines, *(each for each in new if isinstance(each, Baseline))]
        inference = [*self.found.inference, *(each for each in new if isinstance(each, InferenceTime))]
        self.found = replace(
            self.found,
            baselines=tuple(sorted(baselines, key=lambda each: self.wanted.index(each.name))),
            inference=tuple(sorted(inference, key=lambda each: self.planned.index(each.built))),
        )


def _there(run: Path, blank: Yardsticks) -> Yardsticks:
    """What an earlier launch has measured; nothing if that is damaged, or of other clips or seconds."""
    try:
        found = Yardsticks.read(run)
    except (ValueError, OSError):
        return blank
    same = found is not None and (found.clip_seconds, found.data_fingerprint, found.threads) == (
        blank.clip_seconds,
        blank.data_fingerprint,
        blank.threads,
    )
    return found if found is not None and same else blank


def _is_whole(run: Path, baseline: Baseline) -> bool:
    """Whether it has a result, its answers included."""
    return bool(baseline.scores) and predictions_path(run, baseline.name).is_file()


def _baseline(name: str, hearing: Hearing, run: Path) -> Baseline:
    """Measured, its answers kept; or without a result, and why."""
    began = time.perf_counter()
    try:
        baseline, answers = measure_baseline(name, hearing)
        path = predictions_path(run, name)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            answers.to_parquet(temporary)
        return baseline
    except _TROUBLE as error:
        why = _why(error)
    # Past the handler nothing holds the tensors of the attempt any more.
    free_memory(hearing.device)
    return _without(name, hearing, time.perf_counter() - began, why)


def _without(name: str, hearing: Hearing, seconds: float, why: str) -> Baseline:
    return Baseline(name, titles(hearing.trials)[name], {}, seconds, why=why)


def _inference(trial: TrainConfig) -> InferenceTime:
    """Timed; or without a result, and why."""
    try:
        return time_arm(trial)
    except _TROUBLE as error:
        return InferenceTime(trial.model, trial.strategy, trial.lora_targets, None, why=_why(error))


def _why(error: Exception) -> str:
    """In one line."""
    if is_out_of_memory(error):
        return "out of memory"
    said = one_line(error, 300)
    return f"{said}; install the requirements again" if isinstance(error, ImportError) else said


def _without_result(found: Yardsticks) -> dict[str, list[str]]:
    """What has no result, by why."""
    names: dict[str, list[str]] = {}
    for baseline in found.baselines:
        if baseline.why:
            names.setdefault(baseline.why, []).append(baseline.name)
    for inference in found.inference:
        if inference.why:
            names.setdefault(inference.why, []).append(f"the CPU time of {'-'.join(inference.built)}")
    return names
