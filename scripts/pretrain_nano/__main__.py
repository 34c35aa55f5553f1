"""Pretrain the nano backbones, and find out whether it helps.

    python -m scripts.pretrain_nano                          # render, pretrain all four, write their weights
    python -m scripts.pretrain_nano --evaluate --sousa DIR   # under LoRA against random weights; the table, the rule
    python -m scripts.pretrain_nano --ship                   # put what earned it into the package, with its card

Every step goes on where it was interrupted. Two processes with different --models may work beside each other, once the
corpus is rendered. On one core it takes about four minutes to render and 20 to 25 to pretrain each: half an hour for
one backbone. To evaluate takes an hour.

Exit codes: 0, or 2 for a wrong argument and where the files of an earlier step are missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.cli.parser import EXIT_INPUT, EXIT_OK, Parser, prepare_process, require_torchaudio
from sousaphone.errors import UserError
from sousaphone.files import cache_directory
from sousaphone.hardware import count_cpus


def main() -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    parser = Parser(
        prog="python -m scripts.pretrain_nano",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=DEFAULT_SWEEP, default=list(DEFAULT_SWEEP))
    parser.add_argument("--work", type=Path, help="where all of it is kept (default: pretrain in SOUSAPHONE_CACHE)")
    parser.add_argument("--workers", type=int, default=count_cpus(), help="processes that render (%(default)s)")
    parser.add_argument("--evaluate", action="store_true", help="train under LoRA from pretrained and random weights")
    parser.add_argument("--sousa", type=Path, help="with --evaluate: a SOUSA directory, beside the built-in tiny set")
    parser.add_argument("--lr", type=float, nargs="+", help="LoRA's peak rates (default: one, ablation.RATE)")
    parser.add_argument("--ship", action="store_true", help="copy into the package what the evaluation lets pass")
    arguments = parser.parse_args()
    try:
        require_torchaudio()
        run(arguments)
    except UserError as error:
        print(f"python -m scripts.pretrain_nano: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    return EXIT_OK


def run(arguments: argparse.Namespace) -> None:
    """Do what is asked for."""
    import torch

    from scripts.pretrain_nano import card

    torch.set_num_threads(1)  # results repeat bit for bit at an equal number of threads
    cache = cache_directory()
    work = arguments.work or cache / "pretrain"
    if arguments.evaluate:
        _evaluate(arguments, work, cache)
    elif arguments.ship:
        card.ship(work, _say)
    else:
        _pretrain(arguments, work)


def _pretrain(arguments: argparse.Namespace, work: Path) -> None:
    from scripts.pretrain_nano import card
    from scripts.pretrain_nano.examples import open_examples
    from scripts.pretrain_nano.learn import RECIPES, learn, make_learner, rates
    from scripts.pretrain_nano.sounds import Corpus
    from scripts.pretrain_nano.waves import render_corpus
    from sousaphone.backbones.nano import files

    corpus = Corpus()
    caches = render_corpus(corpus, rates(), work / "corpus", arguments.workers, _say)
    for name in arguments.models:
        recipe = RECIPES[name]
        frontend_of = make_learner(recipe, corpus.motifs).backbone
        cache = caches[REGISTRY[name].sample_rate]
        examples = open_examples(corpus, cache, frontend_of, work / "examples", _say)
        learner = learn(recipe, corpus, examples, card.checkpoints(work), _say)
        path = card.weights_path(work, name)
        path.parent.mkdir(exist_ok=True)
        files.save(learner.backbone, path, card.about(recipe, corpus))
        _say(f"weights: {path}")


def _evaluate(arguments: argparse.Namespace, work: Path, cache: Path) -> None:
    from scripts.pretrain_nano import ablation, card
    from sousaphone.data.readers.sousa import read_dataset
    from sousaphone.data.synthetic.generate import builtin_dataset

    # Whatever is wrong shows before hours of training.
    sousa = None if arguments.sousa is None else arguments.sousa.expanduser().absolute()
    if sousa is not None:
        read_dataset(sousa)
    for name in arguments.models:
        if not (weights := card.weights_path(work, name)).is_file():
            raise UserError(
                f"{weights} is missing: pretrain {name} first, without --evaluate; or name the directory that holds it "
                "with --work"
            )
    data = {"tiny": builtin_dataset(cache, "tiny"), **({} if sousa is None else {"sousa": sousa})}
    for arm in ablation.plan(arguments.models, list(data), arguments.lr or [ablation.RATE]):
        weights = card.weights_path(work, arm.model)
        ablation.measure(arm, weights, data[arm.data], cache, work / "ablations", _say)
    comparisons = card.evaluated(work)
    print(ablation.table(comparisons))
    for name in arguments.models:
        print(f"{name}: {ablation.verdict(comparisons, name)}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
