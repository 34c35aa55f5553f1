"""python -m scripts.train_transcriber: render the clips, train the network, and write the shipped weights.

Rendering takes about 30 ms a clip and core, and is kept in --cache. Training is limited by steps, so that the result
depends on the machine only by its rounding. The shipped weights took two rounds: the defaults, then
`--start FILE --steps 2400 --seed 1`. Measure the result with `python -m
tests.benchmarks.transcription` and write its table into docs/strokes.md and the card.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from scripts.train_transcriber.clips import make_clips
from scripts.train_transcriber.learn import save, train
from sousaphone.transcription.network import StrokeNetwork
from sousaphone.transcription.transcribe import WEIGHTS

STEPS = 1_800


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.train_transcriber", description=__doc__)
    parser.add_argument("--clips", type=int, default=8_000, help="clips of 4 s to render (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of 16 clips (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that render (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads that train (default %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("transcriber_clips"), help="rendered clips")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="weights to write (default: those shipped)")
    parser.add_argument("--start", type=Path, help="weights to begin with (default: random)")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and clip order (default %(default)s)")
    options = parser.parse_args()
    waves, marks = make_clips(options.cache, options.clips, options.workers)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = StrokeNetwork()
    if options.start:
        network.load_state_dict(load_file(options.start))
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters")
    train(network, waves, marks, options.steps, options.seed)
    save(network, options.output)


if __name__ == "__main__":
    main()
