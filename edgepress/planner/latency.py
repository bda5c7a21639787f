"""Latency as a cost: of every layer at the widths it has left, and from their sum that of the whole; or instructions.

    time(k) = whole(sum over layers of t_l(lengths of its axes that are left))

``t_l`` is a table over a grid of lengths, linear along every axis in between (multilinear) and constant beyond its
ends; axes of a layer that shrink with different groups are different axes of its table. Kernels take channels in
blocks, so that cost rises in steps that a coarse grid does not see: along every axis alone, all others whole, the table
has a profile ``p`` over many more lengths, and in between follows that::

    t(a, b) = linear(a, b) * p_a(a) / linear p_a(a) * p_b(b) / linear p_b(b)

``whole`` brings the layers together. Alone, a layer also brings its operands into the order its kernel wants, which a
whole model does once; and a model does more than its weighted layers. Both differ from model to model, so it is taken
whole as well, at a few widths that are the same share of every group; in between ``whole`` is linear in the sum.
Guarantee: exact in these states, and on the grid of each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from edgepress.devices import Level
from edgepress.planner.cost import Axis


@dataclass(frozen=True, slots=True, eq=False)
class LayerTimes:
    """Times of one layer.

    Attributes:
        node: its name.
        axes: the axis that stands for each axis of the table.
        grid: per axis of the table the lengths that were timed, rising.
        times: in ms, or millions of instructions; one axis for each of ``axes``.
        profiles: per axis of the table more lengths, those of the grid among them, and the times at them, all other
            axes whole; empty: none were taken.
    """

    node: str
    axes: tuple[Axis, ...]
    grid: tuple[np.ndarray, ...]
    times: np.ndarray
    profiles: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    _known: dict[tuple[int, ...], float] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, removed: Mapping[str, int]) -> float:
        """The time at the widths left, in the unit of ``times``."""
        lengths = tuple(axis.left(removed) for axis in self.axes)
        if lengths not in self._known:  # an allocation asks for the same ones again and again
            self._known[lengths] = self._at(lengths)
        return self._known[lengths]

    def _at(self, lengths: tuple[int, ...]) -> float:
        times = self.times
        for grid, length in zip(self.grid, lengths, strict=True):
            times = _between(times, grid, length)
        parts = zip(lengths, self.grid, self.profiles, strict=False)
        return float(times) * prod(_step(length, grid, *profile) for length, grid, profile in parts)


def _step(length: float, grid: np.ndarray, lengths: np.ndarray, times: np.ndarray) -> float:
    """The profile at a length, over what is linear between its values on the grid."""
    on_grid = np.interp(grid, lengths, times)
    return float(np.interp(length, lengths, times) / np.interp(length, grid, on_grid))


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
    """A cost: time of one run in ms, or its millions of instructions (:meth:`__call__`).

    Attributes:
        layers: the weighted layers.
        sums: of their times, in the states that the whole model was taken in; rising.
        wholes: what the whole model took in these states.
        level: what the costs are worth.
        taken: how many costs the table rests on.
        known: how many of them were known from before.
        note: what went wrong with those that were known; empty if nothing.
    """

    layers: tuple[LayerTimes, ...]
    sums: tuple[float, ...]
    wholes: tuple[float, ...]
    level: Level = "measured"
    taken: int = 0
    known: int = 0
    note: str = ""

    @classmethod
    def of(
        cls, layers: Sequence[LayerTimes], states: Sequence[tuple[Mapping[str, int], float]], level: Level = "measured"
    ) -> LatencyTable:
        """A table from times in ms, or from counts.

        Args:
            layers: all weighted layers, what starting a run takes left out.
            states: channels removed and what the whole model then took; one of them without any.
            level: what these are worth.
        """
        found = {sum(layer(removed) for layer in layers): whole for removed, whole in states}
        sums = sorted(found)
        wholes = np.array([found[each] for each in sums])
        settled = wholes if level == "counted" else never_less(wholes)
        return cls(tuple(layers), tuple(sums), tuple(settled.tolist()), level)

    def __call__(self, removed: Mapping[str, int]) -> float:
        """The predicted time, or count."""
        return float(np.interp(sum(layer(removed) for layer in self.layers), self.sums, self.wholes))

    def ratio(self, removed: Mapping[str, int]) -> float:
        """The predicted time over that of the whole model."""
        return self(removed) / self({})
