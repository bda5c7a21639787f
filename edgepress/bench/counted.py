"""Counted: instructions on an emulated core as a meter, or cycles estimated from them, for where there is no device.

They are no times. A count is nearly the same every time (:mod:`edgepress.devices.counting`): it has no quantiles, its
ratio no interval, and what differs by more than ``MARGIN`` and ``SLACK`` differs. So it is with what is computed from
counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgepress.bench import statistics
from edgepress.bench.machine import Machine
from edgepress.bench.remote import Remote
from edgepress.bench.statistics import Latency, Ratio
from edgepress.bench.summary import Timing
from edgepress.bench.timing import check
from edgepress.devices import Agent, Level
from edgepress.devices.counting import counts_each
from edgepress.devices.counting.cycles import cycles_each
from edgepress.errors import InputError

MARGIN, SLACK = 0.001, 500
"""By what counts of one model in two processes may differ: relatively, and in instructions, for networks that have few
of them. Cycles are given as many."""

MILLION = 1e6

Feed = Mapping[str, np.ndarray]
Small = tuple[bytes, Feed]


class Counted:
    """Millions of instructions of one run, on one emulated core."""

    level: Level = "counted"

    def __init__(self, agent: Agent) -> None:
        """Use the agent of an emulated core."""
        self.agent = agent
        self.spec = agent.device.spec
        self._machine: Machine | None = None

    def machine(self) -> Machine:
        """The emulated core, asked once: it does not change, and starting Python there takes seconds.

        Raises:
            DeviceError: it was not set up.
        """
        if self._machine is None:
            self._machine = Remote(self.agent).machine()
        return self._machine

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
        """Models against a reference on the first sample; nothing is timed, and nothing is drawn at random.

        Raises:
            InputError: no feed, an unknown reference, or more than one thread.
            DeviceError: this is no emulated core, or it fails.
            ModelError: onnxruntime there cannot load or run one of the models.
        """
        check(models, feeds, reference, threads, seconds, min_rounds)
        if threads != 1:
            raise InputError("Instructions are counted in one thread: ask for 1 thread.")
        found = self._costs([(model, feeds[0]) for model in models.values()])
        costs = {name: float(cost) for name, cost in zip(models, found, strict=True)}
        return exact(costs, reference, self.level, self.machine())

    def best(
        self, groups: Sequence[Sequence[Small]], *, threads: int = 1, seconds: float = 1.0, seed: int = 0
    ) -> list[np.ndarray]:
        """Millions of every model, per group float64 [models]; all are counted in one process.

        Raises:
            DeviceError: this is no emulated core, or it fails.
            ModelError: onnxruntime there cannot load or run one of them.
        """
        found = self._costs([small for group in groups for small in group])
        return np.split(found, np.cumsum([len(group) for group in groups])[:-1])

    def _costs(self, models: Sequence[Small]) -> np.ndarray:
        return np.array([one.total for one in counts_each(self.agent, models)]) / MILLION


class Estimated(Counted):
    """Millions of cycles of one run, estimated; ``simulator`` says by which model of a core."""

    level: Level = "cycles"

    def __init__(self, agent: Agent) -> None:
        """Use the agent of an emulated core."""
        super().__init__(agent)
        self.simulator = ""

    def _costs(self, models: Sequence[Small]) -> np.ndarray:
        found = cycles_each(self.agent, models)
        self.simulator = found[0].model
        return np.array([one.cycles for one in found]) / MILLION


def exact(costs: Mapping[str, float], reference: str, level: Level, machine: Machine) -> Timing:
    """Costs that are known once and for all, as a timing."""
    ratios = []
    for name, cost in costs.items():
        if name != reference:
            ratio, reach = cost / costs[reference], _reach(cost, costs[reference])
            noise = statistics.noise(math.log(ratio), math.log(ratio), reach)
            ratios.append(Ratio(name, reference, ratio, ratio, ratio, noise))
    latencies = tuple(Latency(name, cost, cost, cost, math.nan, math.nan, 1) for name, cost in costs.items())
    return Timing(reference, 1, 1, latencies, tuple(ratios), _reach(*costs.values()), machine, level)


def _reach(*costs: float) -> float:
    """How far from 0 the log ratio of two of these costs (millions) may be without a difference."""
    return math.log1p(max(MARGIN, SLACK / MILLION / min(costs)))
