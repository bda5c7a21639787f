"""Redundancy (Shah 2020): a channel that the others can stand in for costs nothing to remove.

For the linear consumer ``Y = [X,1] W^T`` with Gram ``A = [X,1]^T [X,1] / n`` the least squared error that removing
the column block ``j`` causes, when all other columns are refitted, is (block Optimal Brain Surgeon)::

    e_j = tr(W_j (Q_jj)^-1 W_j^T),   Q = A^-1,   then   W -= W_j (Q_jj)^-1 Q_j:,   Q -= Q_:j (Q_jj)^-1 Q_j:

The cheapest block goes, again and again (backward elimination: one-shot scores would remove both members
of a correlated pair). Several consumers of one group add up, each relative to the variance of its output.
A first pass with (nearly) no ridge finds the lossless part: dead, constant and exactly dependent
channels (constant ones depend on the column of ones).

Source: Shah et al. 2020, "Lossless elimination of linearly dependent neurons"; Hassibi & Stork 1993.
Guarantees: deterministic; costs never fall; orders are made once, on the original network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.linear import Linear
from edgepress.calibrate.statistics import Gram, Probe, SplitGram, gram_probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.base import Ranking, consumers

RIDGE = 1e-3
"""Ridge of the ranking, relative to the mean diagonal of the Gram."""

FREE = 1e-11
"""Summed squared error, relative to the output's energy, below which a removal counts as lossless."""


