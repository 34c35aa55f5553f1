"""Pretrain a nano backbone to classify the motif and to detect the strokes in every 10 ms.

The whole backbone is trained from random weights; the two heads are discarded. Every epoch writes a checkpoint. A
resumed run gives the same weights as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.pretrain_nano.examples import MARKS, WINDOW_SECONDS, Examples
from scripts.pretrain_nano.sounds import Corpus
from sousaphone.backbones.backbone import Backbone
from sousaphone.errors import UserError
from sousaphone.files import atomic_write
from sousaphone.model import load_backbone
from sousaphone.text import Announce
from sousaphone.training.loop import adamw, epoch_seed, set_learning_rate

LINES_PER_STEP = 16  # every nano backbone has one column of tokens per 160 ms
_ONSET_WEIGHT = 4.0  # one line in fifteen has an onset


@dataclass(frozen=True)
class Recipe:
    """Pretraining settings of one backbone, and the layout of its tokens."""

    model: str
    learning_rate: float  # peak
    epochs: int
    first: int  # tokens without a position, such as class tokens, before the others
    bands: int  # tokens per time step
    time_last: bool = True  # tokens of a band are adjacent; otherwise those of a time step
    batch: int = 32
    warmup_steps: int = 250
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    seed: int = 0


RECIPES = {
    "ast": Recipe("ast", 2e-3, 8, first=2, bands=8),
    "htsat": Recipe("htsat", 2e-3, 8, first=0, bands=2),
    "efficientat": Recipe("efficientat", 3e-3, 8, first=0, bands=2),
    "beats": Recipe("beats", 2e-3, 8, first=0, bands=8, time_last=False),
}


class Learner(nn.Module):
    """A backbone with two heads."""

    def __init__(self, backbone: Backbone, recipe: Recipe, motifs: int) -> None:
        super().__init__()
        self.backbone, self.recipe = backbone, recipe
        self.motif = nn.Linear(backbone.width, motifs)
        self.strokes = nn.Linear(recipe.bands * backbone.width, LINES_PER_STEP * len(MARKS))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features to logits of motifs [B, motifs] and of marks [B, lines, 5]."""
        tokens = self.backbone.encode(features)
        placed = tokens[:, self.recipe.first :]  # [B, L, D]
        if self.recipe.time_last:
            placed = placed.unflatten(1, (self.recipe.bands, -1)).transpose(1, 2)
        else:
            placed = placed.unflatten(1, (-1, self.recipe.bands))
        marks = self.strokes(placed.flatten(2)).unflatten(2, (LINES_PER_STEP, len(MARKS))).flatten(1, 2)
        return self.motif(self.backbone.pool(tokens)), marks


def make_learner(recipe: Recipe, motifs: int) -> Learner:
    """A random nano backbone with heads; the seed determines the weights."""
    backbone = load_backbone(recipe.model, "nano", seed=recipe.seed, clip_seconds=WINDOW_SECONDS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Learner(backbone, recipe, motifs)


def loss_of(recipe: Recipe, logits: Tensor, marks: Tensor, motifs: Tensor, target: Tensor) -> Tensor:
    """Sum of the cross entropies of the motif, of each line's onset, and of the other marks at onsets."""
    target = target[:, : marks.shape[1]]
    onsets = target[..., 0]
    onset_loss = F.binary_cross_entropy_with_logits(marks[..., 0], onsets, pos_weight=torch.tensor(_ONSET_WEIGHT))
    kinds = F.binary_cross_entropy_with_logits(marks[..., 1:], target[..., 1:], reduction="none").mean(-1)
    kinds = (kinds * onsets).sum() / onsets.sum().clamp(min=1)
    return F.cross_entropy(logits, motifs, label_smoothing=recipe.label_smoothing) + onset_loss + kinds


def learn(recipe: Recipe, corpus: Corpus, examples: Examples, directory: Path, announce: Announce) -> Learner:
    """Pretrain one backbone, starting from the checkpoint in `directory` if there is one; raises a UserError if that is
    of another recipe or corpus."""
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
        start = time.perf_counter()
        torch.manual_seed(epoch_seed(recipe.seed, number))  # for dropout and the order
        row = {"train_loss": _epoch(recipe, learner, optimizer, examples, number), **_held_out(learner, examples)}
        history.append(row)
        state = {"plan": plan, "model": learner.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        with atomic_write(checkpoint) as temporary:
            torch.save(state, temporary)
        announce(
            f"{recipe.model}  epoch {number}/{recipe.epochs}  loss {row['train_loss']:.3f}  held out: motif accuracy "
            f"{row['motif_acc']:.1%}, stroke F1 {row['stroke_f1']:.3f}  {time.perf_counter() - start:.0f} s"
        )
    return learner.eval()


def _epoch(recipe: Recipe, learner: Learner, optimizer: torch.optim.AdamW, examples: Examples, number: int) -> float:
    """Train one epoch and return the mean loss."""
    learner.train()
    order = torch.randperm(examples.training).split(recipe.batch)
    total = recipe.epochs * len(order)
    losses = []
    for step, rows in enumerate(order, start=(number - 1) * len(order)):
        set_learning_rate(optimizer, recipe.learning_rate, step, recipe.warmup_steps, total)
        features, target, motifs = examples.batch(rows)
        logits, marks = learner(features)
        loss = loss_of(recipe, logits, marks, motifs, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.inference_mode()
def _held_out(learner: Learner, examples: Examples) -> dict[str, float]:
    """Accuracy of motifs and F1 of onsets by lines on held-out clips, which are by other players."""
    learner.eval()
    correct = total = hits = predicted = true = 0
    for rows in torch.arange(examples.training, len(examples.motifs)).split(64):
        features, target, motifs = examples.batch(rows)
        logits, marks = learner(features)
        correct, total = correct + int((logits.argmax(1) == motifs).sum()), total + len(rows)
        found, onsets = marks[..., 0] > math.log(_ONSET_WEIGHT), target[:, : marks.shape[1], 0] > 0
        hits, predicted = hits + int((found & onsets).sum()), predicted + int(found.sum())
        true += int(onsets.sum())
    return {"motif_acc": correct / max(1, total), "stroke_f1": 2 * hits / max(1, predicted + true)}
