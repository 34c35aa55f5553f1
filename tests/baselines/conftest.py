"""The tests of the baselines train the transformer over strokes for a few steps only."""

from __future__ import annotations

import pytest

from sousaphone.baselines import classifiers


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "STEPS", 3)