@dataclass(frozen=True, slots=True)
class Redundancy:
    """The redundancy score.

    Attributes:
        positions: output positions observed in each sample.
        seed: seed of the choice of positions.
    """

    positions: int
    seed: int = 0
    name: str = "redundancy"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """One Gram per consumer."""
        return tuple(
            gram_probe(view, view.node.name, positions=self.positions, seed=self.seed)
            for view, _ in consumers(model, group)
        )

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Error that each channel's removal added at its turn: float64 [size]."""
        ranking = self.rank(model, group, statistics)
        scores = np.empty(group.size)
        scores[ranking.order] = np.diff(ranking.cost)
        return scores

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Backward elimination over all channels, the lossless ones first."""
        parts = [_Part.of(view, blocks, statistics[view.node.name], model) for view, blocks in consumers(model, group)]
        free = _lossless(parts, group.size)
        order, cost = _eliminate([part.regularized(RIDGE) for part in parts], group.size, first=free)
        cost[: len(free) + 1] = 0.0
        return Ranking(np.array(order, np.int64), np.maximum.accumulate(cost), len(free), 1.0 * len(parts))


@dataclass(frozen=True, slots=True)
class _Part:
    """One consumer: its normalized Gram A, target cross moments, weights, and the blocks of columns."""

    inner: np.ndarray
    cross: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    energy: float

    @classmethod
    def of(cls, view: Linear, blocks: np.ndarray, split: SplitGram, model: Model) -> _Part:
        gram: Gram = split.whole
        matrix = view.matrix(model.constants[view.weight])
        bias = np.zeros(view.outputs) if view.bias is None else model.constants[view.bias].astype(np.float64).ravel()
        weights = np.column_stack([matrix, bias])
        energy = max(gram.variance, 1e-30)
        return cls(gram.inner / gram.rows, gram.cross / gram.rows, weights, blocks, energy)

    def independent(self) -> bool:
        """Quick proof that no channel is dependent: the scaled Gram is clearly positive definite, no block is zero."""
        if not np.abs(self.weights[:, self.blocks]).max(axis=(0, 2)).all():
            return False
        diagonal = np.sqrt(np.diag(self.inner))
        if not diagonal.all():
            return False
        scaled = self.inner / np.outer(diagonal, diagonal)
        try:
            np.linalg.cholesky(scaled - 1e-9 * np.eye(len(scaled)))
        except np.linalg.LinAlgError:
            return False
        return True

    def regularized(self, ridge: float) -> _Elimination:
        """The state of an elimination: refitted weights and inverse Gram under a ridge toward the given weights."""
        mean = float(np.diag(self.inner)[:-1].mean())
        pull = np.full(len(self.inner), max(ridge * mean, 1e-30))
        pull[-1] = 1e-9
        inverse = np.linalg.inv(self.inner + np.diag(pull))
        inverse = (inverse + inverse.T) / 2
        return _Elimination((self.cross + self.weights * pull) @ inverse, inverse, self.blocks, self.energy)


class _Elimination:
    """Working state of one consumer (private to this module).

    The inverse is updated lazily: the last removals are kept as factors, ``Q = inverse - left @ right``, and multiplied
    out ``PENDING`` columns at a time; only the diagonal blocks, which the costs need, are kept up to date.
    """

    PENDING = 96

    def __init__(self, weights: np.ndarray, inverse: np.ndarray, blocks: np.ndarray, energy: float) -> None:
        self.inverse, self.blocks, self.energy = inverse, blocks, energy
        self.weights = np.ascontiguousarray(weights[:, blocks.ravel()].T).reshape(*blocks.shape, -1)
        self.local = inverse[blocks[:, :, None], blocks[:, None, :]]
        self.left = np.empty((len(inverse), 0))
        self.right = np.empty((0, len(inverse)))

    def costs(self, channels: list[int]) -> np.ndarray:
        """Relative error of removing each of the channels: ``tr((Q_jj)^-1 W_j^T W_j)``."""
        weights = self.weights[channels]
        squares = weights @ weights.transpose(0, 2, 1)
        return np.asarray((np.linalg.inv(self.local[channels]) * squares).sum((1, 2)) / self.energy)

    def remove(self, channel: int) -> None:
        """Drop a channel and let the other columns take over."""
        gone = self.blocks[channel]
        rows = self.inverse[gone] - self.left[gone] @ self.right
        step = np.linalg.solve(self.local[channel], rows)
        flat = self.blocks.ravel()
        shape = self.blocks.shape
        taken = step[:, flat].T.reshape(*shape, -1)
        self.weights = self.weights - (taken.reshape(len(flat), -1) @ self.weights[channel]).reshape(self.weights.shape)
        self.local = self.local - rows[:, flat].T.reshape(*shape, -1) @ taken.transpose(0, 2, 1)
        self.left = np.concatenate([self.left, rows.T], axis=1)
        self.right = np.concatenate([self.right, step])
        if len(self.right) >= self.PENDING:
            self.inverse = self.inverse - self.left @ self.right
            self.left, self.right = self.left[:, :0], self.right[:0]


def _eliminate(states: list[_Elimination], size: int, *, first: list[int]) -> tuple[list[int], np.ndarray]:
    """Remove every channel, ``first`` ones first; returns the order and the summed cost [size + 1]."""
    alive = list(range(size))
    order: list[int] = []
    cost = np.zeros(size + 1)
    for step in range(size):
        costs = sum((state.costs(alive) for state in states), np.zeros(len(alive)))
        position = alive.index(first[step]) if step < len(first) else int(np.argmin(costs))
        order.append(alive.pop(position))
        cost[step + 1] = cost[step] + max(float(costs[position]), 0.0)
        for state in states:
            state.remove(order[-1])
    return order, cost


def _lossless(parts: list[_Part], size: int) -> list[int]:
    """Channels that can all go while the refitted error stays at rounding level.

    Block-pivoted Cholesky: keep the channel with the largest weighted residual, again and again, until what the
    others would lose, ``tr(W_R S_RR W_R^T)`` with the Schur complement ``S``, is at rounding level. Unlike the inverse,
    Schur complements stay accurate when channels are exactly dependent.
    """
    if all(part.independent() for part in parts):
        return []
    states = [_Residual.of(part) for part in parts]
    left = list(range(size))
    while left:
        if sum(state.loss(left) for state in states) <= FREE:
            return left if len(left) < size else left[1:]
        weighted = sum((state.weighted(left) for state in states), np.zeros(len(left)))
        chosen = left.pop(int(np.argmax(weighted)))
        for state in states:
            state.keep(chosen)
    return []


@dataclass(slots=True)
class _Residual:
    """Schur complement of the Gram given the channels kept so far (private working state)."""

    schur: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    energy: float

    @classmethod
    def of(cls, part: _Part) -> _Residual:
        state = cls(part.inner.copy(), part.weights, part.blocks, part.energy)
        state.project(np.array([len(part.inner) - 1]))
        return state

    def keep(self, channel: int) -> None:
        self.project(self.blocks[channel])

    def project(self, columns: np.ndarray) -> None:
        """Take out what the given columns explain."""
        inverse = np.linalg.pinv(self.schur[np.ix_(columns, columns)], rcond=1e-10, hermitian=True)
        cross = self.schur[:, columns]
        self.schur = self.schur - cross @ inverse @ cross.T

    def weighted(self, channels: list[int]) -> np.ndarray:
        """Residual of each channel as the outputs feel it: float64 [channels]."""
        blocks = self.blocks[channels]
        local = self.schur[blocks[:, :, None], blocks[:, None, :]]
        weights = np.moveaxis(self.weights[:, blocks], 0, -1)
        return np.asarray(np.einsum("jbo,jbc,jco->j", weights, local, weights) / self.energy)

    def loss(self, channels: list[int]) -> float:
        """Relative error of removing all these channels together, the kept ones refitted."""
        columns = self.blocks[channels].ravel()
        weights = self.weights[:, columns]
        return max(
            0.0,
            float(np.einsum("oi,ij,oj->", weights, self.schur[np.ix_(columns, columns)], weights, optimize=True))
            / self.energy,
        )
