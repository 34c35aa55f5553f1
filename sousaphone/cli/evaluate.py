"""sousaphone evaluate MODEL DATA: score a model on labelled recordings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.cli.predict import add_model_options, load_model, refuse_target, save
from sousaphone.text import counted, tracked

if TYPE_CHECKING:
    from sousaphone.data.dataset import Dataset

_DESCRIPTION = """\
Score a model on labelled recordings in any form that --data-dir of a sweep accepts. MODEL is a model folder (sousaphone
export), a run (its best trial), or OWNER/NAME on the Hugging Face hub.

Every clip is scored twice: by its centre window, as during training, and by the mean of the logits over windows that
cover it (half a window apart; of clips longer than 30 s, the central 30 s), like the `averaged` scores of the report.
Accuracy is given over clips, and as a mean over players with its 95 % interval, the wider of that over players and that
over clips, as in the report.
"""
_EPILOG = """\
examples:
  %(prog)s my_model my_recordings/
  %(prog)s my_model takes.csv --output scores.json
  %(prog)s my_model /data/sousa --split test      only the test clips of the data on which the model was trained

exit codes: 0 scored; 2 wrong argument or input; 130 interrupted
"""
_PAIRS = 10  # most frequent confusions that are printed


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone evaluate") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("model", metavar="MODEL", help="model folder, run directory, or OWNER/NAME")
    parser.add_argument(
        "data", metavar="DATA", help="labelled recordings: a directory, a CSV or JSONL file, or hub:OWNER/NAME"
    )
    splits = ("all", "train", "validation", "test")
    parser.add_argument("--split", choices=splits, default="all", help="clips that are scored (default all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the scores and the confusion matrix as JSON")
    add_model_options(parser)
    options = parser.parse_args(argv)
    return run_command(prog, lambda: _evaluate(options, prog))


def _evaluate(options: argparse.Namespace, prog: str) -> int:
    refuse_target(options.output, "--output", [Path(options.data)])
    require_torchaudio()
    from sousaphone.data.readers.sousa import located
    from sousaphone.deploy.evaluation import evaluate, results

    root = located(options.data)
    dataset = _dataset(root, options.split)
    model = load_model(options)
    if options.split == "all" and _trained_on(root, model.config.trained):
        print(
            f"{prog}: warning: the model was trained on some of these clips; --split test leaves them out",
            file=sys.stderr,
        )
    rows = list(tracked(evaluate(model, dataset), f"scoring {len(dataset.clips):,} clips", len(dataset.clips)))
    found = {"model": str(options.model), "data": str(options.data), "split": options.split, **results(model, rows)}
    for line in _lines(found):
        print(line)
    if options.output is not None:
        save(options.output, (json.dumps(found, indent=1) + "\n").encode(), "--output")
    return EXIT_OK


def _dataset(root: Path, split: str) -> Dataset:
    """Return the clips to score."""
    import dataclasses

    from sousaphone.data.readers.sousa import read_dataset

    whole = read_dataset(root, only_test=split == "all")
    if split == "all":
        return whole
    return dataclasses.replace(whole, clips=whole.clips[whole.clips.split == split].reset_index(drop=True))


def _trained_on(root: Path, trained: Mapping[str, Any]) -> bool:
    """Whether the clips of a model's training were drawn from a data set."""
    from sousaphone.data.prepare import read_subset
    from sousaphone.errors import UserError

    try:  # folders of earlier versions do not state what was drawn
        drawn = read_subset(root, str(trained.get("dataset", "full")), str(trained.get("hold_out", "")))
    except UserError:  # too few players to train on, or nothing to hold out
        return False
    return drawn.fingerprint == trained.get("data_fingerprint")


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    for way, title in (("averaged", "mean over windows"), ("centre_window", "centre window")):
        each = found[way]
        interval = each["player_accuracy_interval"]
        between = f"95 % interval {interval[0]:.1%} to {interval[1]:.1%}" if interval else "no interval"
        yield (
            f"{title}: accuracy {each['accuracy']:.1%}, mean over players {each['player_accuracy']:.1%} ({between}), "
            f"macro F1 {each['macro_f1']:.3f}, top 5 {each['top5']:.1%}, calibration error (ECE) {each['ece']:.1%}"
        )
    yield f"{counted(found['averaged']['clips'], 'clip')} of {counted(found['averaged']['players'], 'player')}"
    names = found["classes"]
    pairs = [
        (count, true, predicted)
        for true, row in enumerate(found["confusion"])
        for predicted, count in enumerate(row)
        if count and true != predicted
    ]
    if pairs:
        yield "most frequent confusions of the mean over windows (true, predicted):"
    for count, true, predicted in sorted(pairs, key=lambda pair: -pair[0])[:_PAIRS]:
        yield f"  {count:>4}  {names[true]} as {names[predicted]} (of {sum(found['confusion'][true])})"
