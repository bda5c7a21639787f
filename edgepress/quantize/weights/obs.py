"""Second-order rounding: errors of weights already rounded are made up for by those still free.

Optimal Brain Surgeon over a grid (Hassibi 1993; Frantar 2022, GPTQ): with ``U`` the upper Cholesky factor of the
inverse Gram, column by column, most important columns first::

    q_i = round(w_i / s)      w_j -= (w_i - s q_i) / U_ii * U_ij      for all j after i

then, from the better of that and the nearest numbers (with few levels some rows end up worse than those), cyclic
coordinate descent on the same objective (Behdin 2023, QuantEase), which can only lower it::

    q_i = round((w^_i - (w^ - w) H_i / H_ii) / s)

Objective: sum_o (w_o - s_o q_o) H (w_o - s_o q_o)^T. Rows are independent, each has its own scale and bounds or
codebook. Guarantees: whole numbers within bounds; no row is worse than rounded to the nearest, by the damped Gram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.statistics import Gram

DAMPING = (0.01, 1.0)
"""Bounds of what is added to the diagonal, as a share of its mean: columns / rows, since moments of few rows promise
correlations that other samples do not keep (Ledoit & Wolf 2004). Convolutions have rows enough not to feel it."""

MANY = 1 << 40
"""Rows enough."""

TRIFLE = 1e-10
"""The same, as a share of what it is without the means taken out: inputs that are constant leave nothing but noise."""

BLOCK = 64
PASSES = 2
"""Sweeps of coordinate descent: they tell at few levels only, and later ones bring next to nothing."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What the second moments say about rounding.

    Attributes:
        gram: damped second moments, float64 ``[columns, columns]``.
        order: columns by falling importance.
        upper: upper Cholesky factor of the inverse of the ordered Gram.
    """

    gram: np.ndarray
    order: np.ndarray
    upper: np.ndarray

    @property
    def left(self) -> float:
        """What an error of one weight costs once the others have made up for it: the geometric mean over columns."""
        return float(np.exp(-2.0 * np.log(np.diag(self.upper)).mean()))

    @classmethod
    def of(cls, gram: np.ndarray, size: float = 0.0, rows: int = MANY) -> Factor:
        """Factor a Gram of means, float64 ``[columns, columns]``.

        Args:
            gram: the Gram.
            size: mean square of the inputs, where the Gram is about their means.
            rows: how many rows it is the mean of.
        """
        diagonal = np.diag(gram)
        share = float(np.clip(len(gram) / max(rows, 1), *DAMPING))
        damped = gram + np.eye(len(gram)) * max(share * float(diagonal.mean()), TRIFLE * size, 1e-12)
        order = np.argsort(-diagonal, kind="stable")
        inverse = np.linalg.inv(damped[np.ix_(order, order)])
        # upper Cholesky factor: U^T U = inverse, U upper
        upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
        return cls(damped, order, upper)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What rounding needs to know about the inputs of a fit.

    Attributes:
        spread: second moments of the columns after the biases have taken up all they can ``[columns, columns]``.
        means: means of the columns over the rows that each bias is added to ``[biases, columns]``.
        size: mean square of a column, with its mean.
        rows: how many rows these are moments of.
    """

    spread: np.ndarray
    means: np.ndarray
    size: float
    rows: int

    @classmethod
    def of(cls, moments: Gram, biases: int) -> Inputs:
        """From the moments of a fit; every row has one of the biases, or none."""
        columns = len(moments.inner) - biases
        inner = moments.inner / moments.rows
        means = inner[columns:, :columns] / np.diag(inner)[columns:, None]
        spread = inner[:columns, :columns] - inner[:columns, columns:] @ means
        return cls(spread, means, float(np.diag(inner)[:columns].mean()), moments.rows)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the weights of each row may lie: ``scale * whole number``.

    Attributes:
        scale: ``[rows]``.
        low: least whole number ``[rows]``.
        high: greatest whole number ``[rows]``.
        codebook: the allowed whole numbers, rising; None allows all between ``low`` and ``high``.
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    codebook: np.ndarray | None = None

    @classmethod
    def uniform(cls, scale: np.ndarray, low: int, high: int) -> Grid:
        """The same bounds for every row."""
        return cls(scale.astype(np.float64), np.full(len(scale), low), np.full(len(scale), high))

    def nearest(self, steps: np.ndarray) -> np.ndarray:
        """The nearest allowed number of each value: ``[rows]`` or ``[rows, columns]``, in units of the scale."""
        if self.codebook is not None:
            middles = (self.codebook[1:] + self.codebook[:-1]) / 2.0
            return np.asarray(self.codebook[np.searchsorted(middles, steps)], np.float64)
        low, high = (bound.reshape(-1, *[1] * (steps.ndim - 1)) for bound in (self.low, self.high))
        return np.asarray(np.clip(np.rint(steps), low, high))


