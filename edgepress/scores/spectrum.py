"""Largest eigenvalues: of a symmetric positive semidefinite matrix, and of what is left when a unit's rows are deleted.

Power iteration; without a unit all iterations run at once, started at the leading vector of the whole matrix with the
unit's entries deleted. The Rayleigh quotient is a lower bound that rises with every step.
"""

from __future__ import annotations

import numpy as np

STEPS = 60
"""Most steps of the iteration."""

CLOSE = 1e-7
"""Relative rise of the quotient that ends it."""


def largest(matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest eigenvalue and its vector."""
    values, vectors = np.linalg.eigh(matrix)
    return max(float(values[-1]), 0.0), vectors[:, -1]


def largest_without(matrix: np.ndarray, vector: np.ndarray, owner: np.ndarray, size: int) -> np.ndarray:
    """The largest eigenvalue when the rows and columns of each unit are deleted: float64 [size].

    Args:
        matrix: symmetric, positive semidefinite, [n, n].
        vector: its leading vector, [n].
        owner: the unit of every row, -1 for none: int64 [n].
        size: number of units.
    """
    mask = owner[:, None] != np.arange(size)
    start = np.abs(vector)[:, None] + 1e-3 / np.sqrt(len(vector))  # never orthogonal to what takes the lead
    found = np.zeros(size)
    state = np.sign(np.where(vector == 0, 1.0, vector))[:, None] * start * mask
    for _ in range(STEPS):
        state = state / np.maximum(np.linalg.norm(state, axis=0), 1e-30)
        moved = (matrix @ state) * mask
        quotient = np.einsum("ij,ij->j", state, moved)
        settled = np.abs(quotient - found) <= CLOSE * np.maximum(quotient, 1e-30)
        found, state = quotient, moved
        if settled.all():
            break
    return found
