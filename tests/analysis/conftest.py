"""A run of eight arms and its figures."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.load.trials import Trial
from analysis.write.blocks import Picture
from tests.analysis.figure_builders import BASELINES, MODELS, built, drawn
from tests.analysis.run_builders import arm


@pytest.fixture(scope="session")
def eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], pd.DataFrame]:
    """Every backbone with and without augmentation, two seeds each."""
    plan = [arm(m, augment=a, seed=s) for m in MODELS for a in (True, False) for s in (0, 1)]
    return built(tmp_path_factory.mktemp("eight"), plan)


@pytest.fixture(scope="session")
def found(eight: tuple[list[Trial], pd.DataFrame]) -> dict[str, Picture]:
    """All figures of the run."""
    return drawn(*eight, baselines=BASELINES)
