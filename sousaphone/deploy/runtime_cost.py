"""Latency, load time and memory of a model in a runtime, measured in a process of its own.

This module imports no library that a runtime needs: the import is part of the measured load time and memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from sousaphone.errors import UserError
from sousaphone.hardware import count_cpus
from sousaphone.runs import schema
from sousaphone.runs.deployment import TITLES, Latency, Runtime
from sousaphone.signals import starts_process

CONFIG = "config.json"  # of a model folder, see `model_folder`
_REPEATS = (10, 100)  # minimum and maximum
_SECONDS = 2.0  # time limit after the minimum of repeats


def measure(folders: Sequence[Path], runtime: Runtime, weights: Path | None = None) -> dict[str, Any]:
    """Measure a model on the CPU of this machine; return the fields precision, latencies, load_seconds and memory_bytes
    of `RuntimeCost`.

    Args:
        folders: model folders, of the members of an ensemble.
        weights: the base weights of adapters, if they are not where they were trained.

    Raises a UserError if the model cannot be loaded, or if the process is killed.
    """
    context = get_context("spawn")  # a forked process would have this one's memory
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, folders, runtime, weights))
    with starts_process():  # the new process is killed below
        process.start()
    try:
        sender.close()
        found: dict[str, Any] | UserError = receiver.recv()
    except EOFError:
        raise UserError(
            f"the process that measures {folders[0]} with {TITLES[runtime]} ended early, perhaps for lack of memory"
        ) from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, UserError):
        raise found
    return found


def _send(sender: Connection, folders: Sequence[Path], runtime: Runtime, weights: Path | None) -> None:
    try:
        sender.send(_measure(folders, runtime, weights))
    except UserError as error:
        sender.send(error)


def _measure(folders: Sequence[Path], runtime: Runtime, weights: Path | None) -> dict[str, Any]:
    begin = time.perf_counter()
    precision, score = _score(folders, runtime, weights, 1)
    load_seconds = time.perf_counter() - begin
    latencies = [_latency(score, 1)]
    memory = psutil.Process().memory_info().rss
    if (threads := count_cpus()) > 1:
        latencies.append(_latency(_score(folders, runtime, weights, threads)[1], threads))
    return {
        "precision": precision,
        "latencies": tuple(latencies),
        "load_seconds": load_seconds,
        "memory_bytes": memory,
    }


def _score(
    folders: Sequence[Path], runtime: Runtime, weights: Path | None, threads: int
) -> tuple[str, Callable[[], object]]:
    """Load a model; return the precision in which it computes, and a function that scores a window of noise."""
    config = schema.read(folders[0] / CONFIG, schema.fields(sample_rate=int, clip_seconds=float))
    samples = round(config["sample_rate"] * config["clip_seconds"])
    wave = np.random.default_rng(0).integers(-(2**14), 2**14, (1, samples), np.int16)
    if runtime == "torch":
        return _torch(folders, weights, threads, wave)
    return "float32", _onnx(folders, runtime, threads, wave * np.float32(1 / 32768))


def _onnx(
    folders: Sequence[Path], runtime: Runtime, threads: int, wave: npt.NDArray[np.float32]
) -> Callable[[], object]:
    from sousaphone.deploy.onnx_session import GRAPHS, OnnxSession

    sessions = [OnnxSession(folder / GRAPHS[runtime], threads) for folder in folders]
    return lambda: [session.logits(wave) for session in sessions]


def _torch(
    folders: Sequence[Path], weights: Path | None, threads: int, wave: npt.NDArray[np.int16]
) -> tuple[str, Callable[[], object]]:
    import torch

    from sousaphone.deploy.loading import load_members
    from sousaphone.deploy.scorers import TorchScorer

    torch.set_num_threads(threads)
    scorer = TorchScorer([member for folder in folders for member in load_members(folder, weights)[1]], "cpu")
    lengths = np.array([wave.shape[1]])
    return scorer.precision, lambda: scorer(wave, lengths)


def _latency(score: Callable[[], object], threads: int) -> Latency:
    score()  # warm-up
    times: list[float] = []
    while len(times) < _REPEATS[0] or (len(times) < _REPEATS[1] and sum(times) < 1000 * _SECONDS):
        begin = time.perf_counter()
        score()
        times.append(1000 * (time.perf_counter() - begin))
    return Latency(threads, float(np.median(times)), float(np.percentile(times, 95)), len(times))
