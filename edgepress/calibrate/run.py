"""Run a model over a feed and fold probes: streamed, memory flat in the number of samples.

Chunks are computed in parallel and merged strictly in chunk order (``parallel.ordered_map``), each with one thread: the
result is bit-identical for any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgepress import runtime
from edgepress.calibrate.feed import Chunk, Feed
from edgepress.calibrate.statistics import Probe
from edgepress.model import Model
from edgepress.parallel import one_blas_thread, ordered_map

CHUNK = 32
"""Samples of one chunk: small enough to keep activations of large inputs in bounds."""


def collect(model: Model, feed: Feed, probes: Sequence[Probe], *, workers: int, chunk: int = CHUNK) -> dict[str, Any]:
    """Observe every probe over the whole feed; returns the merged statistics by probe name."""
    tensors = list(dict.fromkeys(name for probe in probes for name in probe.tensors))
    inner = [name for name in tensors if name not in model.inputs]
    opened = runtime.session(model.exposing(inner))

    def observe(numbered: tuple[int, Chunk]) -> list[Any]:
        number, part = numbered
        values: Mapping[str, np.ndarray] = {**part.inputs, **runtime.run(opened, part.inputs, inner)}
        return [probe.observe(values, number) for probe in probes]

    merged: list[Any] | None = None
    with one_blas_thread():
        for partial in ordered_map(observe, enumerate(feed.chunks(chunk)), workers=workers):
            merged = partial if merged is None else [a.merge(b) for a, b in zip(merged, partial, strict=True)]
    return dict(zip([probe.name for probe in probes], merged or [], strict=bool(merged)))


def outputs(
    model: Model, feed: Feed, *, workers: int = 1, chunk: int = CHUNK
) -> Iterator[tuple[Chunk, list[np.ndarray]]]:
    """Run a model over a feed: each chunk with the model's outputs, in order."""
    opened = runtime.session(model.data)
    names = list(model.outputs)

    def run(part: Chunk) -> tuple[Chunk, list[np.ndarray]]:
        found = runtime.run(opened, part.inputs, names)
        return part, [found[name] for name in names]

    return ordered_map(run, feed.chunks(chunk), workers=workers)