Choose = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Chooses whole numbers of a column (:func:`descend`)."""


def obs(weight: np.ndarray, factor: Factor, grid: Grid, *, passes: int = PASSES) -> np.ndarray:
    """Whole numbers ``[rows, columns]``, int8, that make ``scale * q`` act like the weight.

    Args:
        weight: float ``[rows, columns]``.
        factor: of the Gram of the layer's inputs.
        grid: where the weights may lie.
        passes: sweeps of coordinate descent afterwards.
    """
    steps = weight / grid.scale[:, None]
    found = _surgeon(steps[:, factor.order], factor.upper, grid)
    whole = np.empty_like(found)
    whole[:, factor.order] = found
    nearest = grid.nearest(steps)
    worse = _cost(nearest - steps, factor.gram) < _cost(whole - steps, factor.gram)
    whole[worse] = nearest[worse]
    for _ in range(passes):
        descend(whole, steps, factor, lambda best, _current, _column: grid.nearest(best))
    return whole.astype(np.int8)


def error(weight: np.ndarray, whole: np.ndarray, scale: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The objective of each row: float64 ``[rows]``."""
    return _cost(weight - whole * scale[:, None], gram)


def _cost(lost: np.ndarray, gram: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("ij,ij->i", lost @ gram, lost))


def _surgeon(steps: np.ndarray, upper: np.ndarray, grid: Grid) -> np.ndarray:
    """Round the columns in order (``steps`` is used up)."""
    columns = steps.shape[1]
    left = np.ascontiguousarray(steps.T)  # a column of weights is a row here: contiguous
    found = np.empty_like(left)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty((stop - start, left.shape[1]))
        for i in range(start, stop):
            found[i] = grid.nearest(left[i])
            errors[i - start] = (left[i] - found[i]) / upper[i, i]
            left[i + 1 : stop] -= upper[i, i + 1 : stop, None] * errors[i - start]
        left[stop:] -= upper[start:stop, stop:].T @ errors
    return found.T


def descend(whole: np.ndarray, steps: np.ndarray, factor: Factor, choose: Choose) -> None:
    """One sweep of coordinate descent over all columns, in place.

    Args:
        whole: the numbers of now ``[rows, columns]``, which are changed.
        steps: what they stand for, in units of the scale.
        factor: of the Gram of the inputs.
        choose: takes the numbers of a column that would be best if they need not be whole, those of now and the
            column's index, and gives those to go on with; ``[rows]`` each.
    """
    gram = factor.gram
    slopes = np.ascontiguousarray(((whole - steps) @ gram).T)  # [columns, rows]
    current = np.ascontiguousarray(whole.T)
    for i in factor.order:
        wanted = choose(current[i] - slopes[i] / gram[i, i], current[i], int(i))
        moved = wanted - current[i]
        rows = np.flatnonzero(moved)
        if rows.size:
            slopes[:, rows] += np.outer(gram[i], moved[rows])
            current[i] = wanted
    whole[:] = current.T
