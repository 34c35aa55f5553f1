"""Decode and resample every clip once, into memory-mapped int16 waveforms that all trials share.

A cache is a directory `CLIPS-RATEhz` with `wave.int16` (all clips, one after the other) and `offsets.npy`. It gets
that name only when it is complete and on disk, so what has the name can be mapped without a second look.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import pandas as pd
import soundfile
import torch
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torchaudio.transforms import Resample

from sousaphone.data.sousa import LABELS, Dataset
from sousaphone.errors import UserError

FORMAT = 1  # raise it whenever the samples or the files of a cache change
_PART = ".part"
# Assumed where the labels give no duration, for the estimate of disk space alone.
_TYPICAL_SECONDS = 6.0

T = TypeVar("T")


class WaveformCache:
    """The waveforms of a data set's clips at one sample rate: clip i is `wave[offsets[i]:offsets[i + 1]]`.

    Attributes:
        sample_rate: Hz.
        wave: int16, all clips one after the other, memory-mapped, read-only.
        offsets: int64 [N + 1], in samples.
    """

    def __init__(self, path: Path, sample_rate: int) -> None:
        """
        Raises:
            FileNotFoundError: there is no cache at `path`.
            ValueError: its files do not fit each other.
        """
        self.path, self.sample_rate = path, sample_rate
        self.offsets: np.ndarray = np.load(path / "offsets.npy")
        self.wave = np.memmap(path / "wave.int16", dtype=np.int16, mode="r")
        if self.offsets[-1] != len(self.wave):
            raise ValueError(f"{path} is damaged: {len(self.wave)} samples instead of {self.offsets[-1]}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __reduce__(self) -> tuple[type[WaveformCache], tuple[Path, int]]:
        # Another process maps the same file; it must never receive the samples themselves.
        return WaveformCache, (self.path, self.sample_rate)


def build_caches(
    dataset: Dataset,
    sample_rates: Iterable[int],
    cache_dir: Path,
    progress: bool = True,
    max_seconds: float | None = None,
) -> dict[int, WaveformCache]:
    """Map the data set's waveforms at each sample rate, after building what is not there.

    Several processes may ask at once: one builds, the others wait and then map.

    Args:
        sample_rates: Hz.
        cache_dir: where caches live, shared by data sets and runs.
        progress: show a bar on stderr where that is a terminal; otherwise a line at start and end.
        max_seconds: keep at most this much of a clip, from its centre.

    Raises:
        UserError: audio that cannot be decoded, is empty or not finite; no space left; cache_dir not writable.
    """
    paths = {rate: cache_dir / f"{_key(dataset, rate, max_seconds)}-{rate}hz" for rate in sorted(set(sample_rates))}
    if not _missing(paths):
        return {rate: WaveformCache(path, rate) for rate, path in paths.items()}
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _locked(cache_dir / ".lock", console):
            for litter in cache_dir.glob(f"*{_PART}"):  # of killed builds: whoever holds the lock is the only builder
                shutil.rmtree(litter)
            missing = _missing(paths)
            if missing:
                _check_space(dataset.clips, missing, cache_dir, max_seconds)
                _build(dataset, missing, console, progress, max_seconds)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space there or choose another cache directory"
        raise UserError(
            f"the waveform cache cannot be written to {cache_dir} ({'disk full' if full else error}); {remedy}"
        ) from None
    return {rate: WaveformCache(path, rate) for rate, path in paths.items()}


def _key(dataset: Dataset, rate: int, max_seconds: float | None) -> str:
    digest = hashlib.sha256(repr((FORMAT, rate, max_seconds)).encode())
    clips = dataset.clips
    for row in zip(clips.audio_path.tolist(), clips.size_bytes.tolist(), clips.modified_ns.tolist(), strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _missing(paths: dict[int, Path]) -> dict[int, Path]:
    """The caches that are not there, or whose files do not fit each other (a damaged disk)."""
    missing = {}
    for rate, path in paths.items():
        try:
            WaveformCache(path, rate)
        except (OSError, ValueError, EOFError):
            missing[rate] = path
    return missing


@contextmanager
def _locked(path: Path, console: Console) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"waiting: another process is building the waveform cache in {path.parent}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_space(clips: pd.DataFrame, rates: Iterable[int], cache_dir: Path, max_seconds: float | None) -> None:
    seconds = clips.duration_sec.fillna(_TYPICAL_SECONDS).clip(upper=max_seconds).sum()
    needed = int(seconds * sum(rates) * 2 * 1.02)
    free = shutil.disk_usage(cache_dir).free
    if needed > free:
        raise UserError(
            f"the waveform cache needs {needed / 1e9:.1f} GB and {cache_dir} has {free / 1e9:.1f} GB free; "
            "free some space, choose another cache directory or a smaller --dataset"
        )


def _build(
    dataset: Dataset, paths: dict[int, Path], console: Console, progress: bool, max_seconds: float | None
) -> None:
    parts = {rate: path.with_name(f"{path.name}.{os.getpid()}{_PART}") for rate, path in paths.items()}

    def decode(audio_path: str) -> dict[int, np.ndarray]:
        mono, source_rate = _read_mono(dataset.root, audio_path, max_seconds)
        return {rate: _to_int16(_resampler(source_rate, rate)(mono)) for rate in paths}

    try:
        with ExitStack() as stack:
            files = {}
            for rate, part in parts.items():
                part.mkdir()
                files[rate] = stack.enter_context((part / "wave.int16").open("wb"))
            offsets = {rate: [0] for rate in paths}
            clips = dataset.clips.audio_path.tolist()
            for waves in _with_progress(_in_threads(decode, clips), len(clips), console, progress, list(paths)):
                for rate, wave in waves.items():
                    files[rate].write(wave.tobytes())
                    offsets[rate].append(offsets[rate][-1] + len(wave))
            for rate, file in files.items():
                _to_disk(file)
                with (parts[rate] / "offsets.npy").open("wb") as offsets_file:
                    np.save(offsets_file, np.array(offsets[rate], dtype=np.int64))
                    _to_disk(offsets_file)
                _sync_directory(parts[rate])
        for rate, path in paths.items():
            shutil.rmtree(path, ignore_errors=True)  # only ever a damaged one
            parts[rate].rename(path)
        _sync_directory(next(iter(paths.values())).parent)
    finally:
        for part in parts.values():
            shutil.rmtree(part, ignore_errors=True)


def _read_mono(root: Path, audio_path: str, max_seconds: float | None) -> tuple[torch.Tensor, int]:
    """The mean of a file's channels, float32 [T], and its sample rate in Hz."""
    remedy = f"copy it again from its source, or remove its row from {LABELS}"
    try:
        with soundfile.SoundFile(root / audio_path) as file:
            rate, frames = file.samplerate, file.frames
            samples = file.read(dtype="float32", always_2d=True)  # [T, channels]
    except soundfile.SoundFileError as error:
        raise UserError(f"{root / audio_path} cannot be decoded ({error}); {remedy}") from None
    if len(samples) < frames:
        raise UserError(f"{root / audio_path} is cut short ({len(samples)} of {frames} samples); {remedy}")
    if not len(samples) or not np.isfinite(samples).all():
        raise UserError(f"{root / audio_path} {'holds NaN or infinity' if len(samples) else 'is empty'}; {remedy}")
    mono = samples.mean(axis=1)
    if max_seconds is not None and len(mono) > (keep := round(max_seconds * rate)):
        start = (len(mono) - keep) // 2
        mono = mono[start : start + keep]
    return torch.from_numpy(np.ascontiguousarray(mono)), rate


