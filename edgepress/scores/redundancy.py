"""Redundancy (Shah 2020): a channel that the others can stand in for costs nothing to remove.

The cheapest channel goes, again and again (backward elimination, :mod:`edgepress.scores.elimination`: one-shot scores
would remove both members of a correlated pair). A first pass with (nearly) no ridge finds the lossless part: dead,
constant and exactly dependent channels (constant ones depend on the column of ones).

    block     all columns of a channel at once, every tap of a kernel refitted on its own: the default
    scalar    one coefficient per pair of channels (the redistribution of the paper), on the Gram averaged over taps
    qr        the reverse of QR with column pivoting on the activations, weighted by the outgoing weights

Source: Shah, Olivier & Raj 2020, "Exploiting Non-Linear Redundancy for Neural Model Compression" (arXiv 2005.14070).
Guarantees: deterministic; costs never fall; orders are made once, on the original network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgepress.calibrate.statistics import Probe, gram_probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.parallel import one_blas_thread
from edgepress.scores.base import Ranking, consumers
from edgepress.scores.elimination import Linear, eliminate, linear_consumers
from edgepress.scores.lossless import lossless, pivoted


@dataclass(frozen=True, slots=True)
class Redundancy:
    """The redundancy score.

    Attributes:
        positions: output positions observed in each sample.
        seed: seed of the choice of positions.
        name: of the score.
        method: ``block``, ``scalar`` or ``qr`` (see the module).
    """

    positions: int
    seed: int = 0
    name: str = "redundancy"
    method: Literal["block", "scalar", "qr"] = "block"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """One Gram for every part of a consumer."""
        return tuple(
            gram_probe(part, positions=self.positions, seed=self.seed)
            for fit, _ in consumers(model, group)
            for part in fit.parts
        )

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Error that each channel's removal added at its turn: float64 [size]."""
        return self.rank(model, group, statistics).added

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Backward elimination over all channels, the lossless ones first."""
        return self.rank_by(model, group, statistics, None)

    def rank_by(self, model: Model, group: Group, statistics: Mapping[str, Any], saved: np.ndarray | None) -> Ranking:
        """As :meth:`rank`, the least error per what each channel saves first: ``saved`` [size], over 0."""
        with one_blas_thread():  # the order must not depend on the number of cores
            parts = linear_consumers(model, group, statistics)
            free = lossless(parts, group.size)
            if self.method == "qr":
                rest = (channel for channel in pivoted(parts, group.size) if channel not in set(free))
                return _ranking(parts, group, [*free, *rest], len(free))
            if self.method == "scalar":
                pooled = [part.pooled().regularized() for part in parts]
                return _ranking(parts, group, eliminate(pooled, group.size, first=free, saved=saved)[0], len(free))
            return _ranking(parts, group, free, len(free), saved)

    def along(
        self, model: Model, group: Group, statistics: Mapping[str, Any], order: np.ndarray, *, free_first: bool = False
    ) -> Ranking:
        """What an order made by another score costs when the others take over.

        Args:
            model: the model.
            group: the group.
            statistics: of :meth:`needs`.
            order: order of removal, int64 [size].
            free_first: channels whose removal is lossless go before all others.
        """
        with one_blas_thread():
            parts = linear_consumers(model, group, statistics)
            free = lossless(parts, group.size) if free_first else []
            rest = order[~np.isin(order, free)].tolist()
            return _ranking(parts, group, [*free, *rest], len(free))


def _ranking(
    parts: list[Linear], group: Group, first: Sequence[int], free: int, saved: np.ndarray | None = None
) -> Ranking:
    """Backward elimination with some channels first; what it costs to remove channels and refit the others."""
    order, cost = eliminate([part.regularized() for part in parts], group.size, first=first, saved=saved)
    cost[: free + 1] = 0.0
    return Ranking(np.array(order, np.int64), np.maximum.accumulate(cost), free, float(len(set(group.consumers))))
