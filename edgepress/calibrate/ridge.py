"""Least-squares refit with a ridge toward the given weights, its strength chosen on held-out rows.

    M = (C + r G)(A + diag r)^-1,   r = lambda * mean diag A  (1e-9 for the bias column)

``A`` and ``C`` are the Gram of the inputs and the cross moments with the targets, ``G`` the given matrix. Lambda
toward infinity is "no refit", so the choice can never be a catastrophe; toward zero it is plain least squares.
The lambda with the least error on held-out rows is taken and the fit repeated on all rows.

Source: Shah 2020 (redistribution); measured in the design notes: the held-out ridge is the most valuable safety
feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.statistics import Gram, SplitGram

GRID = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
FIXED = 1e-2
"""Lambda when there are too few samples to hold any out."""


@dataclass(frozen=True, slots=True)
class Refit:
    """A refitted matrix [outputs, columns] (biases last) and the lambda it was fitted with."""

    matrix: np.ndarray
    ridge: float


def refit(split: SplitGram, given: np.ndarray, columns: np.ndarray, *, biases: int = 1) -> Refit:
    """Refit a matrix on some of its columns.

    Args:
        split: moments over all columns.
        given: the matrix, [outputs, all columns].
        columns: the columns that may be used; those of biases last.
        biases: how many of these are biases: nothing pulls them.
    """
    start = given[:, columns]
    ridge = _choose(split, start, columns, biases)
    return Refit(solve(split.whole.select(columns), start, ridge, biases=biases), ridge)


def solve(gram: Gram, given: np.ndarray, ridge: float, *, biases: int = 1) -> np.ndarray:
    """The ridge solution for one lambda; ``given`` is [outputs, columns of the Gram]."""
    inner = gram.inner / gram.rows
    pull = pulls(inner, ridge, biases)
    right = gram.cross / gram.rows + given * pull
    return np.asarray(np.linalg.solve(inner + np.diag(pull), right.T).T)


def pulls(inner: np.ndarray, ridge: float, biases: int) -> np.ndarray:
    """How strongly each column is held at the given weights: float64 [columns], for a Gram of means."""
    diagonal = np.diag(inner)
    weights = len(diagonal) - biases
    mean = float((diagonal[:weights] if weights else diagonal).mean())
    pull = np.full(len(inner), max(ridge * mean, 1e-30))
    pull[weights:] = 1e-9
    return pull


def _choose(split: SplitGram, given: np.ndarray, columns: np.ndarray, biases: int) -> float:
    if split.fit is None or split.held is None:
        return FIXED
    fit, held = split.fit.select(columns), split.held.select(columns)
    candidates = [value for value in GRID if value >= 1e-4 or fit.rows > 4 * len(columns)]
    errors = [_held_error(fit, held, given, ridge, biases) for ridge in candidates]
    return candidates[int(np.argmin(errors))]


def _held_error(fit: Gram, held: Gram, given: np.ndarray, ridge: float, biases: int) -> float:
    try:
        error = held.error(solve(fit, given, ridge, biases=biases))
    except np.linalg.LinAlgError:  # singular at this lambda: a stronger one will do
        return np.inf
    return error if np.isfinite(error) else np.inf
