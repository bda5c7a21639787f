"""Meter: where costs come from, behind one interface. This process, a device's clock, or instructions counted there.

compare   whole models against each other: what a choice rests on
best      many small models (layers alone, at several widths): the material of a latency table
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgepress.bench.machine import Machine
from edgepress.bench.summary import Timing
from edgepress.devices import Level

Feed = Mapping[str, np.ndarray]
Small = tuple[bytes, Feed]
"""A serialized model and one sample."""


class Meter(Protocol):
    """A source of costs.

    Attributes:
        level: what its figures are worth; all of them are of this level.
        spec: the device, ``local`` for this process.
    """

    level: Level
    spec: str

    def machine(self) -> Machine:
        """What costs hold for."""
        ...

    def compare(
        self,
        models: Mapping[str, bytes],
        feeds: Sequence[Feed],
        *,
        threads: int = 1,
        seconds: float = 6.0,
        min_rounds: int = 20,
        seed: int = 0,
        reference: str,
    ) -> Timing:
        """Models against a reference, as :func:`edgepress.bench.timing.compare`."""
        ...

    def best(
        self, groups: Sequence[Sequence[Small]], *, threads: int = 1, seconds: float = 1.0, seed: int = 0
    ) -> list[np.ndarray]:
        """The least cost of one run of every model, per group float64 [models]; in ms, or millions of instructions.

        Args:
            groups: models that take turns.
            threads: intra-op threads.
            seconds: for each group, about.
            seed: of the order of turns.
        """
        ...
