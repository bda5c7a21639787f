"""Several scores at once: the weighted mean of the ranks that each gives a channel within its group.

Scores have no common unit, so their ranks are mixed: 0 for the channel that goes first, 1 for the one that goes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model
from edgepress.scores.base import Score, order_of


@dataclass(frozen=True, slots=True)
class Mix:
    """Scores and their weights; ``name`` says them as the user does."""

    parts: tuple[tuple[Score, float], ...]
    name: str

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """What any of the scores observes, each thing once."""
        every = (probe for score, _ in self.parts for probe in score.needs(model, group))
        return tuple({probe.name: probe for probe in every}.values())

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Weighted mean of the ranks, within 0 and 1: float64 [size]."""
        found = np.zeros(group.size)
        for score, weight in self.parts:
            place = np.empty(group.size)
            place[order_of(score, model, group, statistics)] = np.arange(group.size) / max(1, group.size - 1)
            found += weight * place
        return found / sum(weight for _, weight in self.parts)
