"""Measure a run's yardsticks before its trials: what is there already is kept, and the rest is written as it comes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import torch

from sousaphone.baselines.classifiers import Hearing, measure_baseline, skipped, titles
from sousaphone.baselines.latency import models, time_arm
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name, is_here
from sousaphone.runs.baseline_results import Baseline, BaselineResults, InferenceTime, predictions_path
from sousaphone.text import Announce, counted, in_words, one_line, progress_bar
from sousaphone.training.out_of_memory import free_memory, is_out_of_memory

# What may go wrong with one yardstick and leave the trials as they are: the device, its memory, the disk, a weights or
# waveform file, features that tell nothing, scikit-learn not installed. Anything else is a defect and ends the launch.
_TROUBLE = (RuntimeError, MemoryError, OSError, ValueError, ImportError)


def measure_baselines(
    run: Path, trials: Sequence[TrainConfig], dataset: Dataset, announce: Announce
) -> BaselineResults | None:
    """Measure what a run lacks of its yardsticks; each is written as it comes.

    Those with a result are kept, if they are of the same clips and seconds; those without one are tried again. One
    that cannot be measured says why and stops nothing. Threads and random state are left as they were.

    Args:
        run: the run's directory.
        trials: all that are planned.
        dataset: the clips that they are drawn, of every split.

    Returns:
        All of the run's; None if the disk takes none.
    """
    firsts: dict[str, TrainConfig] = {}
    for trial in trials:
        firsts.setdefault(trial.model, trial)
    # A device that only a cluster's other machines have is none to measure on.
    device = torch.device(trials[0].device if is_here(trials[0].device) else "cpu")
    hearing = Hearing(dataset, firsts, device)
    planned, names = models(trials), list(titles(firsts))
    blank = BaselineResults((), (), device_name("cpu"), trials[0].clip_seconds, dataset.fingerprint)
    there = _there(run, blank)
    times = {each.built: each for each in there.inference if each.built in planned and each.ms is not None}
    if there.cpu != blank.cpu and len(times) < len(planned):
        times = {}  # of two processors' times none could be compared
    blank = replace(blank, cpu=there.cpu if times else blank.cpu)
    scored = {each.name: each for each in there.baselines if each.name in names and _is_whole(run, each)}
    for name in names:
        if name not in scored and (why := skipped(name, hearing)):
            scored[name] = _without(name, hearing, 0.0, why)

    def found() -> BaselineResults:
        baselines = tuple(scored[name] for name in names if name in scored)
        return replace(blank, baselines=baselines, inference=tuple(times[built] for built in planned if built in times))

    lacking = [name for name in names if name not in scored]
    arms = [trial for built, trial in planned.items() if built not in times]
    if lacking or arms:
        parts = [counted(len(lacking), "baseline")] if lacking else []
        work = " and ".join([*parts, *([f"the CPU time of {counted(len(arms), 'arm')}"] if arms else [])])
        announce(
            f"measuring {work} to hold the trials against: seconds for 1,000 clips and nano models, minutes for more "
            "(--no-baselines leaves it out)"
        )
        began, clips = time.perf_counter(), len(dataset.clips)
        try:
            with progress_bar("baselines and CPU times", len(lacking) + len(arms)) as advance:
                telling = replace(hearing, heard=lambda heard: advance(heard / clips))
                for name in lacking:
                    scored[name] = _baseline(name, telling, run)
                    found().write(run)
                for trial in arms:
                    timed = _inference(trial)
                    times[timed.built] = timed
                    found().write(run)
                    advance(1.0)
        except OSError as error:
            announce(f"they cannot be kept in {run} ({error.strerror or error}); the trials go on without them")
            return None
        finally:
            free_memory(device)
        announce(f"measured {work} in {in_words(time.perf_counter() - began)}")
    for why, which in _without_result(found()).items():
        announce(f"  without a result: {', '.join(which)} ({why})")
    if best := found().best:
        scores = f"test_acc {best.scores['test_acc']:.3f}  test_macro_f1 {best.scores['test_macro_f1']:.3f}"
        announce(f"best baseline by val_macro_f1: {best.name} ({best.title})  {scores}")
    return found()


def _there(run: Path, blank: BaselineResults) -> BaselineResults:
    """What an earlier launch has measured; nothing if that is damaged, or of other clips or seconds."""
    try:
        found = BaselineResults.read(run)
    except (ValueError, OSError):
        return blank
    of = attrgetter("clip_seconds", "data_fingerprint", "threads")
    return found if found is not None and of(found) == of(blank) else blank


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


def _without_result(found: BaselineResults) -> dict[str, list[str]]:
    """What has no result, by why."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    for baseline in found.baselines:
        names[baseline.why].append(baseline.name)
    for inference in found.inference:
        names[inference.why].append(f"the CPU time of {'-'.join(inference.built)}")
    return {why: which for why, which in names.items() if why}
