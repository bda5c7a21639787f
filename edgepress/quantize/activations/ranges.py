"""Ranges of activations, from statistics that can be gathered in any order.

Two streamed passes over the samples: the least and greatest value of every tensor, then a histogram of
fixed edges between them. Both merge: bounds by min and max, histograms by adding integer counts, so the
result does not depend on how the samples are cut into chunks. The means of the inputs of weighted nodes
come along for the bias correction.

    minmax:      [least, greatest]
    percentile:  [P(100 - p), P(p)] read off the histogram, linear inside a bin; a bound that is exactly
                 zero (behind a ReLU) is kept.
    mse:         the grid of the least expected squared error (``clipping``)
    entropy:     the grid of the least divergence (``entropy``)

The last two measure behind the activation functions that read the tensor, which come along too (``curves``). A tensor
that never changes, or is infinite, keeps its bounds. Which method is best differs from model to model: it is for the
caller to choose, by the error of the outputs on held-out samples.

Memory is flat: tensors are exposed in slices and samples in chunks so that one run stays under ``BUDGET``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgepress import runtime
from edgepress.errors import DataError, InvariantError
from edgepress.model import Model
from edgepress.ops.row import Role
from edgepress.plan import Quantization
from edgepress.quantize.activations.clipping import least_error
from edgepress.quantize.activations.curves import Curve, curves
from edgepress.quantize.activations.entropy import least_divergence
from edgepress.quantize.graph.regions import elements, operands, typed, units
from edgepress.targets import Target

BUDGET = 8 << 20
"""Elements of the exposed tensors in one run."""
CHUNKS = (8, 64)
"""Least samples in a chunk (tensors are sliced rather than go below, unless one alone is too big), and most."""
SMALLEST_WIDTH = 1e-30
"""Tensors narrower than this count as constant."""


class Samples(Protocol):
    """Anything that hands out its samples in chunks with ``.inputs``, a dict of model inputs."""

    def chunks(self, size: int, /) -> Iterable[Any]:
        """The samples in chunks of at most ``size``."""


@dataclass(frozen=True, slots=True)
class Range:
    """Least and greatest value that one activation tensor keeps; an infinite one (a masked score) carries no Q."""

    low: float
    high: float

    @property
    def finite(self) -> bool:
        """Whether values of this range can be rounded."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def merge(self, other: Range) -> Range:
        """The range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts (int64) of values in equal bins of ``[low, high]``."""

    low: float
    high: float
    counts: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, low: float, high: float, bins: int) -> Histogram:
        """Count ``values``; what lies outside goes to the first or last bin."""
        per_unit = bins / (high - low) if high - low > SMALLEST_WIDTH else 0.0
        places = ((values.ravel() - np.float32(low)) * np.float32(per_unit)).astype(np.int32)
        counts = np.bincount(np.clip(places, 0, bins - 1, out=places), minlength=bins)
        return cls(low, high, counts.astype(np.int64))

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both sets of values; the edges must be the same."""
        if (self.low, self.high, self.counts.size) != (other.low, other.high, other.counts.size):
            raise InvariantError("Histograms with different edges cannot be merged: this is a bug, please report it.")
        return Histogram(self.low, self.high, self.counts + other.counts)

    def percentile(self, percent: float) -> float:
        """Value below which ``percent`` percent of the counts lie, linear inside a bin."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        edges = np.linspace(self.low, self.high, self.counts.size + 1)
        return float(np.interp(percent / 100 * below[-1], below, edges))


@dataclass(frozen=True, slots=True)
class Observations:
    """What the samples did to a model.

    Attributes:
        bounds: least and greatest value by tensor.
        histograms: counts by tensor (empty when observed with ``bins=0``).
        means: mean of every channel of the input of a weighted node, by node name, float64 ``[I]``.
        curves: the functions behind a tensor, where nothing else reads it.
    """

    bounds: Mapping[str, Range]
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    means: Mapping[str, np.ndarray] = field(default_factory=dict)
    curves: Mapping[str, tuple[Curve, ...]] = field(default_factory=dict)


def activations_to_observe(
    model: Model, float_nodes: Iterable[str] = (), target: Target | None = None
) -> tuple[str, ...]:
    """Every tensor that can carry a Q on a target when the nodes ``float_nodes`` stay float, in graph order."""
    model, kept = typed(model), set(float_nodes)
    found: dict[str, None] = {}
    for unit in units(model, target):
        if unit.role is Role.FLOAT or unit.name in kept:
            continue
        found.update(dict.fromkeys(operands(model, unit)))
        found.update(dict.fromkeys(unit.outputs))
    return tuple(found)


