"""Channels that nobody needs: dead, constant and exactly dependent ones; and the order of pivoted QR.

Both by block-pivoted Cholesky of a consumer's Gram, which stays accurate when channels are exactly dependent: keep the
channel with the largest weighted residual, again and again. What is left when the residuals are at rounding level is
free; going on to the end gives an order of importance (QR with column pivoting on the activations, weighted by the
outgoing weights).

Source: Shah, Olivier & Raj 2020 (arXiv 2005.14070); Businger & Golub 1965 for the pivoting.
Guarantee: deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgepress.scores.elimination import Linear

ENOUGH = 2
"""Rows for every column that a dependency is found with."""

FREE = 1e-11
"""Summed squared error, relative to the output's energy, below which a removal counts as lossless."""


def lossless(parts: Sequence[Linear], size: int) -> list[int]:
    """Channels that can all go while the refitted error stays at rounding level.

    Block-pivoted Cholesky: keep the channel with the largest weighted residual, again and again, until what the
    others would lose, ``tr(W_R S_RR W_R^T)`` with the Schur complement ``S``, is at rounding level. Unlike the inverse,
    Schur complements stay accurate when channels are exactly dependent. Few rows are dependent whatever the channels
    do: a dependency counts only when there are ``ENOUGH`` rows for every column it needs, else what contributes nothing
    by itself (dead, constant, without outgoing weights) is all that is free.
    """
    states = [_Residual(part) for part in parts]
    left = list(range(size))
    idle = [channel for channel in left if sum(state.loss([channel]) for state in states) <= FREE / size**2]
    if all(part.independent(idle) for part in parts):
        return idle if len(idle) < size else idle[1:]
    while left:
        weighted = sum((state.weighted(left) for state in states), np.zeros(len(left)))
        # the loss of all together is dear to compute, and next to nothing only if each one is
        if weighted.sum() <= FREE * size and sum(state.loss(left) for state in states) <= FREE:
            free = left if all(state.conclusive for state in states) else idle
            return free if len(free) < size else free[1:]
        chosen = left.pop(int(np.argmax(weighted)))
        for state in states:
            state.project(state.part.blocks[chosen])
    return []


def pivoted(parts: Sequence[Linear], size: int) -> list[int]:
    """All channels, the one that pivoted QR would take last first: an order of removal."""
    states = [_Residual(part) for part in parts]
    left = list(range(size))
    kept: list[int] = []
    while left:
        weighted = sum((state.weighted(left) for state in states), np.zeros(len(left)))
        kept.append(left.pop(int(np.argmax(weighted))))
        for state in states:
            state.project(state.part.blocks[kept[-1]])
    return kept[::-1]


class _Residual:
    """What the channels kept so far leave unexplained of one consumer's Gram (private working state).

    Cholesky by blocks, looking left: the Schur complement is ``inner - factor factor^T``. Its diagonal blocks are kept
    up to date, the rest is computed where it is asked for.
    """

    def __init__(self, part: Linear) -> None:
        self.part = part
        blocks = part.blocks
        self.local = part.inner[blocks[:, :, None], blocks[:, None, :]]
        weights = np.moveaxis(part.weights[:, blocks], 0, -1)
        self.squares = weights @ weights.transpose(0, 2, 1)
        self.room = np.empty_like(part.inner)
        self.used = self.rank = 0
        self.project(np.setdiff1d(np.arange(len(part.inner)), blocks))  # what always stays: bias, other groups

    @property
    def factor(self) -> np.ndarray:
        """The columns of the factor made so far."""
        return self.room[:, : self.rank]

    @property
    def conclusive(self) -> bool:
        """Enough rows to tell a dependency from a lack of rows."""
        return self.part.rows >= ENOUGH * self.used

    def project(self, columns: np.ndarray) -> None:
        """Take out what the given columns explain."""
        self.used += len(columns)
        schur = self.part.inner[:, columns] - self.factor @ self.factor[columns].T
        values, vectors = np.linalg.eigh(schur[columns])
        sound = values > 1e-10 * max(float(values.max(initial=0.0)), 1e-300)
        added = schur @ (vectors[:, sound] / np.sqrt(values[sound]))
        self.room[:, self.rank : self.rank + added.shape[1]] = added
        self.rank += added.shape[1]
        step = added[self.part.blocks]
        self.local = self.local - step @ step.transpose(0, 2, 1)

    def weighted(self, channels: list[int]) -> np.ndarray:
        """Residual of each channel as the outputs feel it: float64 [channels]."""
        return np.asarray((self.local[channels] * self.squares[channels]).sum((1, 2)) / self.part.energy)

    def loss(self, channels: list[int]) -> float:
        """Relative error of removing all these channels together, the kept ones refitted."""
        columns = self.part.blocks[channels].ravel()
        weights, explained = self.part.weights[:, columns], self.factor[columns]
        schur = self.part.inner[np.ix_(columns, columns)] - explained @ explained.T
        return max(0.0, float(((weights @ schur) * weights).sum()) / self.part.energy)
