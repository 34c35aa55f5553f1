"""How often the verdict finds a difference where there is none, and one of ten points where there is one.

    python launch.py --dataset tiny --name null --models efficientat --augment off --epochs 3 --seeds $(seq 0 23)
    python -m tests.benchmarks.null_calibration results/null [--sweeps 100] [--save FILE]

The run's seeds are dealt at random to four backbones with and without augmentation, three each. At most 5 of 100 such
sweeps may be called better; with ten points given to one arm, about as many as the report says (its power) must be.
--save keeps who was right on which clip, as tests/analysis/data/null_seeds.parquet has it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analysis.stats.verdict import SHOWN_POWER
from tests.analysis.null_sweeps import calibrate, read_seeds


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
        told = ", ".join(f"{number} {outcome}" for outcome, number in found.outcomes.most_common())
        stated = f"; stated power {found.stated_power:.0%}" if true else ""
        print(f"true difference {100 * true:g} points: {told} of {found.sweeps} sweeps{stated}")
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        seeds.to_parquet(arguments.save, index=False, compression="zstd")


if __name__ == "__main__":
    main()
