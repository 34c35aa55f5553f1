"""Forecast of a sweep's time, memory and disk space from the measured speed of its arms."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig, arm_of
from sousaphone.planning.schedule import clock, schedule
from sousaphone.planning.throughput import Speed, epochs_left, train_steps, workload
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import as_option, counted, in_words

# Suggested limits exceed the forecast by this factor, and are then rounded up: (up to this limit, to a multiple of), s.
_MARGIN = 1.04
_ROUNDING = ((600, 60), (3_600, 300), (3 * 3_600, 900), (10 * 3_600, 1_800), (math.inf, 3_600))
_MB = 2**20
_TYPICAL_SECONDS = 6.0  # length of a clip, for the number of windows that cover it


@dataclass(frozen=True)
class TrialForecast:
    """Forecast of a trial; times in seconds, None if its arm's speed is unknown."""

    trial: TrainConfig
    done: int  # epochs trained in earlier starts
    used: float  # seconds of earlier starts
    epoch: float | None  # time of an epoch, evaluation included
    left: float | None  # time left, test included
    end: float | None  # time until the end; None also behind a trial of unknown length
    memory_mb: float | None  # peak of its process, on a GPU of its device memory; None: unknown


@dataclass(frozen=True)
class Forecast:
    """Forecast of the trials to train, in the order of their start."""

    trials: tuple[TrialForecast, ...]
    at_once: int
    seconds: float  # of the sweep; a lower bound unless `complete`
    complete: bool  # whether every trial's time is known
    disk_mb: float  # maximum size of the trials' files
    resumed: bool  # whether the run exists, so that its epochs are fixed


@dataclass(frozen=True)
class Room:
    """Available memory and disk space."""

    memory_mb: float  # of the machine; of one GPU, if trials train there
    sharing: int  # trials at a time in that memory
    disk_mb: float  # free where the run is written


def predict(
    trials: Sequence[TrainConfig],
    clips: Mapping[str, int],
    speeds: Mapping[TrainConfig, Speed | None],
    trainable: Mapping[TrainConfig, int],
    at_once: int,
    records: Mapping[str, TrialRecord] | None = None,
) -> Forecast:
    """Forecast a sweep of at least one trial, in the order of `trials`, `at_once` at a time.

    `clips` are the numbers of clips by split, `speeds` is the result of `throughput.time_arms`, and `trainable` has the
    number of trainable parameters by `workload(trial)`; `records` of earlier starts are None for a new run.
    """
    earlier = [(records or {}).get(trial.trial_id) for trial in trials]
    costs = [_seconds(trial, clips, speeds.get(workload(trial))) or _pace(trial, records or {}) for trial in trials]
    needs = [
        None if cost is None else epochs_left(trial, record) * cost[0] + cost[1]
        for trial, cost, record in zip(trials, costs, earlier, strict=True)
    ]
    ends = schedule([need or 0.0 for need in needs], [0.0] * at_once)
    forecasts, disk = [], 0.0
    for index, (trial, cost, record, need) in enumerate(zip(trials, costs, earlier, needs, strict=True)):
        certain = index < at_once or None not in needs[:index]  # the first trials wait for no others
        speed, done = speeds.get(workload(trial)), trial.epochs - epochs_left(trial, record)
        forecasts.append(
            TrialForecast(
                trial,
                done=done,
                used=record.seconds if record else 0.0,
                epoch=cost[0] if cost else None,
                left=need,
                end=ends[index] if need is not None and certain else None,
                memory_mb=speed.memory_mb if speed else None,
            )
        )
        scored = clips["validation"] + clips["test"]
        disk += _disk_mb(trainable.get(workload(trial), 0), scored, begun=done > 0)
    return Forecast(
        tuple(forecasts),
        at_once=min(at_once, len(trials)),
        seconds=max(ends, default=0.0),
        complete=None not in needs,
        disk_mb=disk,
        resumed=records is not None,
    )


def _seconds(trial: TrainConfig, clips: Mapping[str, int], speed: Speed | None) -> tuple[float, float] | None:
    """Return the seconds of an epoch and of the scores at the end."""
    if speed is None:
        return None
    most = math.inf if trial.limit_eval_batches is None else trial.limit_eval_batches * trial.eval_batch
    trained = min(clips["train"], train_steps(trial, clips["train"]) * trial.micro_batch * trial.accumulation)
    # Each epoch also scores as many training clips as there are validation clips.
    scored = min(clips["train"], clips["validation"], most) + min(clips["validation"], most)
    # At the end, the centre of each clip and the windows that cover it, half a window apart.
    windows = math.ceil(max(0.0, _TYPICAL_SECONDS / trial.clip_seconds - 1) * 2) + 1
    final = (1 + windows if windows > 1 else 1) * sum(min(clips[split], most) for split in ("validation", "test"))
    return trained / speed.train + scored / speed.evaluation, final / speed.evaluation


def _pace(trial: TrainConfig, records: Mapping[str, TrialRecord]) -> tuple[float, float] | None:
    """Return the same from finished epochs of trials that differ in seed and tag alone, without the scores at the end,
    which take less than an epoch."""
    arm = arm_of(dataclasses.asdict(trial))._replace(tag="")
    alike = [record for record in records.values() if arm_of(record.config)._replace(tag="") == arm]
    seconds = [row.get("wall_seconds") or 0.0 for record in alike for row in record.history]
    return (sum(seconds) / len(seconds), 0.0) if seconds else None