def observe(model: Model, feed: Samples, tensors: Sequence[str], *, bins: int = 2048) -> Observations:
    """Run the samples through the model twice and note what the tensors do.

    Args:
        model: the float model.
        feed: the samples.
        tensors: activation tensors (graph inputs are allowed).
        bins: bins of each histogram; 0 leaves the second pass out.

    Raises:
        DataError: no samples, a value that is not a number, or an infinite one at a weighted node.
    """
    model = typed(model)
    where = {unit.name: (unit.node.inputs[0], 1 if unit.node.op == "Conv" else -1) for unit in _weighted(model)}
    bounds: dict[str, Range] = {}
    totals: dict[str, tuple[np.ndarray, int]] = {}
    for name, values in _stream(model, feed, tensors):
        bounds[name] = _bounds(name, values).merge(bounds.get(name, Range(np.inf, -np.inf)))
        for node, (source, axis) in where.items():
            if source == name:
                totals[node] = _add(totals.get(node), values, axis)
    if len(bounds) < len(set(tensors)):
        raise DataError("There are no samples to observe: hand over at least one.")
    _require_finite(model, bounds)
    histograms: dict[str, Histogram] = {}
    finite = [name for name in tensors if bounds[name].finite]
    for name, values in _stream(model, feed, finite) if bins else ():
        found = Histogram.of(values, bounds[name].low, bounds[name].high, bins)
        histograms[name] = found.merge(histograms[name]) if name in histograms else found
    means = {node: total / count for node, (total, count) in totals.items()}
    behind = {name: functions for name, functions in curves(model).items() if name in bounds}
    return Observations(bounds, histograms, means, behind)


def ranges(observations: Observations, settings: Quantization) -> dict[str, Range]:
    """The range of every observed tensor, as the settings want it.

    Raises:
        InvariantError: anything but the bounds is asked of observations without histograms.
    """
    if settings.ranges == "minmax":
        return dict(observations.bounds)
    if any(bound.finite and name not in observations.histograms for name, bound in observations.bounds.items()):
        raise InvariantError("Ranges other than minmax need histograms: observe with bins > 0.")
    made = dict(observations.bounds)
    for name, found in observations.histograms.items():
        if settings.ranges == "percentile":
            made[name] = _tails(found, settings.percentile)
        elif found.high - found.low > SMALLEST_WIDTH:
            method = CLIPPINGS[settings.ranges]
            made[name] = Range(*method(found.low, found.high, found.counts, observations.curves.get(name, ())))
    return made


CLIPPINGS: Mapping[str, Callable[[float, float, np.ndarray, Sequence[Curve]], tuple[float, float]]] = {
    "mse": least_error,
    "entropy": least_divergence,
}
"""Methods that weigh rounding against clipping."""


def _tails(found: Histogram, percent: float) -> Range:
    low = found.low if found.low == 0 else found.percentile(100 - percent)
    return Range(low, found.high if found.high == 0 else found.percentile(percent))


def _weighted(model: Model) -> list[Any]:
    return [unit for unit in units(model) if unit.role is Role.WEIGHTED]


def _bounds(name: str, values: np.ndarray) -> Range:
    low, high = float(values.min()), float(values.max())
    if np.isnan(low):
        raise DataError(f"The samples make {name!r} not a number: check them and the model.")
    return Range(low, high)


def _require_finite(model: Model, bounds: Mapping[str, Range]) -> None:
    """Masks may be infinite, what meets weights may not."""
    for unit in _weighted(model):
        for name in (*operands(model, unit), *unit.outputs):
            if name in bounds and not bounds[name].finite:
                raise DataError(f"The samples make {name!r} infinite: check them and the model.")


def _add(total: tuple[np.ndarray, int] | None, values: np.ndarray, axis: int) -> tuple[np.ndarray, int]:
    rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
    added = rows.sum(axis=0, dtype=np.float64)
    return (added, len(rows)) if total is None else (total[0] + added, total[1] + len(rows))


def _stream(model: Model, feed: Samples, tensors: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Every tensor of every chunk, non-empty, a slice of the tensors at a time."""
    sizes = [max(elements(model, name), 1) for name in tensors] or [1]
    size = max(1, min(int(np.clip(BUDGET // sum(sizes), *CHUNKS)), BUDGET // max(sizes)))
    for part in _slices(model, list(dict.fromkeys(tensors)), BUDGET // size):
        inner = [name for name in part if name not in model.inputs]
        opened = runtime.session(model.exposing(inner)) if inner else None
        for chunk in feed.chunks(size):
            found = runtime.run(opened, chunk.inputs, inner) if opened else {}
            for name in part:
                values = chunk.inputs[name] if name in model.inputs else found[name]
                if values.size:
                    yield name, values


def _slices(model: Model, tensors: Sequence[str], room: int) -> list[list[str]]:
    """Cut a list of tensors where their elements add up to more than ``room``."""
    parts: list[list[str]] = []
    used = 0
    for name in tensors:
        amount = elements(model, name)
        if not parts or used + amount > room:
            parts.append([])
            used = 0
        parts[-1].append(name)
        used += amount
    return parts
