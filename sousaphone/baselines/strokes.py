"""The stroke model as a baseline: a transformer over the strokes of each window, trained once per run.

It is the network of `--models strokes`, trained on all windows of the training clips with a fixed number of steps.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sousaphone.backbones.frontends import to_float
from sousaphone.backbones.registry import REGISTRY
from sousaphone.backbones.strokes import THRESHOLD, StrokeFrontend, StrokesBackbone
from sousaphone.baselines.descriptors import by_batch
from sousaphone.data.batches import Batch, ClipSet
from sousaphone.hardware import torch_threads
from sousaphone.rudiments import SLUGS
from sousaphone.text import Advance
from sousaphone.transcription import transcribe
from sousaphone.transcription.transcribe import peaks

STEPS, EPOCHS = 600, 30  # at most
BATCH, RATE = 32, 3e-3
_WARMUP = 50  # steps
_CHANNELS = 4


def stroke_frames(clips: ClipSet, rate: int, progress: Advance) -> Tensor:
    """What the transcriber finds in each frame of the windows, [N, F * 4]; `rate` is the backbone's."""
    frontend = StrokeFrontend(REGISTRY["strokes"].frontend)

    def extract(batch: Batch) -> Tensor:
        return frontend(to_float(batch.wave), batch.lengths).flatten(1)

    return by_batch(extract, clips, BATCH, progress)


def onset_features(clips: ClipSet, rate: int, progress: Advance) -> Tensor:
    """Number of detected strokes in each window, and strokes per second of unpadded audio, [N, 2]."""
    frontend = StrokeFrontend(REGISTRY["strokes"].frontend)

    def extract(batch: Batch) -> Tensor:
        onset = frontend(to_float(batch.wave), batch.lengths)[:, :, 0]
        count = peaks(onset, transcribe.THRESHOLD)[0].sum(1).float()
        return torch.stack([count, count * rate / batch.lengths.clamp(min=1)], 1)

    return by_batch(extract, clips, BATCH, progress)


def train_network(features: Tensor, labels: Tensor, seed: int, advance: Advance, steps: int) -> Network:
    """Train on windows [N, F * 4]; `advance` is called with the completed fraction of each step.

    One thread: the products are small, and on a busy machine several threads spend their time waiting for each other.
    """
    with torch.random.fork_rng(devices=[]), torch_threads(1):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        network = Network()
        counts = network.count(features)
        optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.05)
        batches: list[Tensor] = []
        network.train()
        for step in range(steps):
            if not batches:
                batches = _batches(counts)
            rows = batches.pop()
            rate = RATE * min(1.0, (step + 1) / _WARMUP) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(network(features[rows]), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            advance(1 / steps)
    return network.eval()


def _batches(counts: Tensor) -> list[Tensor]:
    """Rows in random batches of similar numbers of strokes, since the attention pads to the greatest."""
    order = torch.randperm(len(counts))
    groups = [rows[counts[rows].argsort()] for rows in order.split(16 * BATCH)]
    batches = [rows for group in groups for rows in group.split(BATCH)]
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


class Network(nn.Module):
    """The transformer and a classifier: windows [B, F * 4] to logits [B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = StrokesBackbone(REGISTRY["strokes"])
        self.classifier = nn.Linear(self.backbone.width, len(SLUGS))

    def count(self, features: Tensor) -> Tensor:
        """The number of strokes in windows [N, F * 4], [N]."""
        return peaks(features.unflatten(1, (-1, _CHANNELS))[:, :, 0], THRESHOLD)[0].sum(1)

    def forward(self, features: Tensor) -> Tensor:
        frames = features.unflatten(1, (-1, _CHANNELS))
        return self.classifier(self.backbone.pool(self.backbone.encode(frames)))

    @torch.inference_mode()
    def score(self, features: Tensor) -> Tensor:
        """Log probabilities of windows [N, F * 4], [N, C]."""
        return torch.cat([self(part).log_softmax(1) for part in features.split(4 * BATCH)]).clone()