def _disk_mb(trainable: int, scored: int, begun: bool) -> float:
    """Return the disk space of a trial: checkpoints, adapter, predictions of the scored clips, and logs.

    There are two checkpoints plus one being written, each with the current and best weights and Adam's two moments. A
    trial that has begun has its two checkpoints already.
    """
    checkpoints = (1 if begun else 3) * 16 * trainable
    return (checkpoints + 4 * trainable + scored * len(SLUGS) * 2 * 8) / _MB + 0.2


def describe(forecast: Forecast, by_trial: bool = True) -> list[str]:
    """Return the forecast as a table of times, unless all are unknown, and lines with the totals."""
    lines = []
    if any(one.epoch is not None for one in forecast.trials):
        rows = [("trial", "epoch", "left" if forecast.resumed else "total", "ends about")]
        for one in forecast.trials:
            epoch = "not timed" if one.epoch is None else _time(one.epoch)
            left, end = "" if one.left is None else _time(one.left), "" if one.end is None else clock(one.end)
            rows.append((one.trial.trial_id, epoch, left, end))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += table if by_trial else []
        total = f"{_time(forecast.seconds)} of training, {_at_a_time(forecast.at_once)}"
        if forecast.complete:
            early = any(one.trial.patience < one.trial.epochs for one in forecast.trials)
            less = "; less if a trial stops early" if early else ""
            lines.append(f"about {total}, until about {clock(forecast.seconds)}{less}")
        elif forecast.seconds:
            lines.append(f"at least {total}")
    memory = [one.memory_mb for one in forecast.trials if one.memory_mb is not None]
    needed = f"memory: up to {_size(max(memory))} per trial; " if memory else ""
    return [*lines, f"{needed}disk: up to {_size(forecast.disk_mb)}"]


def refusals(forecast: Forecast, trial_limit: float | None, sweep_limit: float | None, room: Room) -> list[str]:
    """Return the reasons why the sweep would exceed its limits, the memory or the disk, one line each.

    Limits are in seconds, of a trial with its earlier starts and of the sweep from now; None: no limit.
    """
    lines = [] if trial_limit is None else list(_cut_trials(forecast, trial_limit))
    if sweep_limit is not None and forecast.seconds > sweep_limit:
        fewer = "" if forecast.resumed else " fewer --epochs,"
        least, more = ("", "") if forecast.complete else ("at least ", " or more")
        lines.append(
            f"the sweep needs {least}about {in_words(forecast.seconds)} with {_at_a_time(forecast.at_once)}, but "
            f"--time-limit is {in_words(sweep_limit)}. "
            f"Pass --time-limit {_suggest(forecast.seconds)}{more},{fewer} or --yes to start anyway."
        )
    lines += _lack_of_memory(forecast, room)
    if forecast.disk_mb > room.disk_mb:
        lines.append(
            f"the run needs up to {_size(forecast.disk_mb)} on disk, but only {_size(room.disk_mb)} are free. "
            "Free some space, or give another --storage."
        )
    return lines


def _cut_trials(forecast: Forecast, limit: float) -> Iterator[str]:
    """Yield a line for each backbone whose longest trial exceeds the limit."""
    for model in dict.fromkeys(one.trial.model for one in forecast.trials):
        own = (one for one in forecast.trials if one.trial.model == model)
        one = max(own, key=lambda one: one.used + (one.left or 0.0))
        if one.epoch is None or one.left is None or one.used + one.left <= limit:
            continue
        epochs, total = one.trial.epochs, one.used + one.left
        finished = one.done + max(0, math.floor((limit - one.used) / one.epoch))
        where = f"stop in epoch {min(finished + 1, epochs)} of {epochs}" if finished else "not finish its first epoch"
        test = one.left - (epochs - one.done) * one.epoch
        fitting = math.floor((limit / _MARGIN - test) / one.epoch)
        fewer = f" --epochs {fitting}," if 0 < fitting < epochs and not forecast.resumed else ""
        yield (
            f"{REGISTRY[model].title} needs about {in_words(total)}, but the limit is {in_words(limit)}: it would "
            f"{where}. Pass --trial-time-limit {_suggest(total)},{fewer} or --yes to start anyway."
        )


def _lack_of_memory(forecast: Forecast, room: Room) -> Iterator[str]:
    known = [(one.memory_mb, one.trial) for one in forecast.trials if one.memory_mb is not None]
    most = sorted(known, key=lambda pair: -pair[0])[: room.sharing]
    sums = list(itertools.accumulate(memory for memory, _ in most))
    if not sums or sums[-1] <= room.memory_mb:
        return
    fits = sum(needed <= room.memory_mb for needed in sums)
    largest = most[0][1]
    on_gpu = largest.device == "cuda"
    if fits:
        remedy = f"--gpus-per-trial {math.floor(100 / fits) / 100:g}" if on_gpu else f"--max-concurrent {fits}"
    elif largest.micro_batch > 1:
        remedy = f"--set micro_batch={largest.micro_batch // 2} accumulation={2 * largest.accumulation}"
    else:
        remedy = f"--models without {largest.model}"
    yield (
        f"{_at_a_time(len(most))} need{'s' if len(most) == 1 else ''} about {_size(sums[-1])} of "
        f"{'GPU memory, but the GPU' if on_gpu else 'memory, but this machine'} has {_size(room.memory_mb)}. "
        f"Pass {remedy}."
    )


def _suggest(seconds: float) -> str:
    """Return a rounded limit, with a margin, for a duration."""
    limit = seconds * _MARGIN
    step = next(step for top, step in _ROUNDING if limit <= top)
    return as_option(math.ceil(limit / step) * step)


def _time(seconds: float) -> str:
    return in_words(seconds) if seconds >= 1 else "< 1 s"


def _at_a_time(trials: int) -> str:
    return f"{counted(trials, 'trial')} at a time"


def _size(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1000 else f"{math.ceil(megabytes)} MB"
