"""What is said of the weights, and putting those that earned it into the package."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scripts.pretrain_nano import ablation
from scripts.pretrain_nano.examples import WINDOW_SECONDS
from scripts.pretrain_nano.learn import RECIPES, Recipe, history_of
from scripts.pretrain_nano.sounds import CLIP_SECONDS, Corpus
from sousaphone import __version__
from sousaphone.backbones.nano import DIRECTORY, files
from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.weights.check import pretrained_parameters

LIMIT_BYTES = 12_000_000  # of all shipped files together

_CARD = """\
# Weights of nano backbones

Small enough to train on one CPU core, these show how the tool works with weights that have learnt something. They say
nothing about the published models, and every run that uses them says so.

| file | parameters | bytes | peak learning rate | epochs | steps | held out: motifs told | held out: strokes, F1 |
|---|---|---|---|---|---|---|---|
{rows}

- **Objective**: to tell {motifs} random stroke patterns apart, and to say for every 10 ms whether a stroke begins and
  whether it is an accent, a grace note, a buzz, of the weak hand. All parameters are trained from random weights; the
  readouts are thrown away.
- **Data**: {clips:,} clips of {seconds} s for training and {held_out:,} held out, rendered by this package. Patterns
  are random sequences of taps, accents, diddles, flams, drags and buzzes; none is one of the 40 rudiments, from
  wherever one begins and whichever hand leads, nor differs from one in a single stroke. Players, drums and rooms are
  other than those of the built-in data set: half of the drums are made up, half are other percussion of TimGM6mb.sf2,
  the SoundFont (GPL-2) that comes with pretty_midi. The weights hold no recording.
- **Optimiser**: AdamW, cosine after half an epoch of warm-up, batches of 32 windows of 2.5 s; seed {seed}.
- **Made by** `python -m scripts.pretrain_nano`, version {version}. Half precision, safetensors.
- **Licence**: MIT, as the package.

Shipped is what beats random weights under LoRA by more than three standard errors over three seeds, in test accuracy
(per cent), on the built-in tiny set and on clips of SOUSA's generator:

{table}

{verdicts}
"""


def weights_path(work: Path, name: str) -> Path:
    """Where pretraining leaves a backbone's weights."""
    return work / "weights" / f"{name}.safetensors"


def checkpoints(work: Path) -> Path:
    """Where the checkpoints of pretraining are."""
    return work / "learn"


def about(recipe: Recipe, corpus: Corpus) -> dict[str, Any]:
    """What a file says of itself."""
    return {"recipe": dataclasses.asdict(recipe), "corpus": dataclasses.asdict(corpus), "version": __version__}


def evaluated(work: Path) -> list[ablation.Comparison]:
    """What the evaluation found of the weights that are there now."""
    return ablation.compare(ablation.read(work / "ablations", partial(weights_path, work)))


def ship(work: Path, say: Callable[[str], None], package: Path = DIRECTORY) -> None:
    """Copy the weights that earned their place into the package, and write the card.

    What was evaluated and did not earn it goes out of the package.

    Raises:
        UserError: nothing was evaluated as it is now, or not all that the package holds; or together they are larger
            than LIMIT_BYTES. Nothing is touched then.
    """
    comparisons = evaluated(work)
    open_ones = [name for name in RECIPES if not ablation.decided(comparisons, name)]
    lost = [name for name in open_ones if (package / f"{name}.safetensors").is_file()]
    if lost or len(open_ones) == len(RECIPES):
        which = f"that of {', '.join(lost)}, which the package holds" if lost else "any"
        raise UserError(
            f"{work / 'ablations'} holds no whole evaluation, or not {which}; run --evaluate with --sousa first, or "
            "name the directory that holds it with --work"
        )
    earned = [name for name in RECIPES if ablation.earns(comparisons, name)]
    size = sum(weights_path(work, name).stat().st_size for name in earned)
    if size > LIMIT_BYTES:
        raise UserError(f"the weights of {', '.join(earned)} take {size:,} bytes; the limit is {LIMIT_BYTES:,}")
    for name in RECIPES:
        (package / f"{name}.safetensors").unlink(missing_ok=True)
    for name in earned:
        shutil.copyfile(weights_path(work, name), package / f"{name}.safetensors")
    corpus = Corpus()
    card = _CARD.format(
        rows="\n".join(_row(work, name) for name in earned) or "| none | | | | | | | |",
        motifs=corpus.motifs,
        clips=corpus.motifs * corpus.takes,
        held_out=corpus.motifs * corpus.held_out,
        seconds=CLIP_SECONDS,
        seed=corpus.seed,
        version=__version__,
        table=ablation.table(comparisons),
        verdicts="\n".join(f"- {REGISTRY[name].title}: {ablation.verdict(comparisons, name)}" for name in RECIPES),
    )
    (package / "CARD.md").write_text(card, encoding="utf-8")
    say(f"shipped: {', '.join(earned) or 'none'}; {package / 'CARD.md'}")


def _row(work: Path, name: str) -> str:
    recipe, path, last = RECIPES[name], weights_path(work, name), history_of(checkpoints(work), name)[-1]
    steps = recipe.epochs * -(-Corpus().motifs * Corpus().takes // recipe.batch)
    cells = (
        f"{name}.safetensors",
        f"{pretrained_parameters(files.load(REGISTRY[name], path, WINDOW_SECONDS)):,}",
        f"{path.stat().st_size:,}",
        f"{recipe.learning_rate:g}",
        str(recipe.epochs),
        f"{steps:,}",
        f"{last['motif_acc']:.1%}",
        f"{last['stroke_f1']:.3f}",
    )
    return f"| {' | '.join(cells)} |"
