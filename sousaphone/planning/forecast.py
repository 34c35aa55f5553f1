"""How long a sweep will take and how much it needs, from the speed of its arms, before it begins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.planning.schedule import clock, schedule
from sousaphone.planning.throughput import Speed, epochs_left, train_steps, workload
from sousaphone.rudiments import SLUGS
from sousaphone.runs.trial_record import TrialRecord
from sousaphone.text import as_option, counted, in_words

# A limit that is suggested is longer than the forecast by so much, and then a multiple of what one would type: up to
# the first number of seconds, of the second.
_MARGIN = 1.04
_TYPED = ((600, 60), (3_600, 300), (3 * 3_600, 900), (10 * 3_600, 1_800), (math.inf, 3_600))
_MB = 2**20


@dataclass(frozen=True)
class TrialForecast:
    """One trial; times in seconds, None where its arm's speed is unknown."""

    trial: TrainConfig
    done: int  # epochs trained in earlier starts, which took `used` seconds
    used: float
    epoch: float | None  # of an epoch with its evaluation
    left: float | None  # until it has trained and scored its test clips
    end: float | None  # from now; None also where it waits for a trial of unknown length
    memory_mb: float | None  # peak of its process, on a GPU of its share of the device; None: unknown


@dataclass(frozen=True)
class Forecast:
    """All trials that are to be trained, in the order in which they begin."""

    trials: tuple[TrialForecast, ...]
    at_once: int
    seconds: float  # of the sweep; a lower bound unless `complete`
    complete: bool  # whether every trial's time is known
    disk_mb: float  # what the trials leave behind, at most
    resumed: bool  # the run has begun, so its epochs can no longer be chosen


@dataclass(frozen=True)
class Room:
    """What there is."""

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
    """
    Args:
        trials: those to be trained, in the sweep's order; one at least.
        clips: by split.
        speeds, trainable: what `throughput.time_arms` gives, and parameters that train, by `workload(trial)`.
        at_once: trials at a time.
        records: what earlier starts left, by trial; None: the run begins now.
    """
    forecasts = []
    costs = [_seconds(trial, clips, speeds.get(workload(trial))) or _pace(trial, records or {}) for trial in trials]
    kept = [(records or {}).get(trial.trial_id) for trial in trials]
    needs = [
        None if cost is None else epochs_left(trial, record) * cost[0] + cost[1]
        for trial, cost, record in zip(trials, costs, kept, strict=True)
    ]
    ends = schedule([need or 0.0 for need in needs], [0.0] * at_once)
    disk = 0.0
    for index, (trial, cost, record, need) in enumerate(zip(trials, costs, kept, needs, strict=True)):
        # Whoever begins at once waits for nobody.
        certain = index < at_once or None not in needs[:index]
        speed = speeds.get(workload(trial))
        forecast = TrialForecast(
            trial,
            done=trial.epochs - epochs_left(trial, record),
            used=record.seconds if record else 0.0,
            epoch=cost[0] if cost else None,
            left=need,
            end=ends[index] if need is not None and certain else None,
            memory_mb=speed.memory_mb if speed else None,
        )
        forecasts.append(forecast)
        disk += _disk_mb(trainable.get(workload(trial), 0), clips["test"], begun=forecast.done > 0)
    return Forecast(
        tuple(forecasts),
        at_once=min(at_once, len(trials)),
        seconds=max(ends, default=0.0),
        complete=None not in needs,
        disk_mb=disk,
        resumed=records is not None,
    )


def _seconds(trial: TrainConfig, clips: Mapping[str, int], speed: Speed | None) -> tuple[float, float] | None:
    """Of an epoch, and of the test."""
    if speed is None:
        return None
    most = math.inf if trial.limit_eval_batches is None else trial.limit_eval_batches * trial.eval_batch
    steps = train_steps(trial, clips["train"])
    trained = min(clips["train"], steps * trial.micro_batch * trial.accumulation)
    # Each epoch also scores as many training clips as validation has.
    scored = min(clips["train"], clips["validation"], most) + min(clips["validation"], most)
    return trained / speed.train + scored / speed.evaluation, min(clips["test"], most) / speed.evaluation


def _pace(trial: TrainConfig, records: Mapping[str, TrialRecord]) -> tuple[float, float] | None:
    """The same from the epochs that the arm's trials have trained; the test, a few hundredths of one, is left out."""
    same = [record for name, record in records.items() if name.rpartition("-s")[0] == trial.arm_name]
    paces = [row["wall_seconds"] for record in same for row in record.history]
    return (sum(paces) / len(paces), 0.0) if paces else None


def _disk_mb(trainable: int, test_clips: int, begun: bool) -> float:
    """Two checkpoints and the one being written, each of the weights now and at their best and of Adam's two moments;
    the adapter, the predictions, the logs. A trial that has begun has its two checkpoints already."""
    checkpoints = (1 if begun else 3) * 16 * trainable
    return (checkpoints + 4 * trainable + test_clips * len(SLUGS) * 8) / _MB + 0.2


