"""Measured latency as a cost: the time of every layer at the widths it has left, and the rest.

    time(k) = rest + sum over layers of scale * t_l(lengths of its axes that are left)

``t_l`` is a table over a grid of lengths, linear along every axis in between (multilinear) and constant beyond its
ends; axes of a layer that shrink with different groups are different axes of its table. The rest is what the whole
model took besides: everything that is no weighted layer, and starting a run. Alone, a layer also brings its operands
into the order its kernel wants, which a whole model does once: where all layers together take longer than the model,
they are scaled down to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.planner.cost import Axis


@dataclass(frozen=True, slots=True, eq=False)
class LayerTimes:
    """Times of one layer.

    Attributes:
        node: its name.
        axes: the axis that stands for each axis of the table.
        grid: per axis of the table the lengths that were timed, rising.
        times: in ms, one axis for each of ``axes``.
    """

    node: str
    axes: tuple[Axis, ...]
    grid: tuple[np.ndarray, ...]
    times: np.ndarray

    def __call__(self, removed: Mapping[str, int]) -> float:
        """The time at the widths left, in ms."""
        times = self.times
        for axis, lengths in zip(self.axes, self.grid, strict=True):
            times = _between(times, lengths, axis.left(removed))
        return float(times)


def _between(times: np.ndarray, lengths: np.ndarray, length: float) -> np.ndarray:
    """The table at one length of its first axis."""
    place = float(np.interp(length, lengths, np.arange(len(lengths))))
    low = int(place)
    high = min(low + 1, len(lengths) - 1)
    return np.asarray(times[low] + (place - low) * (times[high] - times[low]))


def never_less(times: np.ndarray) -> np.ndarray:
    """Times in which more channels never take less: of all wider points the least.

    Disturbances only ever add to a time, so of two points in the wrong order the narrower one was disturbed.
    """
    for axis in range(times.ndim):
        times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
    return times


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """A cost: time of one run in ms (:meth:`__call__`)."""

    layers: tuple[LayerTimes, ...]
    scale: float
    rest: float

    @classmethod
    def of(cls, layers: Sequence[LayerTimes], whole: float, start: float) -> LatencyTable:
        """A table from times in ms.

        Args:
            layers: all weighted layers, what starting a run takes left out.
            whole: of the whole model.
            start: of a run that does nothing, the least that the rest can be.
        """
        together = sum(layer({}) for layer in layers)
        rest = min(whole, max(whole - together, start))
        return cls(tuple(layers), (whole - rest) / together if together else 1.0, rest)

    def __call__(self, removed: Mapping[str, int]) -> float:
        """The predicted time in ms."""
        return self.rest + self.scale * sum(layer(removed) for layer in self.layers)

    def ratio(self, removed: Mapping[str, int]) -> float:
        """The predicted time over that of the whole model."""
        return self(removed) / self({})
