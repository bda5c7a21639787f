"""Inspect: what a model is like on a device, beside its time: operators after fusion, memory, where the time goes.

All by jobs of the agent, this machine's included: peak memory means nothing but in a fresh process, and fusions are
those of the architecture and the onnxruntime that the model runs on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgepress.bench.remote import sent, sent_feeds, sent_model
from edgepress.devices import Agent

WARMUP, RUNS, SECONDS = 3, 50, 2.0
"""Of a profile: runs that are left out, and that count; the latter end after so many seconds."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a fresh process that opened one model and ran it, in kB; None where the system does not say.

    Attributes:
        start_kb: highest before the model was opened: the interpreter, onnxruntime and the sample.
        peak_kb: highest after a few runs.
    """

    start_kb: int | None
    peak_kb: int | None

    @property
    def model_bytes(self) -> int | None:
        """What the model took, at most."""
        if self.start_kb is None or self.peak_kb is None:
            return None
        return 1024 * (self.peak_kb - self.start_kb)


@dataclass(frozen=True, slots=True)
class NodeTime:
    """Time of one node of the graph that onnxruntime really runs; ``us``: median over runs, in µs."""

    node: str
    operator: str
    us: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a run goes.

    Attributes:
        run_us: median of the whole run in µs, which the profiler slows down.
        nodes: in the order in which they run.
    """

    run_us: float
    nodes: tuple[NodeTime, ...]

    @property
    def between_us(self) -> float:
        """Time of the run that no node has."""
        return max(0.0, self.run_us - sum(node.us for node in self.nodes))

    def by_operator(self) -> dict[str, float]:
        """Time by operator in µs, most first."""
        found: dict[str, float] = {}
        for node in self.nodes:
            found[node.operator] = found.get(node.operator, 0.0) + node.us
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def operators(agent: Agent, models: Mapping[str, bytes], threads: int = 1) -> dict[str, dict[str, int]]:
    """Operators of every model after onnxruntime's fusions on the device, and how many there are of each.

    Raises:
        DeviceError: the device, its connection or its Python fails.
        ModelError: onnxruntime there cannot load one of them.
    """
    job = {"task": "operators", "models": sent(agent, models), "threads": threads}
    found: dict[str, dict[str, int]] = agent.perform(job).report["operators"]
    return found


def memory(agent: Agent, models: Mapping[str, bytes], feed: Feed, threads: int = 1) -> dict[str, Memory]:
    """Memory of every model, each in a process of its own.

    Raises:
        DeviceError: the device, its connection or its Python fails.
        ModelError: onnxruntime there cannot load or run one of them.
    """
    feeds, found = sent_feeds(agent, [feed]), {}
    for name, model in models.items():
        job = {"task": "memory", "model": sent_model(agent, model), "feeds": feeds, "threads": threads}
        report = agent.perform(job).report
        found[name] = Memory(report["start_kb"], report["peak_kb"])
    return found


def profiles(agent: Agent, models: Mapping[str, bytes], feed: Feed, threads: int = 1) -> dict[str, Profile]:
    """A profile of every model, by onnxruntime's own profiler on one sample.

    Raises:
        DeviceError: the device, its connection or its Python fails.
        ModelError: onnxruntime there cannot load or run one of them.
    """
    job = {
        "task": "profile",
        "models": sent(agent, models),
        "feeds": sent_feeds(agent, [feed]),
        "threads": threads,
        "warmup": WARMUP,
        "runs": RUNS,
        "seconds": SECONDS,
    }
    report = agent.perform(job).report["profiles"]
    return {
        name: Profile(found["run_us"], tuple(NodeTime(*node) for node in found["nodes"]))
        for name, found in report.items()
    }
