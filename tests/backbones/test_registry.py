"""Every entry of the registry is complete."""

from __future__ import annotations

import pytest

from sousaphone.backbones.registry import REGISTRY
from sousaphone.config import DEVICES, SCALES, STRATEGIES


@pytest.mark.parametrize("name", REGISTRY)
def test_entries_cover_all_scales_strategies_and_devices(name: str) -> None:
    spec = REGISTRY[name]
    for scale in SCALES:
        assert scale in spec.scales
        assert all(spec.learning_rates[scale][own] > 0 for own in ([spec.strategy] if spec.strategy else STRATEGIES))
        # The effective batch is 32 clips on every device.
        assert all(32 % spec.micro_batches[scale][device] == 0 for device in DEVICES)