@cache
def _resampler(source_rate: int, target_rate: int) -> Resample:
    # Its filter is computed once, where torchaudio.functional.resample would do so for every clip.
    return Resample(source_rate, target_rate)


def _to_int16(wave: torch.Tensor) -> np.ndarray:
    return (wave * 32768).round().clamp(-32768, 32767).to(torch.int16).numpy()


def _in_threads(decode: Callable[[str], T], items: Iterable[str]) -> Iterator[T]:
    """`map(decode, items)` in order, in threads (soundfile and torch release the GIL), a few items ahead."""
    workers = max(2, min(8, os.cpu_count() or 2))
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # new threads inherit it; theirs would otherwise fight over the cores
    pool, ahead = ThreadPoolExecutor(workers), deque[Future[T]]()
    try:
        for item in items:
            ahead.append(pool.submit(decode, item))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)


def _with_progress(waves: Iterable[T], total: int, console: Console, progress: bool, rates: list[int]) -> Iterator[T]:
    title = f"decoding {total:,} clips to {', '.join(f'{rate / 1000:g}' for rate in rates)} kHz"
    if progress and console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            yield from bar.track(waves, total=total, description=title)
        return
    console.print(f"{title}, once for all trials")
    start = time.monotonic()
    yield from waves
    console.print(f"decoded {total:,} clips in {time.monotonic() - start:.0f} s")


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    # On POSIX a rename is on disk only when its directory is.
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
