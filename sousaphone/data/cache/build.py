"""Waveform cache: every clip decoded and resampled once, into memory-mapped int16 files that all trials share.

A cache is a directory `KEY-RATEhz` with `wave.int16` (the concatenated clips), `offsets.npy`, and `root`, the directory
of the data set. Its files have one modification time, so that a later change of one is noticed. It is built under a
temporary name; the next build removes what a killed one has left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from rich.console import Console

from sousaphone.data.cache.decode import in_threads, resampler, to_int16, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.samples import read_samples
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.text import tracked

WAVE, OFFSETS = "wave.int16", "offsets.npy"
FORMAT = 5  # increment when the samples or the files of a cache change
_ROOT = "root"
_NAME = re.compile(r"[0-9a-f]{16}-\d+hz(\.part)?|\.[0-9a-f]{16}-\d+hz\..*\.tmp")  # also temporary names, old and new
# For the estimate of disk space: the duration of clips without one in the labels, and the decay after the last stroke,
# which SOUSA's durations do not include.
_TYPICAL_SECONDS, _DECAY_SECONDS = 6.0, 0.5
_LONG_SECONDS = 600.0  # a longer duration in labels or a header may be wrong, such as one in ms


class WaveformCache:
    """The waveforms of a data set's clips at one sample rate: clip i is `wave[offsets[i]:offsets[i + 1]]`."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        """Raise a FileNotFoundError if there is no cache at `path`, a ValueError if it is damaged."""
        self.path, self.sample_rate = path, sample_rate  # Hz
        self.offsets: np.ndarray = np.load(path / OFFSETS)  # int64 [N + 1], in samples
        self.wave = np.memmap(path / WAVE, dtype=np.int16, mode="r")  # the concatenated clips
        if self.offsets[-1] != len(self.wave):
            raise ValueError(f"{len(self.wave)} samples instead of {self.offsets[-1]}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[type[WaveformCache], tuple[Path, int]]:
        # Pickle the path: another process maps the same file.
        return WaveformCache, (self.path, self.sample_rate)


def build_caches(
    dataset: Dataset, sample_rates: Iterable[int], cache_dir: Path, progress: bool = True
) -> dict[int, WaveformCache]:
    """Map the data set's waveforms at each sample rate; build missing or damaged caches first.

    If several processes call this at once, one builds and the others wait.

    Args:
        cache_dir: directory of caches, shared by data sets and runs.
        progress: show a progress bar on stderr if it is a terminal.

    Raises:
        UserError: audio that is undecodable, empty or not finite; no space left; cache_dir not writable.
    """
    key = _key(dataset)
    paths = {rate: cache_dir / f"{key}-{rate}hz" for rate in sorted(set(sample_rates))}
    if _missing(paths):
        with _locked(cache_dir) as console:
            for part in cache_dir.glob("*hz.*"):  # of a killed build, since the lock excludes a running one
                if _NAME.fullmatch(part.name):
                    shutil.rmtree(part)
            if missing := _missing(paths, console):
                _check_space(dataset.clips, missing, cache_dir)
                _build(dataset, missing, console, progress)
    return {rate: WaveformCache(path, rate) for rate, path in paths.items()}


def clear_caches(cache_dir: Path, root: Path | None = None) -> list[Path]:
    """Remove caches (only of the data set in `root`, if given) and the remains of killed builds; return their paths.

    A running build is waited for.
    """
    if not cache_dir.is_dir():
        return []
    with _locked(cache_dir):
        removed = [path for path in sorted(cache_dir.iterdir()) if path.is_dir() and _NAME.fullmatch(path.name)]
        if root is not None:
            name = os.fsencode(root.resolve())
            removed = [path for path in removed if (path / _ROOT).is_file() and (path / _ROOT).read_bytes() == name]
        for path in removed:
            shutil.rmtree(path)
    return removed


def _key(dataset: Dataset) -> str:
    """Hash the path, size and modification time of the clips' files, in order."""
    clips = dataset.clips
    digest = hashlib.sha256(repr(FORMAT).encode())
    digest.update("\n".join(clips.audio_path.tolist()).encode())
    for column in (clips.size_bytes, clips.modified_ns):
        digest.update(column.to_numpy(np.int64).tobytes())
    return digest.hexdigest()[:16]


def _missing(paths: dict[int, Path], console: Console | None = None) -> dict[int, Path]:
    """Select the caches that are missing or damaged; report damaged ones on the console."""
    missing = {}
    for rate, path in paths.items():
        try:
            if len({(path / name).stat().st_mtime_ns for name in (WAVE, OFFSETS, _ROOT)}) > 1:
                raise ValueError("changed after its build")
            WaveformCache(path, rate)
        except (OSError, ValueError, EOFError) as error:
            missing[rate] = path
            if console is not None and path.exists():
                console.print(f"{path} is damaged ({error}); building it again")
    return missing


@contextmanager
def _locked(cache_dir: Path) -> Iterator[Console]:
    """Lock the directory and yield a console for messages; other processes wait."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / ".lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            console.print(f"waiting: another process is building the waveform cache in {cache_dir}")
            held = lock.acquire()
        with held:
            yield console
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise UserError(
            f"the waveform cache cannot be written to {cache_dir} ({'disk full' if full else error}); "
            "free space there or set SOUSAPHONE_CACHE to another directory"
        ) from None


def _check_space(clips: pd.DataFrame, paths: dict[int, Path], cache_dir: Path) -> None:
    known = clips.duration_sec.replace([np.inf, -np.inf], np.nan)
    seconds = (known.fillna(_TYPICAL_SECONDS) + _DECAY_SECONDS).sum()
    needed = int(seconds * sum(paths) * 2 * 1.02)
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        doubt = ""
        if known.max() > _LONG_SECONDS:
            longest = f"{clips.audio_path[known.idxmax()]} has {known.max():,.0f} s"
            doubt = f". {longest} by its label or header; correct it if that is wrong (durations are in s)"
        raise UserError(
            f"the waveform cache needs {needed / 1e9:.1f} GB and {cache_dir} has {free / 1e9:.1f} GB free; "
            f"free space, set SOUSAPHONE_CACHE to another directory, or give a smaller --dataset{doubt}"
        )


def _build(dataset: Dataset, paths: dict[int, Path], console: Console, progress: bool) -> None:
    total = len(dataset.clips)
    title = f"decoding {total:,} clips to {', '.join(f'{rate / 1000:g}' for rate in paths)} kHz"

    def decode(clip: tuple[str, Path | BytesIO]) -> dict[int, np.ndarray]:
        samples, source_rate = read_samples(*clip)
        mono = torch.from_numpy(np.ascontiguousarray(to_mono(samples)))
        return {rate: to_int16(resampler(source_rate, rate)(mono)) for rate in paths}

    lengths: dict[int, list[int]] = {rate: [0] for rate in paths}
    with ExitStack() as stack:
        parts = {rate: stack.enter_context(atomic_write(path)) for rate, path in paths.items()}
        for part in parts.values():
            part.mkdir()
        files = {rate: stack.enter_context((part / WAVE).open("wb")) for rate, part in parts.items()}
        decoded = in_threads(decode, open_clips(dataset.root, dataset.clips.audio_path.tolist()))
        if progress:
            decoded = tracked(decoded, title, total, f"{title}, once for all trials", f"decoded {total:,} clips")
        else:
            console.print(f"{title}, once for all trials")
        for waves in decoded:
            for rate, wave in waves.items():
                files[rate].write(wave.data)
                lengths[rate].append(len(wave))
        now = time.time_ns()
        for rate, part in parts.items():
            files[rate].close()
            np.save(part / OFFSETS, np.cumsum(lengths[rate], dtype=np.int64))
            (part / _ROOT).write_bytes(os.fsencode(dataset.root.resolve()))
            for path in part.iterdir():
                os.utime(path, ns=(now, now))
            shutil.rmtree(paths[rate], ignore_errors=True)  # a damaged one
