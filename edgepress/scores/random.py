"""Random: the baseline that knows nothing.

Guarantee: the same numbers for the same seed and group name, on every machine and in every process.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepress.calibrate.statistics import Probe
from edgepress.groups import Group
from edgepress.model import Model


@dataclass(frozen=True, slots=True)
class Random:
    """The random score.

    Attributes:
        seed: of the draws, from 0.
        name: of the score.
    """

    seed: int = 0
    name: str = "random"

    def needs(self, model: Model, group: Group) -> tuple[Probe, ...]:
        """Nothing."""
        return ()

    def score(self, model: Model, group: Group, statistics: Mapping[str, Any]) -> np.ndarray:
        """Uniform draws: float64 [size]."""
        own = zlib.crc32(group.name.encode())  # Python's hash of a string differs from process to process
        return np.random.default_rng([self.seed, own]).random(group.size)
