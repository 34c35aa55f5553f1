"""Seconds of one CPU core for a LoRA training epoch of 800 clips at nano scale, features and optimiser included.

    python tests/benchmarks/nano_epoch.py [MODEL ...] [--no-augment]

Process time, so other programs disturb it little. The budget is 9 s a backbone.
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F

from sousaphone import augment
from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import TrainConfig
from sousaphone.model import build_model

CLIPS, BATCH, STEPS = 800, 32, 10


def epoch_seconds(name: str, augmented: bool) -> tuple[float, float]:
    """(seconds of an epoch of 800 clips, of which in front end and augmentation), the fastest steps counted."""
    config = TrainConfig(model=name, augment=augmented)
    model = build_model(config, 40).train()
    rate = model.backbone.spec.sample_rate
    samples, heard = (round(seconds * rate) for seconds in (config.clip_seconds, augment.window_seconds(config)))
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    rng = torch.Generator().manual_seed(0)
    targets = F.one_hot(torch.arange(BATCH), 40).float()
    wholes, parts = [], []
    for _ in range(STEPS):
        wave, lengths = torch.rand(BATCH, heard) - 0.5, torch.full((BATCH,), heard)
        began = time.process_time()
        if augmented:
            wave, lengths = augment.augment_wave(wave, lengths, samples, rate, config, rng)
        features = model.features(wave, lengths)
        if augmented:
            features = augment.mask_features(features, model.backbone.frontend, config, rng)
        parts.append(time.process_time() - began)
        optimizer.zero_grad()
        F.cross_entropy(model.classify(features), targets).backward()
        optimizer.step()
        wholes.append(time.process_time() - began)
    steps = CLIPS / BATCH
    return min(wholes) * steps, min(parts) * steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(REGISTRY))
    parser.add_argument("--no-augment", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.models:
        whole, part = epoch_seconds(name, not arguments.no_augment)
        print(f"{name:<12} {whole:5.1f} s an epoch of {CLIPS} clips, {part:4.1f} s of it features and augmentation")


if __name__ == "__main__":
    main()
