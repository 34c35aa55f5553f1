"""All figures of a report in reading order, each as a PNG for documents and as a chart for the page."""

from __future__ import annotations

from analysis.figures import accuracy, augmentation, confusion_matrix, curves, f1, pareto, reliability, slices, times
from analysis.figures import search_budget as budget
from analysis.figures import search_settings as settings
from analysis.figures.mpl import plain_text
from analysis.run_summary import Findings
from analysis.write.blocks import Picture

_OF_RESULTS = (accuracy, augmentation, pareto, times, curves, f1, confusion_matrix, slices, reliability)
_FIGURES = (budget, settings, *_OF_RESULTS)


def pictures(run: Findings) -> list[Picture]:
    """Draw all figures; one without any data yet is left out."""
    with plain_text():
        found = [module.picture(run) for module in _FIGURES]
    return [picture for picture in found if picture is not None]
