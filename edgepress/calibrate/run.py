"""Run a model over a feed and fold probes: streamed, memory flat in the number of samples.

Chunks are computed in parallel and merged strictly in order (``parallel.ordered_map``), each with one thread: the
result is bit-identical for any number of workers. Sums of floats depend on where the brackets are, so they are fixed:
the chunks of a feed are cut into ``UNITS`` runs, chunks are merged within their unit, then the units in order.
Whoever has all units, from one machine or from several, gets the same bits (:mod:`edgepress.calibrate.store`).

Probes without gradients are observed in onnxruntime; for the others a runner of their loss does the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edgepress import runtime
from edgepress.calibrate.feed import Chunk, Feed
from edgepress.calibrate.slopes import SAMPLES
from edgepress.calibrate.statistics import Probe, Values
from edgepress.model import Model
from edgepress.parallel import one_blas_thread, ordered_map

CHUNK = 32
"""Samples of one chunk: small enough to keep activations of large inputs in bounds."""

SLOPE_CHUNK = 8
"""The same where gradients are taken, which keeps all activations of a chunk alive."""

UNITS = 16
"""Parts of a feed that are folded by themselves: no more machines can share the work."""

Units = Mapping[int, Mapping[str, Any]]
"""Statistics by unit, then by name of their probe."""


class Runner(Protocol):
    """Runs the model on a chunk and takes the gradients of a loss."""

    def __call__(
        self, number: int, chunk: Chunk, tensors: Sequence[str], slopes: Sequence[str], /
    ) -> Mapping[str, np.ndarray]:
        """Activations by name, gradients by ``statistics.slope`` of the name.

        Args:
            number: of the chunk.
            chunk: its samples.
            tensors: activations, graph inputs among them.
            slopes: those whose gradients are wanted.
        """
        ...


def collect(
    model: Model,
    feed: Feed,
    probes: Sequence[Probe],
    *,
    workers: int,
    chunk: int = CHUNK,
    runners: Mapping[str, Runner] | None = None,
) -> dict[str, Any]:
    """Observe every probe over the whole feed; returns the merged statistics by probe name.

    Args:
        model: the model.
        feed: the samples.
        probes: what to observe.
        workers: threads.
        chunk: samples of a chunk; no more than ``SLOPE_CHUNK`` where gradients are taken.
        runners: by name of a loss; every loss of the probes needs one.
    """
    merged: dict[str, Any] = {}
    every = range(UNITS)
    for units in _folded(model, feed, probes, workers=workers, chunk=chunk, runners=runners or {}, units=every):
        for _, found in units:
            _merge_into(merged, found)
    return merged


def collect_units(
    model: Model,
    feed: Feed,
    probes: Sequence[Probe],
    *,
    workers: int,
    units: range,
    runners: Mapping[str, Runner] | None = None,
) -> dict[int, dict[str, Any]]:
    """As :func:`collect`, but for some of the units, one after the other, and each by itself.

    Units without chunks are left out.
    """
    if units.step != 1:
        raise ValueError("units must follow one another")
    apart: dict[int, dict[str, Any]] = {}
    for folded in _folded(model, feed, probes, workers=workers, chunk=CHUNK, runners=runners or {}, units=units):
        for number, found in folded:
            apart.setdefault(number, {}).update(found)
    return apart


def merged_units(units: Units) -> dict[str, Any]:
    """The statistics of all units, as :func:`collect` would have made them at once."""
    merged: dict[str, Any] = {}
    for number in sorted(units):
        _merge_into(merged, units[number])
    return merged


def _merge_into(merged: dict[str, Any], found: Mapping[str, Any]) -> None:
    for name, new in found.items():
        merged[name] = merged[name].merge(new) if name in merged else new


def _folded(
    model: Model,
    feed: Feed,
    probes: Sequence[Probe],
    *,
    workers: int,
    chunk: int,
    runners: Mapping[str, Runner],
    units: range,
) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
    """For every loss (none first) the units in order, with the statistics of its probes."""
    for loss in sorted({probe.loss for probe in probes}):
        own = [probe for probe in probes if probe.loss == loss]
        size = min(chunk, SLOPE_CHUNK) if loss else chunk
        run = runners[loss] if loss else _forward(model, own)
        yield _units_of(feed, own, run, size=size, workers=workers, units=units)


def _units_of(
    feed: Feed, probes: Sequence[Probe], run: Runner, *, size: int, workers: int, units: range
) -> Iterator[tuple[int, dict[str, Any]]]:
    tensors = list(dict.fromkeys(name for probe in probes for name in probe.tensors))
    slopes = list(dict.fromkeys(name for probe in probes for name in probe.slopes))
    total = feed.runs(size)
    numbers = range(-(-units.start * total // UNITS), -(-units.stop * total // UNITS))

    def observe(numbered: tuple[int, Chunk]) -> list[Any]:
        number, part = numbered
        values = Values(run(number, part, tensors, slopes), {SAMPLES: np.array(_rows(part))})
        return [probe.observe(values, number) for probe in probes]

    names = [probe.name for probe in probes]
    chunks = zip(numbers, feed.chunks(size, numbers), strict=True)
    with one_blas_thread():
        folding: tuple[int, list[Any]] | None = None
        for number, partial in zip(numbers, ordered_map(observe, chunks, workers=workers), strict=True):
            unit = number * UNITS // total
            if folding is not None and folding[0] == unit:
                partial = [a.merge(b) for a, b in zip(folding[1], partial, strict=True)]
            elif folding is not None:
                yield folding[0], dict(zip(names, folding[1], strict=True))
            folding = (unit, partial)
        if folding is not None:
            yield folding[0], dict(zip(names, folding[1], strict=True))


def _rows(part: Chunk) -> int:
    """The samples of a chunk; where one that is complete has a label for every row, its rows."""
    return len(part.samples) if part.labels is None else len(part.labels)


def _forward(model: Model, probes: Iterable[Probe]) -> Runner:
    """A runner without gradients, in onnxruntime."""
    every = dict.fromkeys(name for probe in probes for name in probe.tensors)
    inner = [name for name in every if name not in model.inputs]
    opened = runtime.session(model.exposing(inner))

    def run(_: int, chunk: Chunk, __: Sequence[str], ___: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {**chunk.inputs, **(runtime.run(opened, chunk.inputs, inner) if inner else {})}

    return run


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
