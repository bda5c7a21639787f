"""Redundancy (Shah 2020): a channel that the others can stand in for costs nothing to remove.

For the linear consumer ``Y = [X,1] W^T`` with Gram ``A = [X,1]^T [X,1] / n`` the least squared error that removing
the column block ``j`` causes, when all other columns are refitted, is (block Optimal Brain Surgeon)::

    e_j = tr(W_j (Q_jj)^-1 W_j^T),   Q = A^-1,   then   W -= W_j (Q_jj)^-1 Q_j:,   Q -= Q_:j (Q_jj)^-1 Q_j:

The cheapest block goes, again and again (backward elimination: one-shot scores would remove both members
of a correlated pair). Several consumers of one group add up, each relative to the variance of its output; parts of one
node (groups, phases, gates) relative to that of the whole node. Consumers that share weights are one problem, as they
are when they are fitted. A hidden unit of a recurrent operator is read by the gates and by what comes behind.
A first pass with (nearly) no ridge finds the lossless part: dead, constant and exactly dependent
channels (constant ones depend on the column of ones).

Source: Shah, Olivier & Raj 2020, "Exploiting Non-Linear Redundancy for Neural Model Compression" (arXiv 2005.14070);
Hassibi & Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon".
Guarantees: deterministic; costs never fall; orders are made once, on the original network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edgepress.calibrate.ridge import pulls
from edgepress.calibrate.statistics import Probe, SplitGram, gram_probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.scores.base import Ranking, consumers

RIDGE = 1e-3
"""Ridge of the ranking, relative to the mean diagonal of the Gram."""

ENOUGH = 2
"""Rows for every column that a dependency is found with."""

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
        """One Gram for every part of a consumer."""
        return tuple(
            gram_probe(part, positions=self.positions, seed=self.seed)
            for fit, _ in consumers(model, group)
            for part in fit.parts
        )

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Error that each channel's removal added at its turn: float64 [size]."""
        ranking = self.rank(model, group, statistics)
        scores = np.empty(group.size)
        scores[ranking.order] = np.diff(ranking.cost)
        return scores

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Backward elimination over all channels, the lossless ones first."""
        with one_blas_thread():  # the order must not depend on the number of cores
            return self._rank(model, group, statistics)

    def _rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        parts = _parts(model, group, statistics)
        free = _lossless(parts, group.size)
        order, cost = _eliminate([part.regularized(RIDGE) for part in parts], group.size, first=free)
        cost[: len(free) + 1] = 0.0
        energy = float(len(set(group.consumers)))
        return Ranking(np.array(order, np.int64), np.maximum.accumulate(cost), len(free), energy)


@dataclass(frozen=True, slots=True)
class _Part:
    """One consumer: its normalized Gram A, target cross moments, weights, and the blocks of columns.

    A consumer without a bias has no column of ones: nothing of it can take over what is constant.
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

    def regularized(self, ridge: float) -> _Elimination:
        """The state of an elimination: refitted weights and inverse Gram under a ridge toward the given weights."""
        pull = pulls(self.inner, ridge, self.biases)
        inverse = np.linalg.inv(self.inner + np.diag(pull))
        inverse = (inverse + inverse.T) / 2
        return _Elimination((self.cross + self.weights * pull) @ inverse, inverse, self.blocks, self.energy)


def _parts(model: Model, group: Group, statistics: Mapping[str, Any]) -> list[_Part]:
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
        found.append(_Part(inner, cross, fit.matrix(model.constants), blocks, energy, gram.rows, fit.biases))
    return found


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


class _Residual:
    """What the channels kept so far leave unexplained of one consumer's Gram (private working state).

    Cholesky by blocks, looking left: the Schur complement is ``inner - factor factor^T``. Its diagonal blocks are kept
    up to date, the rest is computed where it is asked for.
    """

    def __init__(self, part: _Part) -> None:
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
