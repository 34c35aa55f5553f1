"""Pretrain the nano backbones: render the corpus, pretrain all four, write their weights.

Every step resumes after an interruption. Once the corpus is rendered, several processes with different --models may run
at the same time. On one core rendering takes about four minutes, and each backbone 20 to 25 minutes.

To compare these weights with random ones under LoRA:

    python launch.py --scale nano --seeds 0 1 2 --models efficientat --weights efficientat=PATH
    python launch.py --scale nano --seeds 0 1 2 --models efficientat --weights random

Exit codes: 0, or 2 for a wrong argument.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

from sousaphone import __version__
from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.cli.command import EXIT_INPUT, EXIT_OK, Parser, prepare_process, require_torchaudio
from sousaphone.errors import UserError
from sousaphone.files import cache_directory
from sousaphone.hardware import count_cpus


def main() -> int:
    """Run the command line; returns the exit code."""
    prepare_process()
    parser = Parser(prog="python -m scripts.pretrain_nano", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=DEFAULT_SWEEP, default=list(DEFAULT_SWEEP))
    parser.add_argument("--work", type=Path, help="directory of all files (default: pretrain in SOUSAPHONE_CACHE)")
    parser.add_argument("--workers", type=int, default=count_cpus(), help="rendering processes (%(default)s)")
    arguments = parser.parse_args()
    try:
        require_torchaudio()
        pretrain(arguments.models, arguments.work or cache_directory() / "pretrain", arguments.workers)
    except UserError as error:
        print(f"python -m scripts.pretrain_nano: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    return EXIT_OK


def pretrain(models: list[str], work: Path, workers: int) -> None:
    """Render the corpus, pretrain, and write each backbone's weights to `work`/weights/NAME.safetensors."""
    import torch

    from scripts.pretrain_nano.examples import open_examples
    from scripts.pretrain_nano.learn import RECIPES, learn, make_learner
    from scripts.pretrain_nano.sounds import Corpus
    from scripts.pretrain_nano.waves import render_corpus
    from sousaphone.backbones.nano import files

    torch.set_num_threads(1)  # results depend on the number of threads
    corpus = Corpus()
    rates = {REGISTRY[name].sample_rate for name in RECIPES}
    caches = render_corpus(corpus, rates, work / "corpus", workers, _announce)
    for name in models:
        recipe, cache = RECIPES[name], caches[REGISTRY[name].sample_rate]
        backbone = make_learner(recipe, corpus.motifs).backbone
        examples = open_examples(corpus, cache, backbone, work / "examples", _announce)
        learner = learn(recipe, corpus, examples, work / "learn", _announce)
        path = work / "weights" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        about = {"recipe": dataclasses.asdict(recipe), "corpus": dataclasses.asdict(corpus), "version": __version__}
        files.save(learner.backbone, path, about)
        _announce(f"weights: {path}")


def _announce(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
