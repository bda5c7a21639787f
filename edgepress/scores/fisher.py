"""Fisher information (Tu 2016): a channel that the answer's likelihood hardly feels may go.

With the diagonal ``F_i = E[(dl/dw_i)^2]`` of the Fisher information, removing weight ``i`` costs about ``F_i w_i^2 /
2`` (Optimal Brain Damage with the Fisher information as Hessian).

    gates      the channel as one gate: half the mean of ``u^2``, ``u = sum over its weights of w dl/dw``, which keeps
               what its weights do together
    weights    the sum of ``F_i w_i^2 / 2`` over the weights that read the channel
    adam       the same with Adam's second moment in place of ``F``, the estimate that training gives for nothing

``weights`` and ``adam`` take channels of small magnitude first, whatever their information: that of tiny weights is
hard to estimate (section 3 of the paper). Gates of a recurrent operator have no weight gradients of their own: where
nothing else reads a channel, it is scored as a gate.

Source: Tu, Berisha, Cao, Seo 2016, "Reducing the Model Order of Deep Neural Networks Using Information Theory" (arXiv
1605.04859); Theis et al. 2018 for the gates. Labels are drawn from the model's own answer, or given
(``executor.slopes``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from edgepress.calibrate.slopes import Gates
from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.readers import gates_of, readers_of

SMALL = 0.1
"""Channels whose outgoing weights are smaller than this share of the group's median go first (root mean square)."""


@dataclass(frozen=True, slots=True)
class Fisher:
    """The Fisher score.

    Attributes:
        loss: what the gradients are of (``executor.slopes``).
        method: ``gates``, ``weights`` or ``adam`` (see the module).
        name: of the score.
    """

    loss: str = "answer"
    method: Literal["gates", "weights", "adam"] = "gates"
    name: str = "fisher"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """How each channel is felt, and the squared gradients of the weights that read it."""
        return (gates_of(model, group, self.loss),)

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """float64 [size]; below 0 for channels that go by their magnitude."""
        (probe,) = self.needs(model, group)
        gates = cast(Gates, statistics[probe.name])
        if self.method == "gates" or not gates.parts:
            return 0.5 * gates.square / gates.samples
        saliency, energy = np.zeros(group.size), np.zeros(group.size)
        for reader in readers_of(model, group):
            if reader.part.name in gates.parts:
                slopes = gates.parts[reader.part.name]
                squares = np.square(reader.part.matrix()[:, :-1])
                information = (slopes.mean if self.method == "weights" else slopes.adam)[:, :-1]
                saliency += reader.by_channel(0.5 * (information * squares).sum(0, keepdims=True))[0]
                energy += reader.by_channel(squares.sum(0, keepdims=True))[0]
        return _small_first(saliency, np.sqrt(energy))


def _small_first(saliency: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
    """The saliency, but below zero and by magnitude for channels of small magnitude."""
    limit = SMALL * float(np.median(magnitude))
    return np.where(magnitude < limit, magnitude / max(limit, 1e-30) - 1.0, saliency)
