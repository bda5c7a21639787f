"""Cycles: an estimate of how long a core takes for a run, from executed blocks and a model of its pipeline.

    cycles = sum over blocks of (times executed) x (cycles of the block when it is repeated without end)

The first factor is counted under qemu (``blocks.c``), the second computed by llvm-mca, LLVM's simulator of pipelines,
from its scheduling model of the core. Blocks that make up ``COVERED`` of the instructions are simulated, the rest is
taken to be as fast as these. Caches, branches foretold wrongly and what overlaps between blocks are left out.

An **estimate**: it has not been compared with real cores. Only ratios of two models on one core mean something, and
they are to be reported with the name of the scheduling model. The same counts give the same cycles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepress.devices.counting.blocks import FILE, Blocks, length, runs_in
from edgepress.devices.counting.job import Feed, job
from edgepress.devices.counting.pipeline import Pipeline, pipeline
from edgepress.devices.emulated import Emulated
from edgepress.devices.emulated_cores import CORES
from edgepress.devices.remote import Agent
from edgepress.errors import DeviceError

COVERED = 0.97


@dataclass(frozen=True, slots=True)
class Cycles:
    """An estimate.

    Attributes:
        cycles: of one run.
        instructions: of one run.
        covered: the part of the instructions that was simulated.
        model: that simulated them, ``llvm-mca 19.1.7, cortex-a57``.
    """

    cycles: float
    instructions: int
    covered: float
    model: str


def cycles(agent: Agent, models: Mapping[str, bytes], feed: Feed) -> dict[str, Cycles]:
    """Estimated cycles of one run of every model on the same sample.

    Args:
        agent: on an emulated core.
        models: serialized.
        feed: one sample, with all inputs of each.

    Raises:
        DeviceError: no emulated core, no llvm-mca, the plugin was not built, or the core cannot run a model.
        ModelError: onnxruntime there cannot load or run a model.
    """
    found = cycles_each(agent, [(model, feed) for model in models.values()])
    return dict(zip(models, found, strict=True))


def cycles_each(agent: Agent, models: Sequence[tuple[bytes, Feed]]) -> list[Cycles]:
    """Estimated cycles of every model, each on a sample of its own; raises what :func:`cycles` raises."""
    device = agent.device
    simulator = pipeline(CORES[device.place.core].model) if isinstance(device, Emulated) else None  # before the work
    with job(agent, "blocks", models) as (answer, helper):
        runs = runs_in(helper.fetch(FILE).decode("ascii"), len(answer.report["names"]))
    assert simulator is not None  # the job refused other devices
    return estimates(runs, simulator)


def estimates(runs: Sequence[Blocks], simulator: Pipeline) -> list[Cycles]:
    """Estimates of runs, from how often each executed its blocks.

    Raises:
        DeviceError: the simulator fails, or knows none of the blocks of a run.
    """
    chosen = [hot(run) for run in runs]
    known = simulator.cycles(sorted({block for blocks in chosen for block in blocks}))
    return [_estimate(run, blocks, known, simulator.name) for run, blocks in zip(runs, chosen, strict=True)]


def hot(run: Blocks) -> list[str]:
    """The blocks that make up ``COVERED`` of the instructions, those with most first."""
    total, done, found = sum(times * length(block) for block, times in run.items()), 0, []
    for block, times in sorted(run.items(), key=lambda item: (-item[1] * length(item[0]), item[0])):
        if done >= COVERED * total:
            break
        found.append(block)
        done += times * length(block)
    return found


def _estimate(run: Blocks, chosen: Sequence[str], known: Mapping[str, float], model: str) -> Cycles:
    total = sum(times * length(block) for block, times in run.items())
    simulated = [block for block in chosen if block in known]
    done = sum(run[block] * length(block) for block in simulated)
    if not done:
        raise DeviceError(f"{model} simulated none of the instructions: try another version of LLVM.")
    spent = sum(run[block] * known[block] for block in simulated)
    return Cycles(spent * total / done, total, done / total, model)
