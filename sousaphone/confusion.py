"""A confusion matrix as a picture: rows are true classes, normalised, framed by family. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sousaphone.rudiments import FAMILIES, SLUGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_SIDE_INCHES, _DPI = 8.0, 110
FRAME = "#D55E00"  # of a family


def confusion_counts(
    true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: int = len(SLUGS)
) -> npt.NDArray[np.int64]:
    """[C, C] counts from labels [N]; the row is the true class, the column the predicted one."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def row_shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """[C, C] counts as shares of each row's sum; NaN in the row of a class that was not heard."""
    heard = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, heard, out=np.full(counts.shape, np.nan), where=heard > 0)


def families(slugs: Sequence[str] = SLUGS) -> list[tuple[str, int, int]]:
    """(family, first place, one past its last) of rudiments that stand together by family."""
    found, begin = [], 0
    for family, members in itertools.groupby(slugs, key=FAMILIES.__getitem__):
        end = begin + len(list(members))
        found.append((family, begin, end))
        begin = end
    return found


def draw_matrix(axes: Axes, counts: npt.NDArray[np.int64], size: float) -> AxesImage:
    """Draw a confusion matrix into axes that fill a square: shares of each row, names, families framed and named.

    Args:
        counts: [C, C], the row the true class, the column the predicted one. A class without clips is grey.
        size: of the names, points.
    """
    # Matplotlib takes half a second to import, and only a trial's end and the report want it.
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    scale = colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = axes.imshow(_masked(counts), cmap=scale, vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    names, places = [slug.replace("_", " ") for slug in SLUGS], range(len(SLUGS))
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0, pad=2)
    axes.set_xlabel("taken for")
    axes.set_ylabel("played")
    for family, begin, end in families():
        side = end - begin
        axes.add_patch(Rectangle((begin - 0.5, begin - 0.5), side, side, fill=False, edgecolor=FRAME, linewidth=1.2))
        # Above its frame, where confusions between families are rare; the first has no room there.
        x, y, at = (end - 0.6, begin - 0.7, "bottom") if begin else (end - 0.3, 0.0, "center")
        axes.text(x, y, family, fontsize=size + 1, color=FRAME, va=at, ha="right" if begin else "left")
    return image


def _masked(counts: npt.NDArray[np.int64]) -> np.ma.MaskedArray:
    """Shares of each row, masked where its class was not heard."""
    return np.ma.masked_invalid(row_shares(counts))


def confusion_image(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Draw a confusion matrix.

    Args:
        counts: [C, C], the row the true class, the column the predicted one.

    Returns:
        RGB pixels [H, W, 3]. A row's colours are shares of that class's clips; a class without clips is grey.
    """
    canvas, paper, moving = _sheet()
    image = moving[0]
    image.set_data(_masked(counts))
    canvas.restore_region(paper)
    for artist in moving:
        image.axes.draw_artist(artist)
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@cache
def _sheet() -> tuple[Any, Any, list[Any]]:
    """The canvas, its picture without the matrix, and the matrix with what lies upon it: to set 80 names takes longer
    than a hundred matrices, and a worker draws one at each trial's end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIDE_INCHES, _SIDE_INCHES), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.19, 0.19, 0.78, 0.78))
    image = draw_matrix(axes, np.zeros((len(SLUGS), len(SLUGS)), np.int64), 6.0)
    moving = [image, *axes.patches, *axes.texts, *axes.spines.values()]
    for artist in moving:
        artist.set_animated(True)
    canvas.draw()
    return canvas, canvas.copy_from_bbox(figure.bbox), moving
