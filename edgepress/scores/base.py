"""The seam for importance methods.

A score says what must be observed (``needs``) and turns the statistics into one number per channel
(``score``). A method that removes one channel after the other and lets the rest take over is an
``Elimination``: it gives the order of removal and what each step has cost so far (``rank``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgepress.calibrate.linear import Linear, linear
from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order of removal.

    Attributes:
        order: int64 [size], first removed first.
        cost: float64 [size + 1], summed squared error of the consumers' outputs (mean over rows) after removing
            the first ``k`` channels and refitting the rest; ``cost[0] = 0``, never falling.
        free: number of leading channels whose removal is lossless up to rounding.
        energy: variance of the consumers' outputs, to read ``cost`` against.
    """

    order: np.ndarray
    cost: np.ndarray
    free: int
    energy: float


class Score(Protocol):
    """Importance per channel: small numbers go first."""

    name: str

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """What to observe for a group."""
        ...

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """float64 [size], from the statistics of :meth:`needs`."""
        ...


class Elimination(Score, Protocol):
    """A score that removes step by step."""

    def rank(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> Ranking:
        """Order and cost of removal."""
        ...


def consumers(model: Model, group: Group) -> Iterator[tuple[Linear, np.ndarray]]:
    """The group's consumers as linear operators, each with its columns per channel: int64 [size, block]."""
    for site in group.sites:
        if site.role == "in":
            view = linear(model, model.node(site.node))
            if view is not None:
                yield view, view.columns_of(site.index).reshape(group.size, -1)
