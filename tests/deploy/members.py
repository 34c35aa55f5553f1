"""Models without a run."""

from __future__ import annotations

from sousaphone.config import TrainConfig
from sousaphone.deploy.loading import Member
from sousaphone.deploy.model_folder import ARCHITECTURE, Calibration, ModelConfig
from sousaphone.model import build_model
from sousaphone.rudiments import SLUGS


def untrained(trial: TrainConfig, calibration: Calibration | None = None) -> Member:
    """The model of a trial before its training."""
    network = build_model(trial, len(SLUGS)).eval()
    config = ModelConfig(
        kind="adapter",
        architecture={field: getattr(trial, field) for field in ARCHITECTURE},
        classes=SLUGS,
        sample_rate=network.backbone.spec.sample_rate,
        clip_seconds=trial.clip_seconds,
        front_end=network.backbone.frontend.contract,
        base_weights={},
        calibration=calibration or Calibration(),
    )
    return Member(config, network)
