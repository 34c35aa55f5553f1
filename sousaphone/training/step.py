"""One micro-batch: both passes of training, its gradients added to what the step has gathered; or scores alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier

# Where several can do it, the first of these attends: cuDNN's takes 0.72 of flash attention's time on an H200.
_ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class MicroBatch:
    """The passes of a model as they stand in the code, one kernel after the other."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier) -> None:
        self.config, self.model = config, model
        self.trainable = [p for p in model.parameters() if p.requires_grad]

    def begin(self) -> None:
        """A new step: no gradients are gathered yet."""
        for parameter in self.trainable:
            parameter.grad = None

    def train(self, features: Tensor, targets: Tensor, count: int) -> Tensor:
        """Add the gradients of features and targets [b, C], which are a part of a step of `count` clips.

        Returns:
            The sum of the clips' losses.
        """
        with autocast(self.config):
            logits = self.model.classify(features)
        loss = self._loss(logits, targets)
        (loss / count).backward()
        return loss.detach()

    def score(self, features: Tensor) -> Tensor:
        """Features to logits [b, C] in float32; the model is in evaluation mode, and no gradients are wanted."""
        with autocast(self.config):
            return self.model.classify(features).float()

    def _loss(self, logits: Tensor, targets: Tensor, reduction: str = "sum") -> Tensor:
        smoothing = self.config.label_smoothing
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction=reduction)


class CapturedMicroBatch(MicroBatch):
    """The same on CUDA, each pass recorded once as a CUDA graph and replayed: its thousands of small kernels would wait
    for Python. A smaller batch, as the last of an epoch may be, is filled up with clips that count for nothing."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier) -> None:
        super().__init__(config, model)
        for parameter in self.trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._training: _Capture | None = None
        self._scoring: _Capture | None = None

    def begin(self) -> None:
        torch._foreach_zero_(self._gathered())

    def train(self, features: Tensor, targets: Tensor, count: int) -> Tensor:
        shares = torch.full((len(features),), 1 / count, device=features.device)
        if self._training is None:
            gathered = self._gathered()
            before = [gradient.clone() for gradient in gathered]
            size = max(len(features), self.config.micro_batch)
            self._training = _Capture(self.train_weighted, size, features, targets, shares)
            torch._foreach_copy_(gathered, before)  # to record is to run it
        return self._training(features, targets, shares).sum() * count

    def score(self, features: Tensor) -> Tensor:
        if self._scoring is None:
            size = max(len(features), self.config.eval_batch)
            self._scoring = _Capture(super().score, size, features)
        return self._scoring(features)[: len(features)]

    def train_weighted(self, features: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
        """Add the gradients of clips that count `shares` [b] each; their losses, each times its share."""
        with autocast(self.config), sdpa_kernel(_ATTENTION, set_priority=True):
            losses = shares * self._loss(self.model.classify(features), targets, "none")
            gradients = torch.autograd.grad(losses.sum(), self.trainable)
        torch._foreach_add_(self._gathered(), list(gradients))
        return losses.detach()

    def _gathered(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.trainable if parameter.grad is not None]


class _Capture:
    """A function of tensors [size, ...] to such a tensor as a CUDA graph. The random state is left as if nothing had
    been run yet."""

    def __init__(self, function: Callable[..., Tensor], size: int, *inputs: Tensor) -> None:
        self.inputs = [tensor.new_zeros(size, *tensor.shape[1:]) for tensor in inputs]
        self._fill(inputs)
        self.replay, self.output = self._record(function)

    def _record(self, function: Callable[..., Tensor]) -> tuple[Callable[[], object], Tensor]:
        """What runs the function on `inputs` again, and where its result will stand."""
        graph, device = torch.cuda.CUDAGraph(), self.inputs[0].device
        with torch.random.fork_rng(devices=[device]):
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):  # kernels are compiled and chosen, and workspaces taken, before the recording
                for _ in range(2):
                    function(*self.inputs)
            torch.cuda.current_stream(device).wait_stream(side)
            # Other threads of the process may go on using CUDA meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = function(*self.inputs)
        return graph.replay, output

    def __call__(self, *inputs: Tensor) -> Tensor:
        self._fill(inputs)
        self.replay()
        return self.output.clone()

    def _fill(self, inputs: Sequence[Tensor]) -> None:
        """What is beyond a smaller batch stays of an earlier one, but that its share is nothing."""
        for own, given in zip(self.inputs, inputs, strict=True):
            own[: len(given)].copy_(given)
            if own.dim() == 1:
                own[len(given) :].zero_()


def micro_batch_of(config: TrainConfig, model: RudimentClassifier) -> MicroBatch:
    """The one for the device; the model is there already.

    A recording repeats what was decided while it was made, so none is made of a backbone that trains in full: it drops
    layers by chance, and its batch norms learn.
    """
    recorded = config.device == "cuda" and config.strategy != "full"
    return (CapturedMicroBatch if recorded else MicroBatch)(config, model)


def autocast(config: TrainConfig) -> torch.autocast:
    """bfloat16 on CUDA where all of a model trains; where most is frozen, `RudimentClassifier.place` has seen to it."""
    enabled = config.device == "cuda" and config.strategy == "full"
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=enabled)
