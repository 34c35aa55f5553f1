"""A lower bound of the time of a training step: its operations at the measured matrix product rate, its bytes at the
measured copy rate.

Operations are those that LoRA needs: both passes of the frozen model, gradients of activations, and gradients of
trained weights; no recomputation to save memory. They are counted on torch's `meta` device, so the count needs no
arithmetic and is the same on every machine.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sousaphone.model import RudimentClassifier

from .clock import synchronize


@dataclass(frozen=True)
class Work:
    """The work of one clip in a training step.

    Attributes:
        forward, backward: operations (a multiply-add is two) of the model's matrix products and convolutions.
        frontend: operations from samples to features.
        kept: bytes that the forward pass saves for the backward pass; written once, read once.
        weights: bytes of the model; read once in each pass of a micro-batch.
        trained: bytes of trained weights; the optimiser reads them, their gradients and two moments, and writes three.
        samples: bytes of int16 samples and of their features, written and read.
    """

    forward: int
    backward: int
    frontend: int
    kept: int
    weights: int
    trained: int
    samples: int

    @property
    def operations(self) -> int:
        return self.forward + self.backward

    def bytes(self, batch: int) -> float:
        """Bytes per clip that a step of `batch` clips in one micro-batch reads and writes at least."""
        return 2 * self.kept + self.samples + (2 * self.weights + 7 * self.trained) / batch

    def seconds(self, rates: Rates, batch: int) -> float:
        """Seconds per clip: the longer of arithmetic and memory traffic, assuming that they overlap perfectly."""
        return max((self.operations + self.frontend) / rates.operations, self.bytes(batch) / rates.bytes)


@dataclass(frozen=True)
class Rates:
    """Measured rates: operations per second of a large matrix product, bytes per second of a large copy."""

    operations: float
    bytes: float


def count(model: RudimentClassifier, wave: Tensor) -> Work:
    """The work of a clip [1, T]; the model is not changed."""
    features = model.features(wave.to(next(model.parameters()).device)).to("meta")
    shadow = copy.deepcopy(model).to("meta").train(model.training)
    kept: dict[int, Tensor] = {}
    own = {p.untyped_storage()._cdata for p in shadow.parameters()} | {
        b.untyped_storage()._cdata for b in shadow.buffers()
    }

    def keep(tensor: Tensor) -> Tensor:
        # Several views of one storage count once; the reference keeps its address from being reused.
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    # Not fused attention, which recomputes its scores in the backward pass and partly has no FLOP formula.
    with sdpa_kernel(SDPBackend.MATH), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with FlopCounterMode(display=False) as forward:
            loss = shadow.classify(features).sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    parameters = list(shadow.parameters())
    samples = wave.shape[-1]
    return Work(
        forward=forward.get_total_flops(),
        backward=backward.get_total_flops(),
        frontend=frontend_operations(model, features),
        kept=sum(tensor.untyped_storage().nbytes() for tensor in kept.values()),
        weights=sum(p.numel() * p.element_size() for p in parameters),
        trained=sum(p.numel() * p.element_size() for p in parameters if p.requires_grad),
        samples=2 * samples + 2 * 4 * features.numel(),
    )


def frontend_operations(model: RudimentClassifier, features: Tensor) -> int:
    """For each frame: window, real FFT (2.5 n log2 n), power, and the non-zero weights of the mel bank."""
    frontend: Any = model.backbone.frontend
    bank = getattr(frontend, "fbank", frontend).bank.matrix  # [bins, M]
    size = 2 * (len(bank) - 1)
    frame = frontend.contract.window + 2.5 * size * math.log2(size) + 3 * len(bank) + 2 * int(bank.count_nonzero())
    return round(features.shape[frontend.time_dim] * frame)


def measure(device: torch.device, bf16: bool, rounds: int = 12) -> Rates:
    """The best of `rounds` rounds of one large matrix product and one large copy."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if bf16 else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    source = torch.empty(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    product, copying = math.inf, math.inf
    for _ in range(rounds):
        synchronize(device)
        began = time.perf_counter()
        _ = a @ a
        synchronize(device)
        copy_began = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        product, copying = min(product, copy_began - began), min(copying, time.perf_counter() - copy_began)
    return Rates(2 * size**3 / product, 2 * source.numel() * source.element_size() / copying)
