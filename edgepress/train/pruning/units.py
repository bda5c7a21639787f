"""Units of a network in training: what they cost, which go, and how the others take over.

With the factors A and G of every operator that reads unit j, and the columns W_j that read it (``scores.kfac``)::

    cost_j = T/2 tr(G W_j (Q_jj)^-1 W_j^T) * (1 - flatness * fall_j / largest fall)        Q = A^-1
    fall_j = share of an operator's spectral radius that goes with the unit, to first order: v_j^2

Units go one after the other over all groups, the least cost for each weight saved first, until few enough weights are
left. Then, for all that went at once, the weights that stay take over what they can (redistribution)::

    W_S <- W_S + W_R A_RS (A_SS)^-1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgepress.groups import Group, Grouping
from edgepress.model import Model
from edgepress.scores.base import consumers, readers
from edgepress.scores.elimination import RIDGE, Consumer, Linear
from edgepress.scores.readers import makers
from edgepress.train.pruning.curvature import Factors, leading

FEWEST = 2
"""Units that every group keeps."""


@dataclass
class _State:
    """One group while units are chosen (private)."""

    group: Group
    readers: list[Consumer]
    left: np.ndarray
    alive: list[int]
    saves: float

    def best(self) -> tuple[float, int]:
        """Cost for each weight saved, and the unit."""
        if len(self.alive) <= FEWEST or not self.readers:
            return np.inf, -1
        costs = sum((reader.costs(self.alive) for reader in self.readers), np.zeros(len(self.alive)))
        worth = np.maximum(costs, 0.0) * self.left[self.alive] / self.saves
        place = int(np.argmin(worth))
        return float(worth[place]), self.alive[place]

    def remove(self, unit: int) -> None:
        self.alive.remove(unit)
        for reader in self.readers:
            reader.remove(unit)


def chosen(model: Model, grouping: Grouping, factors: Factors, goal: int, *, flatness: float) -> dict[str, list[int]]:
    """Units to remove so that at most ``goal`` weights are left: numbers by group.

    Args:
        model: the model with its weights of now.
        grouping: its groups.
        factors: of every operator.
        goal: weights, as ``Model.parameters`` counts them.
        flatness: largest share of its cost that a unit is forgiven.
    """
    left = float(model.parameters)
    states = [_state(model, group, factors, flatness) for group in prunable(model, grouping)]
    removed: dict[str, list[int]] = {}
    while left > goal:
        (cost, unit), state = min(
            ((state.best(), state) for state in states), key=lambda pair: pair[0][0], default=((np.inf, -1), None)
        )
        if state is None or not np.isfinite(cost):
            break
        state.remove(unit)
        removed.setdefault(state.group.name, []).append(unit)
        left -= state.saves
    return removed


def prunable(model: Model, grouping: Grouping) -> list[Group]:
    """Groups whose readers can all take over."""
    return [group for group in grouping.prunable if (found := readers(model, group)).fits and not found.refusals]


def redistributed(model: Model, grouping: Grouping, factors: Factors, removed: Mapping[str, list[int]]) -> Model:
    """The model after the weights that stay took over, of the same shape."""
    constants = dict(model.constants)
    changed: dict[str, np.ndarray] = {}
    for name, units in removed.items():
        for fit, blocks in consumers(model, grouping.group(name)):
            matrix = fit.matrix(constants)
            gone = np.zeros(fit.width, bool)
            gone[blocks[units].ravel()] = True
            changed |= fit.written(_taken_over(matrix, factors[fit.name].inputs, gone), constants)
            constants |= changed
    return model.with_constants({name: array.astype(model.constants[name].dtype) for name, array in changed.items()})


def _taken_over(matrix: np.ndarray, moments: np.ndarray, gone: np.ndarray) -> np.ndarray:
    stays = ~gone
    inner = moments[np.ix_(stays, stays)]
    inner = inner + RIDGE * np.trace(inner) / len(inner) * np.eye(len(inner))
    share = np.linalg.solve(inner, moments[np.ix_(stays, gone)]).T
    found = matrix.copy()
    found[:, stays] += matrix[:, gone] @ share
    return found


def _state(model: Model, group: Group, factors: Factors, flatness: float) -> _State:
    states = []
    for fit, blocks in consumers(model, group):
        own = factors.get(fit.name)
        if own is None:
            continue
        matrix = fit.matrix(model.constants)
        linear = Linear(own.inputs, matrix @ own.inputs, matrix, blocks, 1.0, 1, fit.biases)
        states.append(linear.felt(_root(own.slopes), 2.0 / max(own.positions, 1e-30)).regularized())
    left = np.ones(group.size)
    if flatness:
        fall = _fall(model, group, factors)
        left = 1.0 - flatness * fall / max(float(fall.max()), 1e-30)
    return _State(group, states, left, list(range(group.size)), saved_weights(model, group))


def saved_weights(model: Model, group: Group) -> float:
    """Weights that go with one unit."""
    places = {(site.tensor, site.axis): site.index.shape[1] for site in group.sites}
    shapes = {tensor: model.constants[tensor].shape for tensor, _ in places}
    every = (each * np.prod(shapes[tensor]) / shapes[tensor][axis] for (tensor, axis), each in places.items())
    return max(1.0, float(sum(every)))


def _fall(model: Model, group: Group, factors: Factors) -> np.ndarray:
    """Share of a spectral radius that each unit takes along, the largest of its operators: [size]."""
    falls = np.zeros(group.size)
    for fit, blocks in consumers(model, group):
        if fit.name in factors:
            falls = np.maximum(falls, np.square(leading(factors[fit.name].inputs)[1])[blocks].sum(1))
    for fit, owner in makers(model, group):
        if fit.name in factors:
            vector, own = leading(factors[fit.name].slopes)[1], owner >= 0
            falls = np.maximum(falls, np.bincount(owner[own], np.square(vector)[own], group.size))
    return falls


def _root(factor: np.ndarray) -> np.ndarray:
    """R with R^T R = G."""
    values, vectors = np.linalg.eigh((factor + factor.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)
