"""Measure the waveform cache: its build against plain decoding, and opening, batches and memory by number of clips.

    python tests/benchmarks/cache.py [--source DIR] [--scratch DIR] [--sizes 1000 10000 100000]

Run it on an idle machine. The target of the build is 0.8 of libsndfile's own rate on the same cores. Apart from the
table of labels, the rest should not depend on the number of clips.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import soundfile
import torch

from sousaphone.data.batches import ClipSet
from sousaphone.data.cache.build import OFFSETS, WAVE, WaveformCache, build_caches
from sousaphone.data.cache.decode import in_threads
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.synthetic.generate import generate

RATE, SECONDS, BATCH, BATCHES = 16_000, 5.0, 32, 20  # 1,000 clips have 25 training batches
REPEATS = 3
BUILD_CLIPS = 2_000  # a smaller data set is repeated, so that the fixed cost of a build does not matter


def build_rates(source: Path, scratch: Path) -> None:
    """Print clips per second and processor time per clip, the best of several rounds in turn."""
    dataset = read_dataset(source)
    table = pd.concat([dataset.clips] * -(-BUILD_CLIPS // len(dataset.clips)), ignore_index=True)
    dataset = Dataset(dataset.root, table[:BUILD_CLIPS])
    paths = dataset.clips.audio_path.tolist()
    best: dict[str, tuple[float, float]] = {}

    def plain() -> None:
        clips = open_clips(dataset.root, paths)
        deque(in_threads(lambda clip: soundfile.read(clip[1], dtype="float32"), clips), maxlen=0)

    def build(*rates: int) -> None:
        build_caches(dataset, rates, scratch / "cache", progress=False)

    methods = {
        "plain libsndfile": plain,
        "build, 16 kHz": lambda: build(16_000),
        "build, 16, 32 and 48 kHz": lambda: build(16_000, 32_000, 48_000),
    }
    for _ in range(REPEATS):
        for name, method in methods.items():
            shutil.rmtree(scratch / "cache", ignore_errors=True)
            wall, cpu = time.perf_counter(), time.process_time()
            method()  # returns when the cache is on disk
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            least = best.get(name, (wall, cpu))
            best[name] = min(wall, least[0]), min(cpu, least[1])
    seconds = dataset.clips.duration_sec.mean()
    print(f"{len(paths)} clips of {seconds:.1f} s on average, {soundfile.info(dataset.root / paths[0]).subtype}")
    base = best["plain libsndfile"]
    for name, (wall, cpu) in best.items():
        print(
            f"{name:<26} {len(paths) / wall:6.0f} clips/s ({base[0] / wall:.2f} of plain)   "
            f"{1000 * cpu / len(paths):5.2f} ms of processor time per clip ({base[1] / cpu:.2f})"
        )


def silent_clips(clips: int, path: Path) -> pd.DataFrame:
    """The label table of a data set; its cache of silence (a sparse file) is created in `path` unless it exists."""
    names = [f"player{i % 100:03d}_rudiment_{i:07d}_FluidR3_GM_practice_room" for i in range(clips)]
    table = pd.DataFrame({"sample_id": names, "audio_path": [f"audio/rudiment/{name}.flac" for name in names]})
    table["label"] = np.arange(clips) % 40
    table["split"] = np.where(np.arange(clips) % 10 < 8, "train", "test")
    table["duration_sec"], table["size_bytes"] = SECONDS, np.arange(clips)
    table["modified_ns"] = np.arange(clips) + 10**18
    if not path.exists():
        path.mkdir()
        samples = round(SECONDS * RATE)
        np.save(path / OFFSETS, np.arange(clips + 1, dtype=np.int64) * samples)
        with (path / WAVE).open("wb") as file:
            file.truncate(2 * clips * samples)
    return table


def megabytes() -> tuple[float, float]:
    """Resident memory of this process: without and with the pages of mapped files, which the system can reclaim."""
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / 1e6, memory.rss / 1e6


def best_of(function: Callable[[], object]) -> float:
    """Seconds of the fastest of several calls."""
    spent = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return min(spent)


def serve(clips: int, scratch: Path) -> dict[str, float]:
    path = scratch / f"{clips}-clips"
    table = silent_clips(clips, path)
    torch.set_num_threads(1)
    before, _ = megabytes()
    cache = WaveformCache(path, RATE)
    opening = best_of(lambda: WaveformCache(path, RATE))
    start = time.perf_counter()
    clip_set = ClipSet(cache, table, "train", 2.5, torch.device("cpu"), seed=0)
    index = time.perf_counter() - start
    opened, _ = megabytes()
    batches = clip_set.training_batches(BATCH, epoch=0)
    next(batches)  # shuffles
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    rate = BATCHES / (time.perf_counter() - start)
    own, total = megabytes()
    return {
        "open": 1e3 * opening,
        "clip_set": 1e3 * index,
        "batches": rate,
        "opened_mb": opened - before,
        "served_mb": own - before,
        "mapped_mb": total - own,
        "table_mb": table.memory_usage(deep=True).sum() / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a data set to decode (default: 300 clips of the built-in kind)")
    parser.add_argument("--scratch", type=Path, help="a directory with some hundred MB of free space")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # one size, run in a separate process
    arguments = parser.parse_args()
    if arguments.serve:
        print(json.dumps(serve(arguments.serve, arguments.scratch)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as directory:
        scratch = Path(directory)
        source = arguments.source or scratch / "made"
        if arguments.source is None:
            generate(source, clips=300, seed=0)
        build_rates(source, scratch)
        print(f"\n{SECONDS:g} s clips at {RATE / 1000:g} kHz, batches of {BATCH} windows of 2.5 s")
        print("   clips    open  clip set  batches/s   memory: opened, served (own)  mapped  table of labels")
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--serve", str(size), "--scratch", str(scratch)]
            subprocess.run(command, check=True, capture_output=True)  # creates the cache for the measured run
            line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                "{size:8,} {open:4.1f} ms    {clip_set:4.1f} ms {batches:10.0f}   "
                "{opened_mb:14.1f} {served_mb:6.1f} MB {mapped_mb:11.0f} MB {table_mb:5.0f} MB".format(
                    size=size, **line
                )
            )


if __name__ == "__main__":
    main()
