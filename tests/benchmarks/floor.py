"""The least that a training step could take: its operations at the chip's matrix rate, its bytes at its memory's.

Counted are the operations that LoRA needs: both passes of the frozen model, gradients of activations, and of weights
only where they train; nothing that an implementation computes a second time to save memory. Counting runs the model on
torch's `meta` device, so it costs no arithmetic and gives the same on every machine.
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

from .clock import wait


@dataclass(frozen=True)
class Work:
    """Of one clip in a training step, where nothing else is said.

    Attributes:
        forward, backward: operations (a product and its sum are two) of the model's matrix products and convolutions.
        frontend: operations from samples to features.
        kept: bytes that the forward pass leaves for the backward one; written once, read once.
        weights: bytes of the model; read once in each pass of a micro-batch.
        trained: bytes that train; the optimiser reads them, their gradients and two moments, and writes three.
        samples: bytes of int16 sound and of the features made of it, written and read.
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

    def bytes(self, batch: int, micro_batches: int = 1) -> float:
        """A clip's share of what a step of `batch` clips moves at least."""
        a_step = 2 * micro_batches * self.weights + 7 * self.trained
        return 2 * self.kept + self.samples + a_step / batch

    def seconds(self, rates: Rates, batch: int) -> float:
        """Of a clip: whatever takes longer, arithmetic or memory, if each went on beside the other without a pause."""
        return max((self.operations + self.frontend) / rates.operations, self.bytes(batch) / rates.bytes)


@dataclass(frozen=True)
class Rates:
    """What the chip was measured at: operations a second of a large matrix product, bytes a second of a large copy."""

    operations: float
    bytes: float


def count(model: RudimentClassifier, wave: Tensor) -> Work:
    """The work of a clip [1, T]; the model is left alone."""
    features = model.features(wave.to(next(model.parameters()).device)).to("meta")
    shadow = copy.deepcopy(model).to("meta").train(model.training)
    kept: dict[int, Tensor] = {}
    own = {p.untyped_storage()._cdata for p in shadow.parameters()} | {
        b.untyped_storage()._cdata for b in shadow.buffers()
    }

    def keep(tensor: Tensor) -> Tensor:
        # Several views of one storage are kept once; the tensor is held so that no other takes its address.
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    # By hand: a fused attention recomputes its scores in the backward pass, and not all of them have a formula.
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
    """A window, a real FFT (2.5 n log2 n), the power and the mel bank's weights that are not zero, for each frame."""
    frontend: Any = model.backbone.frontend
    bank = getattr(frontend, "fbank", frontend).bank.matrix  # [bins, M]
    size = 2 * (len(bank) - 1)
    frame = frontend.contract.window + 2.5 * size * math.log2(size) + 3 * len(bank) + 2 * int(bank.count_nonzero())
    return round(features.shape[frontend.time_dim] * frame)


def measure(device: torch.device, bf16: bool, rounds: int = 12) -> Rates:
    """The best of some rounds of one large matrix product and one large copy."""
    size = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if bf16 else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    source = torch.empty(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    product, copying = math.inf, math.inf
    for _ in range(rounds):
        wait(device)
        began = time.perf_counter()
        _ = a @ a
        wait(device)
        halfway = time.perf_counter()
        target.copy_(source)
        wait(device)
        product, copying = min(product, halfway - began), min(copying, time.perf_counter() - halfway)
    return Rates(2 * size**3 / product, 2 * source.numel() * source.element_size() / copying)
