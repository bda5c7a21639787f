"""Counting: how many instructions one run of a model has on an emulated core. A cost without a clock.

A plugin of qemu adds up executed instructions by class (``classes.c``), between two marks that the agent sets around a
run: closing a file that is not open, which costs nothing and works from Python. A number counts all that happens in
``InferenceSession.run``: the kernels, onnxruntime's bookkeeping and Python's. A network of one Relu of two values has
about 49,000 instructions, nearly all of them such.

Deterministic up to little: one thread (counters are inline in translated code and not atomic), the same environment,
hash seed and number of processors every time. Classes of SIMD instructions are the same in every process; the total
moves by less than 0.05 %, or some hundred instructions in small networks (385 of 162,000 is the most seen), as the
allocator and Python's dictionaries depend on addresses. Compare with a margin of 0.1 % and of 500 instructions.
Emulated cores differ by the kernels that onnxruntime picks: the counts of A53 and A72 are alike, and those of A55 and
A76; how many instructions each core finishes per cycle is not in them (:mod:`edgepress.devices.counting.cycles`).

Many models are counted in one process: starting Python and onnxruntime under qemu takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgepress.devices.counting.job import Feed, job
from edgepress.devices.counting.marks import CLASSES, Counts, counts_in
from edgepress.devices.remote import Agent

__all__ = ["CLASSES", "Counts", "counts", "counts_each"]


def counts(agent: Agent, models: Mapping[str, bytes], feed: Feed) -> dict[str, Counts]:
    """Instructions of one run of every model on the same sample.

    Args:
        agent: on an emulated core.
        models: serialized.
        feed: one sample, with all inputs of each.

    Raises:
        DeviceError: no emulated core, the plugin was not built, or onnxruntime uses instructions the core has not.
        ModelError: onnxruntime there cannot load or run a model.
    """
    found = counts_each(agent, [(model, feed) for model in models.values()])
    return dict(zip(models, found, strict=True))


def counts_each(agent: Agent, models: Sequence[tuple[bytes, Feed]]) -> list[Counts]:
    """Instructions of one run of every model, each on a sample of its own; raises what :func:`counts` raises."""
    with job(agent, "classes", models) as (answer, _):
        names = answer.report["names"]
        found = counts_in(answer.stderr, names)
    return [found[name] for name in names]
