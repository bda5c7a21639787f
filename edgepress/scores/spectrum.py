"""Largest eigenvalues: of a symmetric positive semidefinite matrix, and of what is left when a unit's rows are deleted.

With the eigenvalues ``L`` and vectors ``V`` of the matrix ``M`` and the rows ``V_j`` of a unit, the number of
eigenvalues above ``t`` of what is left follows from Haynsworth's inertia additivity (1968)::

    above(M without j, t) = above(M, t) - above(V_j (L - t)^-1 V_j^T, 0)

so that the largest one is found by bisection, at the cost of a matrix of the unit's size for every step. It lies
between the largest eigenvalue of M and, by Cauchy's interlacing, the one that comes as many places later as the unit
has rows.

Guarantee: exact to ``CLOSE`` and never below what it is, also where eigenvalues are equal: a unit that takes nothing
along leaves the very value of the whole matrix.
"""

from __future__ import annotations

import numpy as np

CLOSE = 1e-6
"""Error of an eigenvalue, relative to the largest one of the whole matrix."""

APART = 1e-9
"""Least distance from an eigenvalue of the whole matrix at which it is looked, relative to the largest one."""


def spectrum(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, falling and none below zero, and their vectors as columns."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def largest(matrix: np.ndarray) -> float:
    """The largest eigenvalue."""
    return max(float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]), 0.0)


def largest_without(values: np.ndarray, vectors: np.ndarray, owner: np.ndarray, size: int) -> np.ndarray:
    """The largest eigenvalue when the rows and columns of each unit are deleted: float64 [size].

    Args:
        values: of :func:`spectrum`, [n].
        vectors: of it, [n, n].
        owner: the unit of every row, -1 for none: int64 [n].
        size: number of units.
    """
    return np.array([_without(values, vectors[owner == unit]) for unit in range(size)])


def _without(values: np.ndarray, rows: np.ndarray) -> float:
    """The largest eigenvalue without some rows, whose entries in all vectors are given: [rows, n]."""
    if len(rows) >= len(values):
        return 0.0
    high, low = float(values[0]), float(values[len(rows)])
    apart = APART * float(values[0])
    while high - low > CLOSE * float(values[0]):
        middle = (high + low) / 2
        gaps = values - middle
        gaps = np.where(np.abs(gaps) < apart, -apart, gaps)
        hidden = int((np.linalg.eigvalsh((rows / gaps) @ rows.T) > 0).sum())
        low, high = (middle, high) if int((gaps > 0).sum()) > hidden else (low, middle)
    return high
