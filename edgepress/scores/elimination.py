"""Backward elimination on linear consumers: what it costs when a channel goes and the others take over.

For the linear consumer ``Y = [X,1] W^T`` with Gram ``A = [X,1]^T [X,1] / n`` the least squared error that removing
the column block ``j`` causes, when all other columns are refitted, is (block Optimal Brain Surgeon)::

    e_j = tr(M W_j (Q_jj)^-1 W_j^T),   Q = A^-1,   then   W -= W_j (Q_jj)^-1 Q_j:,   Q -= Q_:j (Q_jj)^-1 Q_j:

``M`` weighs errors of the outputs; the identity without. Several consumers of one group add up, each relative to the
variance of its output; parts of one node (groups, phases, gates) relative to that of the whole node. Consumers that
share weights are one problem, as they are when they are fitted. A hidden unit of a recurrent operator is read by the
gates and by what comes behind.

Source: Hassibi & Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon".
Guarantee: deterministic; costs never fall.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edgepress.calibrate.ridge import pulls
from edgepress.calibrate.statistics import SplitGram
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.base import consumers

RIDGE = 1e-3
"""Ridge of the ranking, relative to the mean diagonal of the Gram."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One consumer of a group.

    A consumer without a bias has no column of ones: nothing of it can take over what is constant.

    Attributes:
        inner: its Gram ``A``, float64 [columns + biases, columns + biases].
        cross: cross moments with its outputs, [outputs, columns + biases].
        weights: [outputs, columns + biases].
        blocks: the columns of every channel, int64 [size, block].
        energy: what errors are measured against.
        rows: rows observed.
        biases: columns of ones.
    """

    inner: np.ndarray
    cross: np.ndarray
    weights: np.ndarray
    blocks: np.ndarray
    energy: float
    rows: int
    biases: int

    def independent(self, idle: list[int]) -> bool:
        """Quick proof that no channel but the idle ones depends on others: the scaled Gram is positive definite."""
        diagonal = np.sqrt(np.diag(self.inner))
        alive = diagonal > 0
        alive[self.blocks[idle].ravel()] = False
        scaled = self.inner[np.ix_(alive, alive)] / np.outer(diagonal[alive], diagonal[alive])
        try:
            np.linalg.cholesky(scaled - 1e-9 * np.eye(len(scaled)))
        except np.linalg.LinAlgError:
            return False
        return True

    def felt(self, root: np.ndarray, energy: float) -> Linear:
        """The same consumer with errors of its outputs weighed by ``M = root^T root``, [outputs, outputs]."""
        return dataclasses.replace(self, cross=root @ self.cross, weights=root @ self.weights, energy=energy)

    def pooled(self) -> Linear:
        """The same consumer with one column per channel: what all its columns have in common.

        One coefficient per pair of channels stands for all taps of a kernel, on the Gram averaged over taps; columns
        of other groups are left out.
        """
        taps = self.blocks.shape[1]
        ones = np.arange(len(self.inner) - self.biases, len(self.inner))
        columns = [np.append(self.blocks[:, tap], ones) for tap in range(taps)]
        inner = np.mean([self.inner[np.ix_(each, each)] for each in columns], axis=0)
        weights = np.concatenate([self.weights[:, each] for each in columns])
        weights[:, len(self.blocks) :] = 0.0
        blocks = np.arange(len(self.blocks))[:, None]
        return Linear(inner, weights @ inner, weights, blocks, self.energy, self.rows * taps, self.biases)

    def regularized(self, ridge: float = RIDGE) -> Consumer:
        """The state of an elimination: refitted weights and inverse Gram under a ridge toward the given weights."""
        pull = pulls(self.inner, ridge, self.biases)
        inverse = np.linalg.inv(self.inner + np.diag(pull))
        inverse = (inverse + inverse.T) / 2
        return Consumer((self.cross + self.weights * pull) @ inverse, inverse, self.blocks, self.energy)


def linear_consumers(model: Model, group: Group, statistics: Mapping[str, Any]) -> list[Linear]:
    """The group's consumers; the parts of one node are measured against the energy of all its outputs."""
    fits = consumers(model, group)
    splits = [[cast(SplitGram, statistics[part.name]) for part in fit.parts] for fit, _ in fits]
    energies: dict[str, float] = {}
    for (fit, _), own in zip(fits, splits, strict=True):
        energy = sum(split.whole.variance * split.whole.rows for split in own)
        energies[fit.node.name] = energies.get(fit.node.name, 0.0) + energy
    found = []
    for (fit, blocks), own in zip(fits, splits, strict=True):
        gram = fit.joined(own).whole
        energy = max(energies[fit.node.name] / gram.rows, 1e-30)
        inner, cross = gram.inner / gram.rows, gram.cross / gram.rows
        found.append(Linear(inner, cross, fit.matrix(model.constants), blocks, energy, gram.rows, fit.biases))
    return found


class Consumer:
    """Working state of one consumer during an elimination.

    The inverse is updated lazily: the last removals are kept as factors, ``Q = inverse - left @ right``, and multiplied
    out ``PENDING`` columns at a time; only the diagonal blocks, which the costs need, are kept up to date.
    """

    PENDING = 96

    def __init__(self, weights: np.ndarray, inverse: np.ndarray, blocks: np.ndarray, energy: float) -> None:
        """Start from refitted weights and the inverse Gram; blocks and energy as in ``Linear``."""
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


def eliminate(
    states: Sequence[Consumer], size: int, *, first: Sequence[int] = (), saved: np.ndarray | None = None
) -> tuple[list[int], np.ndarray]:
    """Remove every channel, the cheapest next.

    Args:
        states: the consumers; used up.
        size: channels.
        first: the channels that go first, in this order; all of them prescribe the whole order.
        saved: what removing each channel saves, [size]: the least cost per saving goes next. Without: the least cost.

    Returns:
        The order and the summed cost [size + 1].
    """
    worth = np.ones(size) if saved is None else np.maximum(saved, 1e-12)
    alive = list(range(size))
    order: list[int] = []
    cost = np.zeros(size + 1)
    for step in range(size):
        costs = sum((state.costs(alive) for state in states), np.zeros(len(alive)))
        position = alive.index(first[step]) if step < len(first) else int(np.argmin(costs / worth[alive]))
        order.append(alive.pop(position))
        cost[step + 1] = cost[step] + max(float(costs[position]), 0.0)
        for state in states:
            state.remove(order[-1])
    return order, cost
