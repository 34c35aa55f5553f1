"""A confusion matrix as a picture: rows are true classes, normalised, framed by family. No torch."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from sousaphone.rudiments import FAMILIES, SLUGS

_SIDE_INCHES, _DPI = 8.0, 110


def confusion_counts(true: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """[C, C] counts from labels [N]; the row is the true class, the column the predicted one."""
    classes = len(SLUGS)
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def row_shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """[C, C] counts as shares of each row's sum; NaN in the row of a class that was not heard."""
    heard = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, heard, out=np.full(counts.shape, np.nan), where=heard > 0)


def families() -> list[tuple[str, int, int]]:
    """(family, first class, one past its last), in the order of the classes."""
    found, begin = [], 0
    for family, members in itertools.groupby(SLUGS, key=FAMILIES.__getitem__):
        end = begin + len(list(members))
        found.append((family, begin, end))
        begin = end
    return found


def confusion_image(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Draw a confusion matrix.

    Args:
        counts: [C, C], the row the true class, the column the predicted one.

    Returns:
        RGB pixels [H, W, 3]. A row's colours are shares of that class's clips; a class without clips is grey.
    """
    # Matplotlib takes half a second to import, and only a trial's end wants it.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(_SIDE_INCHES, _SIDE_INCHES), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.19, 0.19, 0.78, 0.78))
    scale = colormaps["Blues"].with_extremes(bad="#eeeeee")
    axes.imshow(np.ma.masked_invalid(row_shares(counts)), cmap=scale, vmin=0.0, vmax=1.0, interpolation="nearest")
    names, places = [slug.replace("_", " ") for slug in SLUGS], range(len(SLUGS))
    axes.set_xticks(places, names, rotation=90, fontsize=6)
    axes.set_yticks(places, names, fontsize=6)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    for family, begin, end in families():
        size = end - begin
        axes.add_patch(
            Rectangle((begin - 0.5, begin - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
        # Above its frame, where confusions between families are rare; the first has no room there.
        x, y, side = (begin - 0.4, begin - 0.7, "bottom") if begin else (end - 0.3, begin, "center")
        axes.text(x, y, family, fontsize=7, color="#D55E00", verticalalignment=side)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
