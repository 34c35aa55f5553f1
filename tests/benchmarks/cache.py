"""What the waveform cache costs: its build against plain decoding, and opening, batches and memory against its size.

    python tests/benchmarks/cache.py [--source DIR] [--scratch DIR] [--sizes 1000 10000 100000]

Run it on a quiet machine. The build should reach 0.8 of libsndfile's own rate on the same cores; the rest should not
depend on the number of clips, but for the table of labels and the key made from it.
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
from sousaphone.data.cache.build import OFFSETS, WAVE, WaveformCache, _key, build_caches
from sousaphone.data.cache.decode import in_threads
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers.audio_files import open_clips
from sousaphone.data.readers.sousa import read_dataset
from sousaphone.data.synthetic.generate import generate

RATE, SECONDS, BATCH, BATCHES = 16_000, 5.0, 32, 20  # as many batches as an epoch of 1,000 clips has
REPEATS = 3
ENOUGH = 2_000  # clips, to which a smaller data set is repeated: what a build costs once must not count


def build_rates(source: Path, scratch: Path) -> None:
    """Clips a second of wall time and of processor time, the best of some rounds in turn."""
    dataset = read_dataset(source)
    table = pd.concat([dataset.clips] * -(-ENOUGH // len(dataset.clips)), ignore_index=True)
    dataset = Dataset(dataset.root, table[:ENOUGH])
    paths = dataset.clips.audio_path.tolist()
    best: dict[str, tuple[float, float]] = {}

    def plain() -> None:
        clips = open_clips(dataset.root, paths)
        deque(in_threads(lambda clip: soundfile.read(clip[1], dtype="float32"), clips), maxlen=0)

    def build(*rates: int) -> None:
        build_caches(dataset, rates, scratch / "cache", progress=False)

    ways = {
        "plain libsndfile": plain,
        "build, 16 kHz": lambda: build(16_000),
        "build, 16, 32 and 48 kHz": lambda: build(16_000, 32_000, 48_000),
    }
    for _ in range(REPEATS):
        for name, way in ways.items():
            shutil.rmtree(scratch / "cache", ignore_errors=True)
            wall, cpu = time.perf_counter(), time.process_time()
            way()  # ends when the cache is on disk
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            least = best.get(name, (wall, cpu))
            best[name] = min(wall, least[0]), min(cpu, least[1])
    seconds = dataset.clips.duration_sec.mean()
    print(f"{len(paths)} clips of {seconds:.1f} s on average, {soundfile.info(dataset.root / paths[0]).subtype}")
    base = best["plain libsndfile"]
    for name, (wall, cpu) in best.items():
        print(
            f"{name:<26} {len(paths) / wall:6.0f} clips/s ({base[0] / wall:.2f} of plain)   "
            f"{1000 * cpu / len(paths):5.2f} ms of processor a clip ({base[1] / cpu:.2f})"
        )


def synthetic(clips: int, scratch: Path) -> Dataset:
    """A table of clips, and a whole cache of silence for it (a sparse file)."""
    names = [f"player{i % 100:03d}_rudiment_{i:07d}_FluidR3_GM_practice_room" for i in range(clips)]
    table = pd.DataFrame({"sample_id": names, "audio_path": [f"audio/rudiment/{name}.flac" for name in names]})
    table["label"] = np.arange(clips) % 40
    table["split"] = np.where(np.arange(clips) % 10 < 8, "train", "test")
    table["duration_sec"], table["size_bytes"] = SECONDS, np.arange(clips)
    table["modified_ns"] = np.arange(clips) + 10**18
    dataset = Dataset(scratch, table)
    path = scratch / f"{_key(dataset)}-{RATE}hz"
    if path.exists():
        return dataset
    path.mkdir(parents=True)
    samples = round(SECONDS * RATE)
    np.save(path / OFFSETS, np.arange(clips + 1, dtype=np.int64) * samples)
    with (path / WAVE).open("wb") as file:
        file.truncate(2 * clips * samples)
    return dataset


def megabytes() -> tuple[float, float]:
    """Resident memory of this process: its own, and with the pages of mapped files that the system may take back."""
    memory = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / 1e6, memory.rss / 1e6


def best_of(function: Callable[[], object]) -> float:
    """Seconds of the fastest of some calls."""
    spent = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return min(spent)


def serve(clips: int, scratch: Path) -> dict[str, float]:
    dataset = synthetic(clips, scratch)
    torch.set_num_threads(1)
    before, _ = megabytes()
    cache = build_caches(dataset, [RATE], scratch, progress=False)[RATE]
    key = best_of(lambda: _key(dataset))
    check = best_of(lambda: WaveformCache(cache.path, RATE))
    start = time.perf_counter()
    clip_set = ClipSet(cache, dataset.clips, "train", 2.5, torch.device("cpu"), seed=0)
    index = time.perf_counter() - start
    opened, _ = megabytes()
    batches = clip_set.training_batches(BATCH, epoch=0)
    next(batches)  # shuffles
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    rate = BATCHES / (time.perf_counter() - start)
    own, whole = megabytes()
    return {
        "open": 1e3 * check,
        "key": 1e3 * key,
        "clip_set": 1e3 * index,
        "batches": rate,
        "opened_mb": opened - before,
        "served_mb": own - before,
        "mapped_mb": whole - own,
        "table_mb": dataset.clips.memory_usage(deep=True).sum() / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a data set to decode (default: 300 clips of the built-in kind)")
    parser.add_argument("--scratch", type=Path, help="a directory with room for a few hundred MB")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # one size, in a process of its own
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
        print("   clips    open     key  clip set  batches/s   memory: opened, served (own)  mapped  table of labels")
        for size in arguments.sizes:
            word = [sys.executable, __file__, "--serve", str(size), "--scratch", str(scratch)]
            subprocess.run(word, check=True, capture_output=True)  # makes it, so that the next finds it
            line = json.loads(subprocess.run(word, check=True, capture_output=True, text=True).stdout)
            print(
                "{size:8,} {open:4.1f} ms {key:4.1f} ms   {clip_set:4.1f} ms {batches:10.0f}   "
                "{opened_mb:14.1f} {served_mb:6.1f} MB {mapped_mb:11.0f} MB {table_mb:5.0f} MB".format(
                    size=size, **line
                )
            )


if __name__ == "__main__":
    main()
