"""Meter: where costs come from, behind one interface. This process, a device's clock, or instructions counted there.

A meter answers two questions::

    compare   whole models against each other: what a choice rests on
    best      many small models (layers alone, at several widths): the material of a latency table
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from edgepress.bench.here import Here
from edgepress.bench.machine import Machine
from edgepress.bench.remote import Remote
from edgepress.bench.summary import Timing
from edgepress.bench.timing import NONE, Limits
from edgepress.devices import Agent, Level, open_device
from edgepress.errors import DeviceError

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


@contextmanager
def meter_of(device: str | None, limits: Limits = NONE, *, cycles: bool = False) -> Iterator[Meter]:
    """The meter of a device; None is this process.

    Args:
        device: its spec.
        limits: of comparisons.
        cycles: estimate cycles on an emulated core, in place of counting instructions.

    Raises:
        DeviceError: the spec names no device, or one that cannot be had here.
    """
    if device is None:
        if cycles:
            raise DeviceError(
                "Cycles are estimated on emulated cores only: name one by --device emulated://cortex-a72."
            )
        yield Here(limits)
        return
    with open_device(device) as opened:
        yield meter_on(Agent(opened), limits, cycles=cycles)


def meter_on(agent: Agent, limits: Limits = NONE, *, cycles: bool = False) -> Meter:
    """The meter of a device that is open: its clock; where its time means nothing, instructions or cycles.

    Raises:
        DeviceError: cycles of a real device, which has a clock.
    """
    if cycles and agent.device.level == "measured":
        raise DeviceError(f"{agent.device.spec} has a clock: cycles are estimated on emulated cores only.")
    if agent.device.level == "measured":
        return Remote(agent, limits)
    from edgepress.bench.counted import Counted, Estimated  # few need the emulator

    return Estimated(agent) if cycles else Counted(agent)
