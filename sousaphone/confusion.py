"""Confusion matrices: counts, and a picture with normalised rows and framed families. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sousaphone.rudiments import FAMILIES, SLUGS, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

FRAME = "#D55E00"  # colour of a family's frame


def confusion_counts(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int = len(SLUGS)
) -> npt.NDArray[np.int64]:
    """Count labels [N] into [C, C]: rows are true classes, columns predicted ones."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def row_fractions(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Divide [C, C] counts by the sum of their row; the row of a class without clips is NaN."""
    support = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, support, out=np.full(counts.shape, np.nan), where=support > 0)


def families(slugs: Sequence[str] = SLUGS) -> list[tuple[str, int, int]]:
    """(family, first index, one past its last) of rudiments that are sorted by family."""
    each = [FAMILIES[slug] for slug in slugs]
    return [(family, each.index(family), each.index(family) + each.count(family)) for family in dict.fromkeys(each)]


def draw_matrix(axes: Axes, counts: npt.NDArray[np.int64], size: float) -> AxesImage:
    """Draw a confusion matrix into square axes: the fractions of each row, the names, and the families' frames.

    Args:
        counts: [C, C]; rows are true classes, columns predicted ones. The row of a class without clips is grey.
        size: of the names, points.
    """
    # Matplotlib takes half a second to import and is needed only at a trial's end and in the report.
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    scale = colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = axes.imshow(row_fractions(counts), cmap=scale, vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    names, places = [spoken(slug) for slug in SLUGS], range(len(SLUGS))
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0, pad=2)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for family, begin, end in families():
        side = end - begin
        axes.add_patch(Rectangle((begin - 0.5, begin - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=1.2))
        # Names are above their frames, where confusions are rare; the first frame has no room above it.
        x, y, at = (end - 0.6, begin - 0.7, "bottom") if begin else (end - 0.3, 0.0, "center")
        axes.text(x, y, family, fontsize=size + 1, color=FRAME, va=at, ha="right" if begin else "left")
    return image


def confusion_image(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Draw a confusion matrix as RGB pixels [H, W, 3]; see `draw_matrix` for `counts`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 8.0), dpi=110)
    canvas = FigureCanvasAgg(figure)
    draw_matrix(figure.add_axes((0.19, 0.19, 0.78, 0.78)), counts, 6.0)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
