"""All figures of a report in reading order, each as a PNG for documents and as a chart for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.figures import accuracy, augmentation, confusion_matrix, curves, f1, pareto, slices, times
from analysis.figures.context import Mark, Scene
from analysis.figures.mpl import plain_text
from analysis.load.trials import Trial
from analysis.write.blocks import Picture

_FIGURES = (accuracy, augmentation, pareto, times, curves, f1, confusion_matrix, slices)
__all__ = ["Mark", "pictures"]


def pictures(
    trials: Sequence[Trial],
    predictions: pd.DataFrame,
    baselines: Sequence[Mark],
    cpu_ms: Mapping[str, float],
    adapter_bytes: Mapping[str, int],
    banner: str | None,
) -> list[Picture]:
    """Draw all figures; one without any data yet is left out.

    Args:
        predictions: of `analysis.load.predictions.read_predictions`; may be empty.
        baselines, cpu_ms, adapter_bytes, banner: see `Scene`.
    """
    kept = [name for name in predictions.columns if not name.startswith("logit_")]
    scene = Scene(trials, predictions[kept], baselines, cpu_ms, adapter_bytes, banner)
    with plain_text():
        found = [module.picture(scene) for module in _FIGURES]
    return [picture for picture in found if picture is not None]
