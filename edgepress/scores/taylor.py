"""First-order Taylor: how much a sample's score would change if a channel were gone, to first order.

    t_c = mean over samples of |sum over weights w that read channel c of  w dl/dw|

For activations this is the sum of ``h dl/dh`` over the positions of the channel.

Source: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from edgepress.calibrate.slopes import Gates
from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.readers import gates_of


@dataclass(frozen=True, slots=True)
class Taylor:
    """The Taylor score.

    Attributes:
        loss: what the gradients are of (``executor.slopes``).
        name: of the score.
    """

    loss: str = "answer"
    name: str = "taylor"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """How each channel is felt, sample by sample."""
        return (gates_of(model, group, self.loss),)

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """float64 [size]."""
        (probe,) = self.needs(model, group)
        gates = cast(Gates, statistics[probe.name])
        return gates.absolute / gates.samples
