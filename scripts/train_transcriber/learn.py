"""Train the network on the rendered clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.transcription.network import BANDS, StrokeNetwork

BATCH, RATE = 16, 3e-3


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of the onsets, and of what is at the onsets; outputs and target [B, 4, F]."""
    at = (target[:, 0] > 0.3).float()
    onset = F.binary_cross_entropy_with_logits(outputs[:, 0], target[:, 0])
    kinds = F.binary_cross_entropy_with_logits(outputs[:, 2:], target[:, 2:], reduction="none").sum(dim=1)
    velocity = F.smooth_l1_loss(outputs[:, 1], target[:, 1], reduction="none", beta=0.1)
    return onset + 0.1 * ((0.3 * kinds + 5 * velocity) * at).sum() / at.sum().clamp(min=1)


def augment(features: Tensor, generator: torch.Generator) -> Tensor:
    """Tilt and shift the bands of a batch [B, bands, F]: other equalisers and levels than those rendered."""
    count, bands = len(features), sum(BANDS)
    coarse = torch.randn(count, 1, 6, generator=generator) * 0.04
    shift = F.interpolate(coarse, bands, mode="linear", align_corners=True)[:, 0, :, None]
    level = (features[:, :bands] + shift).clamp(min=0)
    return torch.cat([level, features[:, bands:]], dim=1)


def train(network: StrokeNetwork, waves: np.ndarray, marks: np.ndarray, steps: int, seed: int = 0) -> None:
    """Train with AdamW, a short warm-up and a cosine decay.

    Args:
        waves: int16 [N, T] at 16 kHz.
        marks: uint8 [N, 4, F]; see `clips.targets`.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    total = 0.0
    order: list[int] = []
    network.train()
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(waves), generator=generator).tolist()
        chosen, order = sorted(order[:BATCH]), order[BATCH:]
        wave = torch.from_numpy(waves[chosen]).float() / 32768
        target = torch.from_numpy(marks[chosen]).float() / 127
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, 20 * step / steps + 0.01) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        with torch.no_grad():
            features = augment(network.features(wave), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = network.frames(features)
        value = loss(outputs.float(), target)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        total += float(value.detach())
        if step % 200 == 199:
            print(f"{step + 1} of {steps} steps, loss {total / 200:.4f}", flush=True)
            total = 0.0
    network.eval()


def save(network: StrokeNetwork, path: Path) -> None:
    """Write the weights as safetensors."""
    path.write_bytes(safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()}))
