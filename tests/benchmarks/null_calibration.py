"""Measure how often the verdict finds a difference where there is none, and a true one of ten points.

    python launch.py --dataset tiny --name null --models efficientat --augment off --epochs 3 --seeds $(seq 0 23)
    python -m tests.benchmarks.null_calibration results/null [--sweeps 100] [--save FILE]

The run's seeds are assigned at random to four backbones with and without augmentation, three seeds each. At most 5 of
100 such sweeps may have the outcome "better"; with ten points added to one arm, their fraction should be close to the
power in the report. --save writes the correctness by seed and clip in the format of
tests/analysis/data/null_seeds.parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.analysis.null_sweeps import SHOWN_POWER, calibrate, read_seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sweeps", type=int, default=100)
    parser.add_argument("--save", type=Path)
    arguments = parser.parse_args()
    seeds = read_seeds(arguments.run)
    by_seed = seeds.groupby("seed").correct.mean()
    print(
        f"{len(by_seed)} seeds, {seeds.sample_id.nunique()} test clips of {seeds.player.nunique()} players; test "
        f"accuracy {by_seed.mean():.1%}, from {by_seed.min():.1%} to {by_seed.max():.1%}"
    )
    for true in (0.0, SHOWN_POWER):
        try:
            found = calibrate(seeds, arguments.sweeps, true)
        except ValueError as error:
            parser.error(f"{arguments.run} has {error}; give a run of one arm with that many (--seeds)")
        outcomes = ", ".join(f"{number} {outcome}" for outcome, number in found.outcomes.most_common())
        stated = f"; stated power {found.stated_power:.0%}" if true else ""
        print(f"true difference {100 * true:g} points: {outcomes} of {found.sweeps} sweeps{stated}")
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        seeds.to_parquet(arguments.save, index=False, compression="zstd")


if __name__ == "__main__":
    main()
