"""Train the network on the rendered clips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.transcription.network import StrokeNetwork

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
    count, bands = len(features), features.shape[1] // 3
    coarse = torch.randn(count, 1, 6, generator=generator) * 0.04
    shift = F.interpolate(coarse, bands, mode="linear", align_corners=True)[:, 0, :, None]
    level = (features[:, :bands] + shift).clamp(min=0)
    return torch.cat([level, features[:, bands:]], dim=1)


def train(network: StrokeNetwork, waves: np.ndarray, marks: np.ndarray, seconds: float, seed: int = 0) -> None:
    """Train for `seconds` with AdamW and a one-cycle learning rate."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    began, step, total = time.monotonic(), 0, 0.0
    order: list[int] = []
    network.train()
    while (passed := (time.monotonic() - began) / seconds) < 1:
        if len(order) < BATCH:
            order = torch.randperm(len(waves), generator=generator).tolist()
        chosen, order = sorted(order[:BATCH]), order[BATCH:]
        wave = torch.from_numpy(waves[chosen]).float() / 32768
        target = torch.from_numpy(marks[chosen]).float() / 127
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, passed / 0.05 + 0.01) * (0.5 + 0.5 * np.cos(np.pi * passed))
        with torch.no_grad():
            features = augment(network.features(wave), generator)
        value = loss(network.frames(features), target)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step, total = step + 1, total + float(value.detach())
        if step % 200 == 0:
            print(f"{step} steps, {100 * passed:.0f} %, loss {total / 200:.4f}", flush=True)
            total = 0.0
    network.eval()


def save(network: StrokeNetwork, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
