"""Forward and backward pass of one micro-batch, which accumulates gradients, and forward pass for scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sousaphone.config import TrainConfig
from sousaphone.model import RudimentClassifier

# Attention backends by priority: cuDNN takes 0.72 of the time of flash attention on an H200.
_ATTENTION = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class MicroBatch:
    """The passes of a model, executed eagerly."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier) -> None:
        self.config, self.model = config, model
        self.trainable = [p for p in model.parameters() if p.requires_grad]

    def begin(self) -> None:
        """Start a new step without gradients."""
        self.model.zero_grad()

    def train(self, features: Tensor, targets: Tensor, count: int) -> Tensor:
        """Accumulate the gradients of features and targets [b, C], a part of a step of `count` clips; return the sum of
        their losses."""
        with autocast(self.config):
            logits = self.model.classify(features)
        loss = self._loss(logits, targets)
        (loss / count).backward()
        return loss.detach()

    def score(self, features: Tensor) -> Tensor:
        """Compute logits [b, C] in float32, with the model in evaluation mode and without gradients."""
        with autocast(self.config):
            return self.model.classify(features).float()

    def _loss(self, logits: Tensor, targets: Tensor, reduction: str = "sum") -> Tensor:
        smoothing = self.config.label_smoothing
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction=reduction)


class CapturedMicroBatch(MicroBatch):
    """Each pass is captured once as a CUDA graph and replayed: it would be slower to launch thousands of small kernels
    from Python. Smaller batches, such as the last one of an epoch, are padded with clips of weight zero."""

    def __init__(self, config: TrainConfig, model: RudimentClassifier) -> None:
        super().__init__(config, model)
        for parameter in self.trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._training: GraphCapture | None = None
        self._scoring: GraphCapture | None = None

    def begin(self) -> None:
        torch._foreach_zero_(self._gradients())

    def train(self, features: Tensor, targets: Tensor, count: int) -> Tensor:
        weights = torch.full((len(features),), 1 / count, device=features.device)
        if self._training is None:
            gradients = self._gradients()
            before = [gradient.clone() for gradient in gradients]
            size = max(len(features), self.config.micro_batch)
            self._training = GraphCapture(self.train_weighted, size, features, targets, weights)
            torch._foreach_copy_(gradients, before)  # the capture has run the pass
        return self._training(features, targets, weights).sum() * count

    def score(self, features: Tensor) -> Tensor:
        if self._scoring is None:
            size = max(len(features), self.config.eval_batch)
            self._scoring = GraphCapture(super().score, size, features)
        return self._scoring(features)[: len(features)]

    def train_weighted(self, features: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Accumulate the gradients of clips with `weights` [b] and return their weighted losses [b]."""
        with autocast(self.config), sdpa_kernel(_ATTENTION, set_priority=True):
            losses = weights * self._loss(self.model.classify(features), targets, "none")
            gradients = torch.autograd.grad(losses.sum(), self.trainable)
        torch._foreach_add_(self._gradients(), list(gradients))
        return losses.detach()

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self.trainable if parameter.grad is not None]


class GraphCapture:
    """A function of tensors [size, ...] that returns such a tensor, captured as a CUDA graph. The capture does not
    change the random state."""

    def __init__(self, function: Callable[..., Tensor], size: int, *inputs: Tensor) -> None:
        self.inputs = [tensor.new_zeros(size, *tensor.shape[1:]) for tensor in inputs]
        self._fill(inputs)
        self.replay, self.output = self.capture(function)

    def capture(self, function: Callable[..., Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Return a function that replays the graph on `inputs`, and the tensor that receives its result."""
        graph, device = torch.cuda.CUDAGraph(), self.inputs[0].device
        with torch.random.fork_rng(devices=[device]):
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side):  # warm-up: compiles and selects kernels, allocates workspaces
                for _ in range(2):
                    function(*self.inputs)
            torch.cuda.current_stream(device).wait_stream(side)
            # Other threads of the process may use CUDA during the capture.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = function(*self.inputs)
        return graph.replay, output

    def __call__(self, *inputs: Tensor) -> Tensor:
        self._fill(inputs)
        self.replay()
        return self.output.clone()

    def _fill(self, inputs: Sequence[Tensor]) -> None:
        """Copy a batch into the captured inputs. A smaller batch is followed by old clips with weights of zero."""
        for captured, tensor in zip(self.inputs, inputs, strict=True):
            captured[: len(tensor)].copy_(tensor)
            if captured.dim() == 1:  # weights
                captured[len(tensor) :].zero_()


def micro_batch_of(config: TrainConfig, model: RudimentClassifier) -> MicroBatch:
    """The micro-batch for the configuration and a model that is on its device.

    A graph replays the decisions made during its capture, so that backbones trained in full are not captured: they drop
    layers at random and update their batch norms.
    """
    return (CapturedMicroBatch if config.captured else MicroBatch)(config, model)


def autocast(config: TrainConfig) -> torch.autocast:
    """bfloat16, unless the frozen layers are held in it (`RudimentClassifier.place`)."""
    enabled = config.precision == "bfloat16" and not config.frozen_bfloat16
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=enabled)
