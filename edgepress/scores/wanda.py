"""Wanda: what a channel brings to its consumers by itself, activations times weights.

    score_j = sum over consumers  sum over the columns c of j   E[x_c^2] * |w_c|^2 / energy of the consumer

The squared metric of the paper, summed over the outgoing weights of a channel: the error of removing the channel if its
columns were uncorrelated and nothing stood in for it. ``centred`` takes the variance instead of the mean square: what
is left when the bias takes over the mean; a consumer without a bias has nothing that could.

Source: Sun, Liu, Bair & Kolter 2023, "A Simple and Effective Pruning Approach for Large Language Models" (arXiv
2306.11695), section 3; in structured form.
Guarantees: the probes are those of redundancy, so both are observed at once; a channel that is zero or unread scores 0,
centred also one that is constant and read by consumers with a bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.elimination import Linear, linear_consumers
from edgepress.scores.redundancy import Redundancy


@dataclass(frozen=True, slots=True)
class Wanda:
    """The Wanda score.

    Attributes:
        positions: output positions observed in each sample.
        seed: seed of the choice of positions.
        centred: whether biases take over means.
        name: of the score.
    """

    positions: int
    seed: int = 0
    centred: bool = False
    name: str = "wanda"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """One Gram for every part of a consumer."""
        return Redundancy(self.positions, self.seed).needs(model, group)

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Energy that each channel brings, relative to the consumers' outputs: float64 [size]."""
        shares = (self._share(part) for part in linear_consumers(model, group, statistics))
        return np.asarray(sum(shares, np.zeros(group.size)))

    def _share(self, part: Linear) -> np.ndarray:
        squares = np.diag(part.inner)
        if self.centred:
            squares = np.maximum(squares - _means(part), 0.0)
        weights = np.einsum("oc,oc->c", part.weights, part.weights)
        return np.asarray((squares * weights)[part.blocks].sum(1) / part.energy)


def _means(part: Linear) -> np.ndarray:
    """The part of each column's mean square that biases can take over; no two of them are one in the same row."""
    ones = np.arange(len(part.inner) - part.biases, len(part.inner))
    return np.asarray((part.inner[:, ones] ** 2 / np.diag(part.inner)[ones]).sum(1))
