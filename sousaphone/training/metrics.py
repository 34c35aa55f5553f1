"""Metrics of logits and labels, as pure functions; accuracies are fractions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sousaphone.confusion import confusion_counts

TEMPERATURES = (0.05, 20.0)  # limits of a fitted temperature
_PRIOR = math.log(2)  # standard deviation of log T before any clip is seen, which matters with few clips only


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of clips [N] whose label has the highest of the C logits [N, C]."""
    return (logits.argmax(1) == labels).double().mean().item()


def top_k(logits: Tensor, labels: Tensor, k: int = 5) -> float:
    """Fraction of clips [N] whose label is among the k highest logits [N, C]."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == labels[:, None]).any(1).double().mean().item()


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Mean cross entropy in nats, without label smoothing."""
    return F.cross_entropy(logits.float(), labels).item()


def macro_f1(logits: Tensor, labels: Tensor) -> float:
    """Mean F1 over the classes that occur in the labels; scikit-learn adds those that are only predicted."""
    counts = confusion_counts(labels.cpu().numpy(), logits.argmax(1).cpu().numpy(), logits.shape[1])
    matrix = torch.from_numpy(counts).double()
    f1 = 2 * matrix.diagonal() / (matrix.sum(1) + matrix.sum(0))
    return f1[matrix.sum(1) > 0].mean().item()


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The most probable temperature T within `TEMPERATURES`, by the cross entropy of logits / T [N, C] and a log-normal
    prior around 1, without which a few clips could give an extreme temperature; else as Guo et al., 2017.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    logits = logits.double()
    low, high = map(math.log, TEMPERATURES)

    def loss(log: float) -> float:
        error = F.cross_entropy(logits / math.exp(log), labels, reduction="sum").item()
        return error + (log / _PRIOR) ** 2 / 2

    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x)
