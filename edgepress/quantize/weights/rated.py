"""Rounding for a coded file: second-order rounding that knows what every number costs there.

Whole numbers ``q`` of a matrix ``W`` with one step ``D``, under the Gram ``H`` of its inputs::

    minimize   sum_o (w_o / D - q_o) H (w_o / D - q_o)^T  +  rate * e * bits(q)

``e`` is what an error of one weight costs once the others have made up for it (the geometric mean of ``1 / U_ii^2``,
:mod:`edgepress.quantize.weights.obs`), so ``rate`` has no unit: at ``SLOPE`` a bit is worth what a finer step would
ask for it. ``bits`` are those of the coder's classes, by row and column (:mod:`edgepress.codec.classes`): a row or a
column of small numbers is cheap as a whole, so whole rows and columns die out. Cyclic coordinate descent from plain
second-order rounding; the lengths are taken anew before every sweep.

Source: Wiedemann, Marban, Mueller & Samek 2018 (arXiv 1812.07520), the objective; Behdin 2023 (QuantEase), the descent;
Gish & Pierce 1968, the slope. Guarantees: rate 0 is plain second-order rounding; deterministic.
"""

from __future__ import annotations

import numpy as np

from edgepress.codec.classes import classes_of, table_of
from edgepress.codec.decoder import MOST
from edgepress.quantize.weights.obs import Choose, Factor, Grid, descend, obs

REACH = 127
"""Largest number. Beyond what the coder's tables hold (``MOST``) it takes an escape: that is for fine steps only."""

SWEEPS = 2
"""Sweeps with lengths: later ones bring next to nothing."""


def rated(weight: np.ndarray, factor: Factor, step: float, rate: float) -> np.ndarray:
    """Whole numbers of a matrix.

    Args:
        weight: float64 ``[rows, columns]``.
        factor: of the Gram of its inputs.
        step: distance of two numbers.
        rate: what a bit is worth, from 0.

    Returns:
        int8 ``[rows, columns]``, up to :data:`REACH`.
    """
    whole = obs(weight, factor, Grid.uniform(np.full(len(weight), step), -REACH, REACH))
    if not rate:
        return whole
    steps, found = weight / step, whole.astype(np.float64)
    for _ in range(SWEEPS):
        classes = classes_of(found.astype(np.int64))
        lengths = rate * factor.left * table_of(found.astype(np.int64), classes).astype(np.float64)
        descend(found, steps, factor, _paying(factor.gram, lengths, classes))
    return found.astype(np.int8)


def _paying(gram: np.ndarray, lengths: np.ndarray, classes: np.ndarray) -> Choose:
    """Choice by error and length; ``lengths`` ``[classes, 2 MOST + 1]`` in units of the error."""
    return lambda best, current, column: _cheapest(
        best, current, float(gram[column, column]), lengths, classes[:, column]
    )


def _cheapest(
    best: np.ndarray, current: np.ndarray, weight: float, lengths: np.ndarray, classes: np.ndarray
) -> np.ndarray:
    """The number of now, the nearest one, the next one toward zero, or zero: whichever costs least, ``[rows]``."""
    nearest = np.clip(np.rint(best), -REACH, REACH)
    tried = np.stack([current, nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
    places = np.clip(tried.astype(np.int64), -MOST, MOST) + MOST
    costs = weight * np.square(best - tried) + lengths[classes, places]
    return np.asarray(tried[costs.argmin(0), np.arange(len(best))])
