"""What a width costs: multiply-adds, plain or along the target's staircase, and weights.

Work with a constant operand costs ``MACs * f(axis) * f(axis) ...`` over the axes of that constant, where ``f`` is the
share of the axis that is left; a product of two activations (attention) over the axes they are multiplied along. On the
way to latency the share follows the target's staircase (``Target.effective_width``), for weights it is linear. Where a
device's own costs are known (:class:`edgepress.planner.LatencyTable`), these stand in place of the staircase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from edgepress.groups import Group, Grouping
from edgepress.model import Model
from edgepress.planner.macs import Work, work_of
from edgepress.targets import Target

Cost = Callable[[Mapping[str, int]], float]
"""What a model costs after each group has lost so many channels."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its length and what each group's channel takes away from it."""

    length: int
    groups: tuple[tuple[str, int], ...]

    def left(self, removed: Mapping[str, int]) -> int:
        """Positions that stay."""
        return self.length - sum(each * removed.get(name, 0) for name, each in self.groups)


def share_left(axes: Sequence[Axis], removed: Mapping[str, int]) -> float:
    """The share of a tensor that stays."""
    return prod(axis.left(removed) / axis.length for axis in axes)


@dataclass(frozen=True, slots=True)
class _Layer:
    node: str
    macs: int
    weights: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a model as functions of how many channels each group loses.

    Attributes:
        layers: all work.
        target: whose staircase to follow.
        time: what a device was measured, or counted, to take; None: the staircase stands for it.
    """

    layers: tuple[_Layer, ...]
    target: Target
    time: Cost | None = None

    @classmethod
    def of(cls, model: Model, groups: Sequence[Group], target: Target, grouping: Grouping | None = None) -> Costs:
        """Tabulate a model.

        Args:
            model: the model.
            groups: the groups that may shrink.
            target: whose staircase to follow.
            grouping: where the groups come from, and the sizes of symbolic dimensions; without it products of two
                activations do not shrink, and what the model does not state counts as 1.
        """
        layers = []
        counted: set[str] = set()
        for work in work_of(model, None if grouping is None else grouping.sizes):
            if work.weight is None:
                axes = () if grouping is None else _spans(work, groups, grouping)
                layers.append(_Layer(work.node, work.macs, 0, axes))
            else:
                axes = axes_of(work.weight, model, groups)
                size = 0 if work.weight in counted else int(model.constants[work.weight].size)
                counted.add(work.weight)
                layers.append(_Layer(work.node, work.macs, size, axes))
        return cls(tuple(layers), target)

    def macs(self, removed: Mapping[str, int]) -> float:
        """Multiply-adds of one sample."""
        return sum(layer.macs * share_left(layer.axes, removed) for layer in self.layers)

    def weights(self, removed: Mapping[str, int]) -> float:
        """Weights that are multiplied, each counted once."""
        return sum(layer.weights * share_left(layer.axes, removed) for layer in self.layers)

    def staircase(self, removed: Mapping[str, int]) -> float:
        """Multiply-adds with widths read along the target's staircase."""
        return sum(macs for _, macs in self.steps(removed))

    def steps(self, removed: Mapping[str, int]) -> Iterator[tuple[_Layer, float]]:
        """The same for each layer."""
        width = self.target.effective_width
        for layer in self.layers:
            yield layer, layer.macs * prod(width(axis.left(removed)) / width(axis.length) for axis in layer.axes)

    def blend(self, removed: Mapping[str, int]) -> float:
        """Half time, or staircase, and half weights, each as a share of the whole model: 1 for the model as it is.

        Time goes with multiply-adds where weights are reused (Conv) and with bytes where they are not (Gemm at
        batch 1); a file goes with weights: the mean of both serves every kind of network.
        """
        time = self.staircase if self.time is None else self.time
        return 0.5 * _share(time(removed), time({})) + 0.5 * _share(self.weights(removed), self.weights({}))


def _share(part: float, whole: float) -> float:
    """1 where there is nothing to have a share of: no node whose work is counted."""
    return part / whole if whole else 1.0


def axes_of(constant: str, model: Model, groups: Sequence[Group]) -> tuple[Axis, ...]:
    """The axes of a constant that groups have a part in."""
    shape = model.constants[constant].shape
    axes = (axis_of(constant, axis, shape, groups) for axis in range(len(shape)))
    return tuple(axis for axis in axes if axis.groups)


def axis_of(constant: str, axis: int, shape: Sequence[int], groups: Sequence[Group]) -> Axis:
    """One axis of a constant, with the groups that have a part in it."""
    rank = len(shape)
    touching = [
        (group.name, site.index.shape[1])
        for group in groups
        for site in group.sites
        if site.tensor == constant and site.axis % rank == axis
    ]
    return Axis(shape[axis], tuple(dict.fromkeys(touching)))


def _spans(work: Work, groups: Sequence[Group], grouping: Grouping) -> tuple[Axis, ...]:
    """The axes of activations that hold channels, with as many positions as they have in the analysis."""
    found = []
    for tensor, axis in work.spans:
        labels = grouping.channels.get(tensor)
        if labels is not None and labels.ndim > axis and labels.strides[axis]:
            along = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)[:, 0]
            found.append(Axis(len(along), tuple(_owners(along, groups, grouping))))
    return tuple(axis for axis in found if axis.groups)


def _owners(along: np.ndarray, groups: Sequence[Group], grouping: Grouping) -> list[tuple[str, int]]:
    """Groups with channels among these labels, and positions per channel."""
    found = []
    for group in groups:
        first = grouping.first[group.name]
        count = int(((along >= first) & (along < first + group.size)).sum())
        if count:
            found.append((group.name, count // group.size))
    return found
