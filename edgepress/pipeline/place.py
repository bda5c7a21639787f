"""Where costs are taken: this process, or the device that the user names; and what is known of it.

The device's own CPU says which target the model is made for, unless the user does; other kinds of processors than it
has are refused. With a device its costs drive every choice: widths go along its table of layer costs
(:mod:`edgepress.planner.timing`), and models are weighed by what they cost there. An emulated device counts
instructions, of one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgepress import targets
from edgepress.bench import Machine
from edgepress.bench.here import Here
from edgepress.bench.meter import Meter, meter_on
from edgepress.devices import Agent, open_device
from edgepress.errors import InputError
from edgepress.planner.cache import CostCache, cache_folder, short_hash
from edgepress.request import AUTO, Request
from edgepress.targets import Target

TELLING = ("cpu", "part", "cores", "machine")
"""What tells a device from others, beside its instruction sets and whether models are run from Python there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where costs are taken.

    Attributes:
        meter: the source of costs.
        cpu: the record of its CPU.
        about: what its agent says of it; empty for this process, whose costs are not remembered.
        known: the machine, where that is known already; asking a device takes seconds.
    """

    meter: Meter
    cpu: Target
    about: Mapping[str, Any]
    known: Machine | None = None

    @property
    def machine(self) -> Machine:
        """What costs hold for."""
        return self.known or self.meter.machine()

    @property
    def named(self) -> bool:
        """The user has named a device."""
        return bool(self.about)

    @property
    def counts(self) -> bool:
        """Costs are instructions, not times."""
        return self.meter.level != "measured"

    def threads(self, wanted: int | None) -> tuple[int, ...]:
        """Thread counts to take costs with: one, and what was asked for or all cores; one where they are counted."""
        return (1,) if self.counts else tuple(sorted({1, wanted or self.machine.cores}))

    def cache(self, threads: int) -> CostCache | None:
        """Costs that are known of the device; None for this process."""
        if not self.named:
            return None
        device = {name: self.about.get(name) for name in TELLING}
        device |= {"flags": short_hash(self.about.get("flags")), "native": not self.about.get("python")}
        section = f"{self.meter.level}, onnxruntime {self.about.get('onnxruntime')}, {threads} threads"
        return CostCache.open(cache_folder(), device, section)


def here() -> Place:
    """This process."""
    return Place(Here(), targets.detect(), {})


@contextmanager
def place_of(request: Request) -> Iterator[Place]:
    """The place that a request names, for as long as it is needed.

    Raises:
        DeviceError: the device cannot be had.
        InputError: it cannot do what is asked for.
    """
    if request.device is None:
        yield here()
        return
    with open_device(request.device) as device:
        agent = Agent(device)
        found = agent.perform({"task": "identify"}).report
        about = found["machine"]
        place = Place(meter_on(agent), cpu_of(about), about, Machine.of(about, found["before"]))
        check(request, place)
        yield place


def cpu_of(about: Mapping[str, Any]) -> Target:
    """The record of a device's CPU, by what its agent says of it."""
    system = str(about.get("os", "")).split(" ", 1)[0]
    return targets.of_machine(str(about.get("machine", "")), system, about.get("flags", ()))


def check(request: Request, place: Place) -> None:
    """What a device cannot do is said before any work.

    Raises:
        InputError: the target is for other processors, or several threads are to be counted.
    """
    if request.target != AUTO and not targets.find(request.target).timed_on(place.cpu):
        raise InputError(
            f"--target {request.target} is for other processors than {request.device} has ({place.cpu.name}): leave "
            "one of them out."
        )
    if place.counts and (request.threads or 1) > 1:
        raise InputError(f"{request.device} counts the instructions of one thread: leave --threads out.")
