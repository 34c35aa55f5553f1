"""How evenly strokes are played: pure functions of an alignment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import BSpline

from sousaphone.deploy.page.strokes import Alignment, Floats

_PER_KNOT = 16  # strokes over which the tempo may change
_FEWEST = 4  # strokes of each hand


@dataclass(frozen=True)
class Hands:
    """The hands compared, ms."""

    late: float  # how much later the left hand is than the right one, relative to the beat
    uncertainty: float  # half width of its 95 % interval
    right: float  # standard deviation of the strokes of a hand
    left: float


@dataclass(frozen=True)
class Evenness:
    """The regularity of strokes, ms; the tempo may change slowly."""

    interval: float  # mean interval between neighbouring strokes
    deviation: float  # standard deviation of the intervals around those of the beat
    hands: Hands | None  # None if it is not known which hand plays, or one hand plays too few strokes


def evenness(alignment: Alignment) -> Evenness:
    """Measure strokes by a linear model: a smooth beat, a shift of the left hand, and a random rest.

    The beat is a spline of the position, with a knot every `_PER_KNOT` strokes. Degrees of freedom are taken into
    account.
    """
    times, count = 1000 * alignment.times, len(alignment.times)
    beat = _splines(alignment.positions.astype(float))
    left = np.array([hand == "L" for hand in alignment.hands], float)[:, None]
    fitted, _, _ = _fit(beat, times)
    rest = np.diff(times - fitted)
    deviation = float(np.sqrt(np.square(rest).sum() / max(1.0, (count - beat.shape[1]) * (count - 1) / count)))
    compared = None
    if alignment.hands and min(left.sum(), count - left.sum()) >= _FEWEST:
        design = np.hstack([beat, left])
        fitted, coefficients, inverse = _fit(design, times)
        rest, free = times - fitted, (count - design.shape[1]) / count
        spread = [float(np.sqrt(np.square(rest[left[:, 0] == hand]).mean() / free)) for hand in (0, 1)]
        error = np.sqrt(np.square(rest).mean() / free * inverse[-1, -1])
        compared = Hands(float(coefficients[-1]), float(2 * error), *spread)
    return Evenness(float(np.diff(times).mean()), deviation, compared)


def _splines(positions: Floats) -> Floats:
    """Splines that describe a slowly changing tempo, at the positions of the strokes [N, K]."""
    count = len(positions)
    degree = min(3, count // 8)
    knots: Floats = np.linspace(positions[0], positions[-1], max(1, count // _PER_KNOT) + 1)
    ends = np.repeat(knots[[0, -1]], degree)
    table = np.concatenate([ends[:degree], knots, ends[degree:]])
    matrix: Floats = BSpline.design_matrix(positions, table, degree).toarray()
    return matrix


def _fit(design: Floats, times: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares: fitted values, coefficients, and the inverse of the normal matrix."""
    inverse: Floats = np.linalg.pinv(design.T @ design).astype(np.float64)
    coefficients = inverse @ design.T @ times
    return design @ coefficients, coefficients, inverse
