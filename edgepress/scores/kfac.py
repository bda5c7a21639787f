"""Kronecker-factored curvature (Ebrahimi & Klabjan 2021): what a unit costs under A (x) G, and how flat it leaves it.

Per layer the Fisher information is ``A (x) G`` with ``A = E[x x^T]`` of the inputs with a one for the bias (for a
convolution the patches) and ``G = E[g g^T]`` of the output gradients, over samples and the T positions of each. With
the columns ``W_j`` of the consumer that read unit ``j``, and ``Q = A^-1``::

    obs     T/2 tr(G W_j (Q_jj)^-1 W_j^T)       Optimal Brain Surgeon: the other columns take over what they can;
                                                backward elimination, the update is that of redundancy (seed 5)
    obd     T/2 tr(G W_j A_jj W_j^T)            Optimal Brain Damage: nothing takes over
    rows    T/2 (w_i A w_i^T) / (G^-1)_ii       the unit's own row w_i of its producer, with the update
                                                dW = -G^-1 e_i w_i / (G^-1)_ii of its siblings (Wang 2019)

The spectral radius of a layer is ``lmax(A) lmax(G)``. Removing a unit deletes its row and column of the producer's G
and its block of the consumer's A, so the radius can only fall (Cauchy). Where the answer of the whole network stays
equal, a unit that makes the net flatter by going is the better one to lose: costs are lowered by at most ``flatness``
of themselves, in proportion to the fall. (Measured: as a strong term this removes the most active units and destroys
networks.) The gates of recurrent operators have no gradients: their errors count relative to their variance, as in
redundancy, and there G is the identity.

Source: Ebrahimi & Klabjan 2021, "Neuron-based Pruning of Deep Neural Networks with Better Generalization using
Kronecker Factored Curvature Approximation" (arXiv 2111.08577); Wang et al. 2019, "EigenDamage"; Martens & Grosse
2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from edgepress.calibrate.fits import Fit
from edgepress.calibrate.slopes import Outer, outer_probe
from edgepress.calibrate.statistics import Probe, SplitGram, gram_probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.scores.base import Ranking, consumers
from edgepress.scores.elimination import Linear, eliminate, linear_consumers
from edgepress.scores.readers import makers
from edgepress.scores.spectrum import largest, largest_without, spectrum

FLATNESS = 0.1
"""Share of its cost that a unit may be forgiven for making the network flatter."""

DAMPING = 1e-3
"""Added to the diagonal of G before it is inverted, relative to its mean."""


@dataclass(frozen=True, slots=True)
class Kfac:
    """The KFAC score.

    Attributes:
        positions: output positions observed in each sample for A.
        loss: what the gradients are of (``executor.slopes``).
        seed: of the choice of positions.
        method: ``obs``, ``obd`` or ``rows`` (see the module).
        flatness: largest share that costs are lowered by; 0 for none.
        name: of the score.
    """

    positions: int
    loss: str = "answer"
    seed: int = 0
    method: Literal["obs", "obd", "rows"] = "obs"
    flatness: float = FLATNESS
    name: str = "kfac"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """A and G of the consumers; G of the producers where flatness counts, their A too where rows are scored."""
        fits = [fit for fit, _ in consumers(model, group)]
        made = [fit for fit, _ in makers(model, group)] if self.flatness or self.method == "rows" else []
        grams = [*fits, *(made if self.method == "rows" else ())]
        parts = [part for fit in grams for part in fit.parts]
        probes = [gram_probe(part, positions=self.positions, seed=self.seed) for part in parts]
        felt = [part for fit in (*fits, *made) for part in fit.parts if part.geometry.answer is not None]
        probes += [outer_probe(part, self.loss) for part in felt]
        return tuple({probe.name: probe for probe in probes}.values())

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Cost of each unit, lowered by its flatness: float64 [size]; for ``obs`` at its turn."""
        with one_blas_thread():
            forgiven = self._forgiven(model, group, statistics)
            if self.method == "obs":
                return np.asarray(self._eliminated(model, group, statistics, forgiven).added * forgiven)
            costs = self._damage if self.method == "obd" else self._rows
            return np.asarray(costs(model, group, statistics) * forgiven)

    def order(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Order of removal, int64 [size]."""
        if self.method != "obs":
            return np.argsort(self.score(model, group, statistics), kind="stable")
        with one_blas_thread():
            return self._eliminated(model, group, statistics, self._forgiven(model, group, statistics)).order

    def fall(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """By which share the spectral radius of a layer falls when a unit goes, the largest of its layers: [size]."""
        falls = [np.zeros(group.size)]
        for fit, blocks in consumers(model, group):
            gram = fit.joined([cast(SplitGram, statistics[part.name]) for part in fit.parts]).whole
            owner = np.full(fit.width, -1, np.int64)
            owner[blocks] = np.arange(group.size)[:, None]
            falls.append(_fall(gram.inner / gram.rows, owner, group.size))
        for fit, owner in makers(model, group):
            metric = self._metric(fit, statistics)
            if metric is not None:
                falls.append(_fall(metric[0], owner, group.size))
        return np.asarray(np.max(falls, axis=0))

    def radius(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> dict[str, float]:
        """The spectral radius of every consumer, by its name."""
        found = {}
        for fit, _ in consumers(model, group):
            gram = fit.joined([cast(SplitGram, statistics[part.name]) for part in fit.parts]).whole
            metric = self._metric(fit, statistics)
            if metric is not None:
                found[fit.name] = largest(gram.inner / gram.rows) * largest(metric[0])
        return found

    def details(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> dict[str, float]:
        """The spectral radius of every consumer, and the share of a layer's radius that one unit takes along."""
        radius = {f"spectral radius of {name}": r for name, r in self.radius(model, group, statistics).items()}
        if not self.flatness:
            return radius
        return {**radius, "largest fall by one unit": float(self.fall(model, group, statistics).max())}

    def _forgiven(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """What is left of each unit's cost."""
        if not self.flatness:
            return np.ones(group.size)
        fall = self.fall(model, group, statistics)
        return 1.0 - self.flatness * fall / max(float(fall.max()), 1e-30)

    def _metric(self, fit: Fit, statistics: Mapping[str, Any]) -> tuple[np.ndarray, float] | None:
        """G of a fit and its positions in a sample; None where its outputs are no tensor."""
        found = [
            cast(Outer, statistics[outer_probe(part, self.loss).name])
            for part in fit.parts
            if part.geometry.answer is not None
        ]
        if not found:
            return None
        whole = found[0]
        for other in found[1:]:
            whole = whole.merge(other)
        return whole.mean, whole.rows / whole.samples * len(found)

    def _felt(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> list[Linear]:
        """The consumers with their errors weighed by G."""
        parts = linear_consumers(model, group, statistics)
        felt = []
        for (fit, _), part in zip(consumers(model, group), parts, strict=True):
            metric = self._metric(fit, statistics)
            felt.append(part if metric is None else part.felt(_root(metric[0]), 2.0 / metric[1]))
        return felt

    def _eliminated(self, model: Model, group: Group, statistics: Mapping[str, Any], forgiven: np.ndarray) -> Ranking:
        states = [part.regularized() for part in self._felt(model, group, statistics)]
        order, cost = eliminate(states, group.size, saved=1.0 / forgiven)
        return Ranking(np.array(order, np.int64), cost, 0, 1.0)

    def _damage(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Optimal Brain Damage on the columns that read each unit."""
        costs = np.zeros(group.size)
        for part in self._felt(model, group, statistics):
            local = part.inner[part.blocks[:, :, None], part.blocks[:, None, :]]
            weights = np.moveaxis(part.weights[:, part.blocks], 0, -1)
            costs += ((weights @ weights.transpose(0, 2, 1)) * local).sum((1, 2)) / part.energy
        return costs

    def _rows(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Optimal Brain Surgeon on the rows that make each unit."""
        costs = np.zeros(group.size)
        for fit, owner in makers(model, group):
            gram = fit.joined([cast(SplitGram, statistics[part.name]) for part in fit.parts]).whole
            metric = self._metric(fit, statistics)
            given, positions = (np.eye(fit.outputs), 1.0) if metric is None else metric
            matrix = fit.matrix(model.constants)
            power = np.einsum("oi,ij,oj->o", matrix, gram.inner / gram.rows, matrix, optimize=True)
            own = owner >= 0
            stiff = 1.0 / np.diag(np.linalg.inv(damped(given)))
            costs += np.bincount(owner[own], (0.5 * positions * power * stiff)[own], group.size)
        return costs


def compensated(matrix: np.ndarray, factor: np.ndarray, row: int) -> np.ndarray:
    """The producer's matrix [outputs, columns] after row ``row`` is gone and its siblings made up for it under G."""
    inverse = np.linalg.inv(damped(factor))
    return np.asarray(matrix - np.outer(inverse[:, row], matrix[row]) / inverse[row, row])


def damped(factor: np.ndarray) -> np.ndarray:
    """A Kronecker factor that can be inverted."""
    return np.asarray(factor + max(DAMPING * float(np.trace(factor)) / len(factor), 1e-30) * np.eye(len(factor)))


def _root(factor: np.ndarray) -> np.ndarray:
    """R with R^T R = G."""
    values, vectors = np.linalg.eigh((factor + factor.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)


def _fall(matrix: np.ndarray, owner: np.ndarray, size: int) -> np.ndarray:
    values, vectors = spectrum(matrix)
    if values[0] <= 0:
        return np.zeros(size)
    return np.asarray(np.maximum(0.0, 1.0 - largest_without(values, vectors, owner, size) / values[0]))
