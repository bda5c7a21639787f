"""Summary: from raw samples to latencies, ratios and the noise they hold within; the same here and for a device.

The best run of a visit stands for it, as the least disturbed one; every single run is kept for the quantiles. Given the
same samples the result is the same; only the clock is not reproducible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from edgepress.bench import statistics
from edgepress.bench.machine import Conditions, Health, Machine
from edgepress.bench.statistics import Latency, Ratio
from edgepress.devices import Level

Visits = tuple[tuple[float, ...], ...]
"""Single runs in ms, per round."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Costs of several models, taken together.

    Attributes:
        reference: name of the model the ratios refer to.
        threads: intra-op threads of every session.
        rounds: rounds taken.
        latencies: one per model, in the order given.
        ratios: one per model other than the reference, in the order given.
        noise_floor: |log ratio| that two sessions of the SAME model reached; nothing inside it is a difference.
        machine: where.
        level: what the costs are worth; other than ``measured`` they are no times.
        openings: number of rounds after every opening of all sessions; empty where nothing was timed.
        conditions: what may have disturbed it.
        samples: every single run, by model; the twin of the reference is called "".
    """

    reference: str
    threads: int
    rounds: int
    latencies: tuple[Latency, ...]
    ratios: tuple[Ratio, ...]
    noise_floor: float
    machine: Machine
    level: Level = "measured"
    openings: tuple[int, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    samples: Mapping[str, Visits] = field(default_factory=dict)

    def latency(self, name: str) -> Latency:
        """The latency of one model (KeyError if it was not timed)."""
        return {item.name: item for item in self.latencies}[name]

    def ratio(self, name: str) -> Ratio | None:
        """The ratio of one model; None for the reference."""
        return {item.name: item for item in self.ratios}.get(name)


TWIN = ""
"""Name of the twin among the samples: no model has it."""


def summarize(race: Mapping[str, Any], reference: str, threads: int, seed: int) -> Timing:
    """The result of a race.

    Args:
        race: report of an agent's ``race``, with ``machine``, ``before`` and ``after``.
        reference: name of the model that the ratios refer to.
        threads: intra-op threads of every session.
        seed: seed of the bootstrap.
    """
    rows = race["models"]
    openings = race.get("openings") or [race["rounds"]]
    best = {name: _best(row["visits"]) for name, row in (*rows.items(), (TWIN, race["twin"]))}
    floor = statistics.noise_floor(best[TWIN], best[reference], openings, seed=seed)
    ratios = tuple(
        statistics.paired_ratio(name, best[name], reference, best[reference], openings, floor=floor, seed=seed)
        for name in rows
        if name != reference
    )
    return Timing(
        reference,
        threads,
        race["rounds"],
        tuple(_latency(name, row) for name, row in rows.items()),
        ratios,
        floor.reach,
        Machine.of(race["machine"], race["before"]),
        openings=tuple(openings),
        conditions=_conditions(race),
        samples={name: _kept(row["visits"]) for name, row in (*rows.items(), (TWIN, race["twin"]))},
    )


def _best(visits: Sequence[Sequence[float]]) -> np.ndarray:
    return np.array([min(visit) for visit in visits])


def _latency(name: str, row: Mapping[str, Any]) -> Latency:
    runs = np.fromiter(chain.from_iterable(row["visits"]), np.float64)
    return statistics.latency(name, runs, load_ms=row["load_ms"], first_ms=row["first_ms"], rounds=len(row["visits"]))


def _kept(visits: Sequence[Sequence[float]]) -> Visits:
    """The clock counts nanoseconds: further digits are those of a division."""
    return tuple(tuple(round(run, 6) for run in visit) for visit in visits)


def _conditions(race: Mapping[str, Any]) -> Conditions:
    canary = race.get("canary") or {}
    before, after = (min(canary[key]) if canary.get(key) else None for key in ("before_ms", "after_ms"))
    return Conditions(Health.of(race["before"]), Health.of(race["after"]), before, after)
