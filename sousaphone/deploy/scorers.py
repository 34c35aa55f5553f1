"""The networks of a model in a runtime: windows to logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sousaphone import lora
from sousaphone.backbones.frontends import to_float
from sousaphone.backbones.registry import REGISTRY
from sousaphone.deploy.loading import Member
from sousaphone.deploy.model_folder import ModelConfig
from sousaphone.deploy.onnx_session import LEAST_SECONDS, OnnxSession
from sousaphone.hardware import pick_device, pick_precision
from sousaphone.kernels.packed_linear import pack_layers
from sousaphone.training.step import autocast

_CPU_SAMPLES = 2**19  # most in a batch on a CPU; what is computed from them fits its caches


class Scorer(Protocol):
    """The networks of a model, or of the members of an ensemble."""

    device: torch.device
    batch: int  # most windows at a time

    def __call__(self, windows: npt.NDArray[np.int16], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Compute the logits [M, W, C] of M members from up to `batch` windows [W, T], padded after `lengths` [W]."""


class TorchScorer:
    """Inference with torch, on any device. In float32, adapters are merged into the members' networks.

    Attributes:
        precision: by default that of the device (`pick_precision`); on a CPU only if the model was trained in it.
    """

    def __init__(self, members: Sequence[Member], device: str = "auto", precision: str = "auto") -> None:
        self.device = torch.device(pick_device(device))
        self.precision = _precision(members, self.device.type) if precision == "auto" else precision
        # All members have the same backbone and so the same features.
        self._features = members[0].network.features
        trials = [each.config.trial(device=self.device.type, precision=self.precision) for each in members]
        self._members = [(trial, each.network.place(trial).eval()) for trial, each in zip(trials, members, strict=True)]
        if self.precision == "float32":  # in bfloat16 frozen weights are rounded, and adapters are not
            for _, network in self._members:
                lora.merge(network)
                if self.device.type == "cpu":
                    pack_layers(network)
        self.batch = _batch(members[0].config, self.device)

    def __call__(self, windows: npt.NDArray[np.int16], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        wave, length = torch.from_numpy(windows).to(self.device), torch.from_numpy(lengths).to(self.device)
        with torch.inference_mode():
            features = self._features(to_float(wave), length)
            logits = []
            for trial, network in self._members:
                with autocast(trial):
                    logits.append(network.infer(features).float())
            found: npt.NDArray[np.float32] = torch.stack(logits).cpu().numpy()
        return found


class OnnxScorer:
    """Inference with ONNX Runtime on the CPU; the base weights are not needed."""

    def __init__(self, config: ModelConfig, graphs: Mapping[Path, ModelConfig]) -> None:
        """Load the graphs of the members, each with the member's config.json; raises a UserError if one is damaged or
        of another model."""
        self.device = torch.device("cpu")
        self.batch = _batch(config, self.device)
        self._sessions = list(map(OnnxSession, graphs))
        for session, own in zip(self._sessions, graphs.values(), strict=True):
            session.refuse_other(own.graph_metadata)
        self._classes = len(config.classes)
        self._least = round(LEAST_SECONDS * config.sample_rate)

    def __call__(self, windows: npt.NDArray[np.int16], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        waves = windows * np.float32(1 / 32768)
        found = np.empty((len(self._sessions), len(windows), self._classes), np.float32)
        for length in np.unique(lengths):  # a graph takes waves of one length, without padding
            own = lengths == length
            cut = waves[own, : max(int(length), self._least)]
            for member, session in enumerate(self._sessions):
                found[member, own] = session.logits(cut, self._classes)
        return found


def _precision(members: Sequence[Member], device: str) -> str:
    """Return the precision for a model on a device. On a CPU, a model with a member that was trained in float32 keeps
    it, so that its scores are those of its test."""
    trained = [each.config.trial() for each in members]
    fast = pick_precision(device, trained[0].scale)
    return fast if device == "cuda" or all(each.precision == "bfloat16" for each in trained) else "float32"


def _batch(config: ModelConfig, device: torch.device) -> int:
    trial = config.trial()
    most = REGISTRY[trial.model].micro_batches[trial.scale][device.type]
    if device.type != "cpu":
        return most
    # Several batches are in memory at a time, one for each core.
    return max(1, min(most, _CPU_SAMPLES // round(config.clip_seconds * config.sample_rate)))
