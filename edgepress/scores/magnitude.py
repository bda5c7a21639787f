"""Magnitude: filters with small weights do little.

    score_j = mean over the weights that make channels of   |w_j|_1 / (mean over the channels of the group)

The L1 norm of a filter, relative to the mean filter of its layer: 1 is an average channel. A group may be made in
several places (layers joined by an Add or a gate, queries and keys, the gates of a recurrent operator): each counts as
much as the others, whatever its scale. Weights that several nodes read count once.

Source: Li, Kadav, Durdanovic, Samet & Graf 2017, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710), section
3.1.
Guarantees: no data needed; a channel whose weights are zeros scores 0; scaling a layer changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.owned import owned, summed


@dataclass(frozen=True, slots=True)
class Magnitude:
    """The magnitude score."""

    name: str = "magnitude"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """Nothing: weights are enough."""
        return ()

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """L1 norm of each channel's filters relative to the mean one: float64 [size]."""
        norms = [
            summed(np.abs(model.constants[tensor].astype(np.float64)), {axis: index})
            for tensor, axes in owned(model, group, ("out",)).items()
            for axis, index in axes.items()
        ]
        return np.asarray(np.mean([norm / (norm.mean() or 1.0) for norm in norms], axis=0))
