"""All figures of a report in reading order, each as a PNG for documents and as a chart for the page."""

from __future__ import annotations

from analysis.figures import (
    accuracy,
    augmentation,
    confusion_matrix,
    curves,
    f1,
    pareto,
    reliability,
    search_budget,
    search_settings,
    slices,
    times,
)
from analysis.figures.mpl import plain_text
from analysis.run_summary import Findings
from analysis.write.blocks import Picture


_FIGURES = (
    *(search_budget, search_settings),
    *(accuracy, augmentation, pareto, times, curves, f1, confusion_matrix, slices, reliability),
)


def pictures(run: Findings) -> list[Picture]:
    """Draw all figures; one without any data yet is left out."""
    with plain_text():
        found = [module.picture(run) for module in _FIGURES]
    return [picture for picture in found if picture is not None]
