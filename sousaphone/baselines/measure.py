"""Measure a run's baselines before its trials. Existing results are kept; each new result is written at once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import torch

from sousaphone.baselines.classifiers import EvaluationSetup, measure_baseline, skip_reason, titles
from sousaphone.baselines.latency import distinct_models, time_arm
from sousaphone.config import TrainConfig
from sousaphone.data.dataset import Dataset
from sousaphone.files import atomic_write
from sousaphone.hardware import device_name, is_here
from sousaphone.runs.baseline_results import Baseline, BaselineResults, InferenceTime, TimeKey, predictions_path
from sousaphone.text import Announce, counted, in_words, one_line, progress_bar
from sousaphone.training.out_of_memory import free_memory, is_out_of_memory

# Failures of one measurement that do not concern the trials: device, memory, disk, a weights or waveform file, features
# that are not finite, a missing scikit-learn. Any other exception is a bug and ends the launch.
_EXPECTED = (RuntimeError, MemoryError, OSError, ValueError, ImportError)


def measure_baselines(
    run: Path, trials: Sequence[TrainConfig], dataset: Dataset, announce: Announce
) -> BaselineResults | None:
    """Measure the baselines and CPU times of all planned trials that a run lacks, and write each result at once.

    Results of the same clips and clip length are kept; failed measurements are repeated. A failure is announced and
    stops nothing. Threads and random state are restored. Returns all results, or None if they could not be written.
    """
    firsts: dict[str, TrainConfig] = {}
    for trial in trials:
        firsts.setdefault(trial.model, trial)
    # A cluster may have devices that this machine lacks.
    device = torch.device(trials[0].device if is_here(trials[0].device) else "cpu")
    setup = EvaluationSetup(dataset, firsts, device)
    planned, names = distinct_models(trials), titles(firsts)
    blank = BaselineResults((), (), device_name("cpu"), trials[0].clip_seconds, dataset.fingerprint)
    existing = _existing(run, blank)
    known = {each.key: each for each in existing.inference if each.ms is not None}
    times: dict[TimeKey, InferenceTime] = {}
    for key, trial in planned.items():
        own = InferenceTime.of(vars(trial))
        # One without settings, of an older run, is that of the first trial to which it applies.
        if timed := known.pop(key, None) or known.pop(own.older, None):
            times[key] = replace(timed, settings=own.settings)
    if existing.cpu != blank.cpu and len(times) < len(planned):
        times = {}  # times of different processors cannot be compared
    blank = replace(blank, cpu=existing.cpu if times else blank.cpu)
    scored = {
        each.name: each
        for each in existing.baselines
        if each.name in names and each.scores and predictions_path(run, each.name).is_file()
    }
    for name in names:
        if name not in scored and (why := skip_reason(name, setup)):
            scored[name] = Baseline(name, names[name], {}, 0.0, why=why)

    def results() -> BaselineResults:
        unmeasured = {name: Baseline(name, title, {}, 0.0, why="not measured") for name, title in names.items()}
        baselines = tuple((unmeasured | scored).values())
        return replace(blank, baselines=baselines, inference=tuple(times[key] for key in planned if key in times))

    missing = [name for name in names if name not in scored]
    arms = {key: trial for key, trial in planned.items() if key not in times}
    if missing or arms:
        parts = [counted(len(missing), "baseline")] if missing else []
        work = " and ".join([*parts, *([f"the CPU time of {counted(len(arms), 'model')}"] if arms else [])])
        announce(
            f"measuring {work}: takes about a minute for 1,000 clips and nano models, longer for more "
            "(skip with --no-baselines)"
        )
        start, clips = time.perf_counter(), len(dataset.clips)
        try:
            with progress_bar("baselines and CPU times", len(missing) + len(arms)) as advance:
                setup = replace(setup, progress=lambda done: advance(done / clips))
                for name in missing:
                    scored[name] = _measure(name, setup, run)
                    results().write(run)
                for key, trial in arms.items():
                    times[key] = _time(trial)
                    results().write(run)
                    advance(1.0)
        except OSError as error:
            announce(f"Could not save the baselines to {run} ({error.strerror or error}); continuing without them")
            return None
        finally:
            free_memory(device)
        announce(f"measured {work} in {in_words(time.perf_counter() - start)}")
    found = results()
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for baseline in found.baselines:
        failed[baseline.why].append(baseline.name)
    for inference in found.inference:
        failed[inference.why].append(f"the CPU time of {inference.title}")
    for why, what in failed.items():
        if why:
            announce(f"  no result for {', '.join(what)}: {why}")
    if best := found.best:
        scores = f"test_acc {best.scores['test_acc']:.3f}  test_macro_f1 {best.scores['test_macro_f1']:.3f}"
        announce(f"best baseline by val_macro_f1: {best.name} ({best.title})  {scores}")
    return found


def _existing(run: Path, blank: BaselineResults) -> BaselineResults:
    """The results of an earlier launch; `blank` if they are damaged or of other clips or another clip length."""
    try:
        found = BaselineResults.read(run)
    except (ValueError, OSError):
        return blank
    setting = attrgetter("clip_seconds", "data_fingerprint", "threads")
    return found if found is not None and setting(found) == setting(blank) else blank


def _measure(name: str, setup: EvaluationSetup, run: Path) -> Baseline:
    """Measure a baseline and write its predictions; on failure return the reason instead of scores."""
    start = time.perf_counter()
    try:
        baseline, predictions = measure_baseline(name, setup)
        path = predictions_path(run, name)
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as temporary:
            predictions.to_parquet(temporary)
        return baseline
    except _EXPECTED as error:
        why = _reason(error)
    free_memory(setup.device)  # not in the handler, whose traceback holds tensors
    return Baseline(name, titles(setup.trials)[name], {}, time.perf_counter() - start, why=why)


def _time(trial: TrainConfig) -> InferenceTime:
    """The inference time of an arm; on failure the reason instead."""
    try:
        return time_arm(trial)
    except _EXPECTED as error:
        return InferenceTime.of(vars(trial), why=_reason(error))


def _reason(error: Exception) -> str:
    """An error in one line."""
    if is_out_of_memory(error):
        return "out of memory"
    return one_line(error, 300) + ("; install the requirements again" if isinstance(error, ImportError) else "")
