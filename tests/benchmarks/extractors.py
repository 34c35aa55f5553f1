"""Feature extraction of one clip by the libraries' own code, as their documentation recommends it.

Each extractor agrees with our batched front end (tests/benchmarks/test_speed.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.compliance.kaldi import fbank, get_mel_banks

from sousaphone.model import RudimentClassifier

Extract = Callable[[np.ndarray], Tensor]  # [T] at the backbone's rate to features without a batch axis


def extractor(model: RudimentClassifier) -> Extract:
    """The extractor that computes the features of the model's front end."""
    frontend: Any = model.backbone.frontend
    name = model.backbone.spec.name.removesuffix("-ft")
    makers: dict[str, Callable[[Any], Extract]] = {"ast": _ast, "htsat": _clap, "beats": _beats, "efficientat": _mn}
    return makers[name](frontend)


def _ast(frontend: Any) -> Extract:
    from transformers import ASTFeatureExtractor

    official = ASTFeatureExtractor(max_length=frontend.length)

    def extract(wave: np.ndarray) -> Tensor:
        return official(wave, sampling_rate=16_000, return_tensors="pt")["input_values"][0]

    return extract


def _clap(frontend: Any) -> Extract:
    from transformers import ClapFeatureExtractor

    official = ClapFeatureExtractor(
        frequency_min=50, frequency_max=14_000, truncation="rand_trunc", padding="repeatpad"
    )

    def extract(wave: np.ndarray) -> Tensor:
        found = official(wave, sampling_rate=48_000, max_length=frontend.samples)["input_features"][0]
        return torch.as_tensor(found, dtype=torch.float32)

    return extract


def _beats(frontend: Any) -> Extract:
    """As `BEATs.preprocess` of https://github.com/microsoft/unilm/tree/master/beats."""

    def extract(wave: np.ndarray) -> Tensor:
        found = fbank(
            torch.from_numpy(wave)[None] * 2**15,
            num_mel_bins=128,
            sample_frequency=16_000,
            frame_length=25,
            frame_shift=10,
        )
        return (found - frontend.contract.mean) / frontend.contract.scale

    return extract


def _mn(frontend: Any) -> Extract:
    """As `AugmentMelSTFT` of fschmid56/EfficientAT in evaluation mode, but with the mel bank computed only once."""
    bins, hop = frontend.bank.bands, frontend.contract.hop
    bank, _ = get_mel_banks(bins, 1024, 32_000.0, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    bank = F.pad(bank, (0, 1))  # [M, 513]
    window, emphasis = torch.hann_window(800, periodic=False), torch.tensor([[[-0.97, 1.0]]])

    def extract(wave: np.ndarray) -> Tensor:
        x = F.conv1d(torch.from_numpy(wave)[None, None], emphasis)[0]
        spectrum = torch.stft(x, 1024, hop, 800, window, center=True, return_complex=True)
        power = spectrum.real**2 + spectrum.imag**2  # [1, 513, F]
        return (((bank @ power + 1e-5).log() + 4.5) / 5.0)[0]

    return extract
