"""Second-order rounding: errors of weights already rounded are made up for by those still free.

Optimal Brain Surgeon over a grid (Hassibi 1993; Frantar 2022, GPTQ): with ``U`` the upper Cholesky factor of the
inverse Gram, column by column, most important columns first::

    q_i = round(w_i / s)      w_j -= (w_i - s q_i) / U_ii * U_ij      for all j after i

then cyclic coordinate descent on the same objective (Behdin 2023, QuantEase), which can only lower it::

    q_i = round((w^_i - (w^ - w) H_i / H_ii) / s)

Objective: sum_o (w_o - s_o q_o) H (w_o - s_o q_o)^T. Rows are independent, each has its own scale and bounds or
codebook. Guarantees: whole numbers within bounds; the descent never ends above the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DAMPING = 0.01
"""Added to the diagonal, as a share of its mean: columns that are never active, samples that are few."""

BLOCK = 64
PASSES = 2
"""Sweeps of coordinate descent."""


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

    @classmethod
    def of(cls, gram: np.ndarray) -> Factor:
        """Factor a Gram of means, float64 ``[columns, columns]``."""
        diagonal = np.diag(gram)
        damped = gram + np.eye(len(gram)) * max(DAMPING * float(diagonal.mean()), 1e-12)
        order = np.argsort(-diagonal, kind="stable")
        inverse = np.linalg.inv(damped[np.ix_(order, order)])
        # upper Cholesky factor: U^T U = inverse, U upper
        upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
        return cls(damped, order, upper)


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
    for _ in range(passes):
        _descend(whole, steps, factor, grid)
    return whole.astype(np.int8)


def error(weight: np.ndarray, whole: np.ndarray, scale: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The objective of each row: float64 ``[rows]``."""
    lost = weight - whole * scale[:, None]
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


def _descend(whole: np.ndarray, steps: np.ndarray, factor: Factor, grid: Grid) -> None:
    """One sweep of coordinate descent over all columns, in place."""
    gram = factor.gram
    slopes = np.ascontiguousarray(((whole - steps) @ gram).T)  # [columns, rows]
    current = np.ascontiguousarray(whole.T)
    for i in factor.order:
        wanted = grid.nearest(current[i] - slopes[i] / gram[i, i])
        moved = wanted - current[i]
        rows = np.flatnonzero(moved)
        if rows.size:
            slopes[:, rows] += np.outer(gram[i], moved[rows])
            current[i] = wanted
    whole[:] = current.T