def describe(forecast: Forecast) -> list[str]:
    """The forecast as a table and two lines below it; of times that nobody knows there is no table."""
    known = any(one.epoch is not None for one in forecast.trials)
    rows = [("trial", "epoch", "left" if forecast.resumed else "whole", "ends about")]
    for one in forecast.trials:
        epoch = "not timed" if one.epoch is None else _time(one.epoch)
        left, end = "" if one.left is None else _time(one.left), "" if one.end is None else clock(one.end)
        rows.append((one.trial.trial_id, epoch, left, end))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if forecast.complete:
        early = any(one.trial.patience < one.trial.epochs for one in forecast.trials)
        lines.append(
            f"about {_time(forecast.seconds)} of training, {_at_a_time(forecast.at_once)}, until about "
            f"{clock(forecast.seconds)}{'; less where a trial stops early' if early else ''}"
        )
    elif forecast.seconds:
        lines.append(f"at least {_time(forecast.seconds)} of training, {_at_a_time(forecast.at_once)}")
    memory = [one.memory_mb for one in forecast.trials if one.memory_mb is not None]
    needed = f"memory: up to {_size(max(memory))} a trial; " if memory else ""
    return [*(lines if known else ()), f"{needed}disk: up to {_size(forecast.disk_mb)}"]


def refusals(forecast: Forecast, trial_limit: float | None, sweep_limit: float | None, room: Room) -> list[str]:
    """Why the sweep would not come to its end, a line each; none if it would.

    Args:
        trial_limit: seconds that a trial may take, earlier starts counted in; None: any.
        sweep_limit: seconds from now that the sweep may take; None: any.
    """
    lines = [] if trial_limit is None else list(_cut_trials(forecast, trial_limit))
    if sweep_limit is not None and forecast.seconds > sweep_limit:
        fewer = "" if forecast.resumed else " fewer --epochs,"
        least, more = ("", "") if forecast.complete else ("at least ", " or more")
        lines.append(
            f"the sweep needs {least}about {in_words(forecast.seconds)} at {_at_a_time(forecast.at_once)}, "
            f"--time-limit is {in_words(sweep_limit)}: it would not be done. "
            f"Pass --time-limit {_typed(forecast.seconds)}{more},{fewer} or --yes to be cut."
        )
    lines += _lack_of_memory(forecast, room)
    if forecast.disk_mb > room.disk_mb:
        lines.append(
            f"the run needs up to {_size(forecast.disk_mb)} on disk, {_size(room.disk_mb)} are free. "
            "Free some, or give a --storage with more."
        )
    return lines


def _cut_trials(forecast: Forecast, limit: float) -> Iterator[str]:
    """For each backbone whose longest trial is longer than the limit: what the limit does to it, and what to do."""
    for model in dict.fromkeys(one.trial.model for one in forecast.trials):
        own = (one for one in forecast.trials if one.trial.model == model)
        one = max(own, key=lambda one: one.used + (one.left or 0.0))
        if one.epoch is None or one.left is None or one.used + one.left <= limit:
            continue
        epochs, whole = one.trial.epochs, one.used + one.left
        finished = one.done + max(0, math.floor((limit - one.used) / one.epoch))
        where = f"stop in epoch {min(finished + 1, epochs)} of {epochs}" if finished else "not finish its first epoch"
        test = one.left - (epochs - one.done) * one.epoch
        fitting = math.floor((limit / _MARGIN - test) / one.epoch)
        fewer = f" --epochs {fitting}," if 0 < fitting < epochs and not forecast.resumed else ""
        yield (
            f"{REGISTRY[model].title} needs about {in_words(whole)}, the limit is {in_words(limit)}: it would {where}. "
            f"Pass --trial-time-limit {_typed(whole)},{fewer} or --yes to be cut."
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
    where, whose = ("the GPU", "GPU memory") if on_gpu else ("this machine", "memory")
    if fits:
        remedy = f"--gpus-per-trial {math.floor(100 / fits) / 100:g}" if on_gpu else f"--max-concurrent {fits}"
    elif largest.micro_batch > 1:
        remedy = f"--set micro_batch={largest.micro_batch // 2} accumulation={2 * largest.accumulation}"
    else:
        remedy = f"--models without {largest.model}"
    yield (
        f"{_at_a_time(len(most))} need{'s' if len(most) == 1 else ''} about {_size(sums[-1])} of {whose}, {where} has "
        f"{_size(room.memory_mb)}. Pass {remedy}."
    )


def _typed(seconds: float) -> str:
    """A limit for what takes so long: a little more, and round."""
    wanted = seconds * _MARGIN
    step = next(step for top, step in _TYPED if wanted <= top)
    return as_option(math.ceil(wanted / step) * step)


def _time(seconds: float) -> str:
    return in_words(seconds) if seconds >= 1 else "< 1 s"


def _at_a_time(trials: int) -> str:
    return f"{counted(trials, 'trial')} at a time"


def _size(megabytes: float) -> str:
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1000 else f"{math.ceil(megabytes)} MB"
