"""Measure clips per second, peak memory and disk space per clip of the built-in generator.

    python tests/benchmarks/generate.py [--clips 1000] [--workers 2] [--keep DIR]

The target is 40 clips per second on two cores. --keep writes the set to DIR and prints the SHA-256 of all its files,
which must not depend on the number of workers.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import threading
import time
from pathlib import Path

import psutil

from sousaphone.data.synthetic.generate import generate


class Peak(threading.Thread):
    """Peak memory in bytes of this process and of this process with its workers, sampled five times per second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0

    def run(self) -> None:
        me = psutil.Process()
        while True:
            try:
                own = me.memory_info().rss
                self.own = max(self.own, own)
                self.all = max(self.all, own + sum(p.memory_info().rss for p in me.children(recursive=True)))
            except psutil.NoSuchProcess:  # a worker has just exited
                pass
            time.sleep(0.2)


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(root)).encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    peak = Peak()
    peak.start()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.keep or Path(scratch) / "set"
        began = time.monotonic()
        generate(root, arguments.clips, seed=0, workers=arguments.workers)
        seconds = time.monotonic() - began
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        processor = sum(psutil.Process().cpu_times()[:4])  # user and system, of this process and its finished workers
        print(
            f"{arguments.clips} clips in {seconds:.0f} s: {arguments.clips / seconds:.1f} per second, "
            f"{1000 * processor / arguments.clips:.1f} ms of processor time and "
            f"{size / arguments.clips / 1e3:.0f} kB per clip; "
            f"peak memory {peak.own / 1e6:.0f} MB in the parent, {peak.all / 1e6:.0f} MB with its workers"
        )
        if arguments.keep:
            print(f"SHA-256 of all files: {digest(root)}")


if __name__ == "__main__":
    main()
