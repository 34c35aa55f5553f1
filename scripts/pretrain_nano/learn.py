"""Pretrain a nano backbone: which motif is it, and what is struck in every 10 ms of it?

All of the backbone is trained, from random weights; the two readouts on top of it are thrown away. Every epoch leaves
a checkpoint; a run that goes on from one ends as if it had never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pretrain_nano.examples import MARKS, WINDOW_SECONDS, Examples
from scripts.pretrain_nano.sounds import Corpus
from sousaphone.backbones.backbone import Backbone
from sousaphone.backbones.registry import REGISTRY
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.model import load_backbone
from sousaphone.training.loop import adamw, epoch_seed, set_learning_rate

LINES_PER_STEP = 16  # every nano backbone has a column of tokens for 160 ms
_ONSET_WEIGHT = 4.0  # one line in fifteen has one


@dataclass(frozen=True)
class Recipe:
    """How one backbone is pretrained.

    Attributes:
        learning_rate: AdamW's peak.
        first, bands, time_last: how its tokens lie: so many that belong to no place, then `bands` for each step of
            time, those of a band together (time_last) or those of a step.
    """

    model: str
    learning_rate: float
    epochs: int
    first: int
    bands: int
    time_last: bool = True
    batch: int = 32
    warmup_steps: int = 250
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    seed: int = 0


RECIPES = {
    recipe.model: recipe
    for recipe in (
        Recipe("ast", 2e-3, 8, first=2, bands=8),
        Recipe("htsat", 2e-3, 8, first=0, bands=2),
        Recipe("efficientat", 3e-3, 8, first=0, bands=2),
        Recipe("beats", 2e-3, 8, first=0, bands=8, time_last=False),
    )
}


class Learner(nn.Module):
    """A backbone and its two readouts."""

    def __init__(self, backbone: Backbone, recipe: Recipe, motifs: int) -> None:
        super().__init__()
        self.backbone, self.recipe = backbone, recipe
        self.motif = nn.Linear(backbone.width, motifs)
        self.strokes = nn.Linear(recipe.bands * backbone.width, LINES_PER_STEP * len(MARKS))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features to logits of the motifs [B, motifs] and of the marks [B, lines, 5]."""
        tokens = self.backbone.encode(features)
        placed = tokens[:, self.recipe.first :]  # [B, L, D]
        if self.recipe.time_last:
            placed = placed.unflatten(1, (self.recipe.bands, -1)).transpose(1, 2)
        else:
            placed = placed.unflatten(1, (-1, self.recipe.bands))
        marks = self.strokes(placed.flatten(2)).unflatten(2, (LINES_PER_STEP, len(MARKS))).flatten(1, 2)
        return self.motif(self.backbone.pool(tokens)), marks


def make_learner(recipe: Recipe, motifs: int) -> Learner:
    """A nano backbone at random with its readouts; equal seeds give equal weights."""
    backbone = load_backbone(recipe.model, "nano", seed=recipe.seed, clip_seconds=WINDOW_SECONDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Learner(backbone, recipe, motifs)


def loss_of(recipe: Recipe, logits: Tensor, marks: Tensor, motifs: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of the motif, of every line's onset, and, where a stroke begins, of what it is."""
    wanted = wanted[:, : marks.shape[1]]
    onsets = wanted[..., 0]
    weight = torch.tensor(_ONSET_WEIGHT)
    struck = F.binary_cross_entropy_with_logits(marks[..., 0], onsets, pos_weight=weight)
    kinds = F.binary_cross_entropy_with_logits(marks[..., 1:], wanted[..., 1:], reduction="none").mean(-1)
    kinds = (kinds * onsets).sum() / onsets.sum().clamp(min=1)
    return F.cross_entropy(logits, motifs, label_smoothing=recipe.label_smoothing) + struck + kinds


def learn(recipe: Recipe, corpus: Corpus, examples: Examples, directory: Path, say: Callable[[str], None]) -> Learner:
    """Pretrain one backbone, or what is left of it; a finished one is only loaded.

    Args:
        directory: where the checkpoint is kept.

    Raises:
        UserError: the checkpoint there is of another recipe or corpus.
    """
    learner = make_learner(recipe, corpus.motifs)
    optimizer = adamw(learner.parameters(), recipe.learning_rate, recipe.weight_decay)
    plan = {**dataclasses.asdict(recipe), "corpus": dataclasses.asdict(corpus)}
    checkpoint = directory / f"{recipe.model}.pt"
    history: list[dict[str, Any]] = []
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        if state["plan"] != plan:
            raise UserError(f"{checkpoint} is of another recipe or corpus; give another directory or remove it")
        learner.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = state["history"]
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(len(history) + 1, recipe.epochs + 1):
        began = time.perf_counter()
        torch.manual_seed(epoch_seed(recipe.seed, number))  # of dropout and of the order
        row = {"train_loss": _epoch(recipe, learner, optimizer, examples, number), **_held_out(learner, examples)}
        history.append(row)
        state = {"plan": plan, "model": learner.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        with atomic_write(checkpoint) as temporary:
            torch.save(state, temporary)
        say(
            f"{recipe.model}  epoch {number}/{recipe.epochs}  loss {row['train_loss']:.3f}  held-out renderings: "
            f"{row['motif_acc']:.1%} of the motifs, strokes F1 {row['stroke_f1']:.3f}  "
            f"{time.perf_counter() - began:.0f} s"
        )
    return learner.eval()


def rates() -> tuple[int, ...]:
    """Hz at which the backbones of RECIPES hear."""
    return tuple(sorted({REGISTRY[name].sample_rate for name in RECIPES}))


def _epoch(recipe: Recipe, learner: Learner, optimizer: torch.optim.AdamW, examples: Examples, number: int) -> float:
    """One pass over the training examples; the mean loss."""
    learner.train()
    order = torch.randperm(examples.training).split(recipe.batch)
    total = recipe.epochs * len(order)
    losses = []
    for step, rows in enumerate(order, start=(number - 1) * len(order)):
        set_learning_rate(optimizer, recipe.learning_rate, step, recipe.warmup_steps, total)
        features, wanted, motifs = examples.batch(rows)
        logits, marks = learner(features)
        loss = loss_of(recipe, logits, marks, motifs, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def _held_out(learner: Learner, examples: Examples) -> dict[str, float]:
    """On renderings by other players: the share of motifs told, and the F1 of the lines where a stroke begins."""
    learner.eval()
    right = heard = hits = found = there = 0
    for rows in torch.arange(examples.training, len(examples.motifs)).split(64):
        features, wanted, motifs = examples.batch(rows)
        logits, marks = learner(features)
        right, heard = right + int((logits.argmax(1) == motifs).sum()), heard + len(rows)
        told, true = marks[..., 0] > math.log(_ONSET_WEIGHT), wanted[:, : marks.shape[1], 0] > 0
        hits, found, there = hits + int((told & true).sum()), found + int(told.sum()), there + int(true.sum())
    return {"motif_acc": right / max(1, heard), "stroke_f1": 2 * hits / max(1, found + there)}
