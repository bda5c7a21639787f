"""Entropy (Wiedemann 2018): channels that make the file long for what they do go first.

    bits_j  = sum of the code lengths of all weights that go with channel j
    score_j = error that the removal of j adds at its turn / bits_j         in the order of the least error per bit

Every layer is rounded at its own step (``codec.uniform_step``) with the rate that fits it, and coded with its own
probabilities. The weights of a channel are those that make it, those that read it and those along it (depthwise
kernels). Vectors along channels (biases, scales) are stored as they are and counted with all their bits. The error is
that of redundancy: what stays when the others take over.

Source: Wiedemann, Marban, Mueller & Samek 2018, "Entropy-Constrained Training of Deep Neural Networks" (arXiv
1812.07520), the description length; the ratio is ours.
Guarantees: without ``bits_j`` a layer of unchanged rounded weights is shorter by at least as much (probabilities
counted anew only help); a weight that goes with a channel in two ways counts once; free channels come first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress import codec
from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.base import Ranking
from edgepress.scores.owned import owned, summed
from edgepress.scores.redundancy import Redundancy

LEAST = 1.0
"""Bits that removing a channel saves at least: one that saves nothing must not look infinitely dear."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """The entropy score.

    Attributes:
        positions: output positions observed in each sample.
        seed: seed of the choice of positions.
        name: of the score.
    """

    positions: int
    seed: int = 0
    name: str = "entropy"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """One Gram for every part of a consumer."""
        return self._errors.needs(model, group)

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Error per bit saved of each channel at its turn: float64 [size]."""
        saved = self._saved(model, group)
        return np.asarray(self._errors.rank_by(model, group, statistics, saved).added / saved)

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Backward elimination by the least error per bit saved, the lossless channels first; costs are errors."""
        return self._errors.rank_by(model, group, statistics, self._saved(model, group))

    def bits(self, model: Model, group: Group) -> np.ndarray:
        """Bits of the weights that go with each channel: float64 [size]."""
        places = owned(model, group, ("out", "in", "along"))
        matrices = owned(model, group, ("out", "in"))
        lengths = {
            tensor: code_lengths(model.constants[tensor], vector=tensor not in matrices and _is_vector(model, tensor))
            for tensor in places
        }
        each = (summed(lengths[tensor], axes) for tensor, axes in places.items())
        return np.asarray(sum(each, np.zeros(group.size)))

    def _saved(self, model: Model, group: Group) -> np.ndarray:
        return np.asarray(np.maximum(self.bits(model, group), LEAST))

    @property
    def _errors(self) -> Redundancy:
        return Redundancy(self.positions, self.seed)


def code_lengths(array: np.ndarray, *, vector: bool = False) -> np.ndarray:
    """Bits of every number of an initializer: float64, same shape.

    Args:
        array: the initializer; whole numbers are coded as they are.
        vector: stored, not coded.
    """
    if vector:
        return np.full(array.shape, 8.0 * array.itemsize)
    if array.dtype.kind in "iu":
        return codec.empirical_bits(array)
    weights = array.astype(np.float64)
    return codec.empirical_bits(codec.rate_rounded(weights, codec.uniform_step(weights), codec.SLOPE))


def _is_vector(model: Model, tensor: str) -> bool:
    """Whether all but one of its axes have length one."""
    array = model.constants[tensor]
    return array.size == max(array.shape, default=1)
