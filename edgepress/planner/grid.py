"""The layers of a model that may shrink, each alone, and the widths that they are timed at.

The axes of a layer's constants that share a group shrink together, as one axis of its table; those that share none are
two: the channels read and the channels made of an inner convolution, say. Points lie at evenly spread shares of the
groups, in steps of the target's multiple.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.groups import Group, Grouping
from edgepress.model import Model
from edgepress.planner.cost import Axis, axes_of, share_left
from edgepress.planner.macs import work_of
from edgepress.planner.single import Single
from edgepress.planner.widths import KEEP

Removed = dict[str, int]


def kept_of(group: Group, share: float, multiple: int) -> int:
    """Channels of a group that are the next multiple from a share on."""
    return min(group.size, multiple * math.ceil(share * group.size / multiple))


@dataclass(frozen=True, slots=True)
class Span:
    """Groups that shrink together in a layer, and the axis of a constant that stands for them."""

    names: frozenset[str]
    axis: Axis

    def points(self, groups: Sequence[Group], multiple: int, count: int) -> tuple[Removed, ...]:
        """Channels removed at evenly spread shares, most first; lengths of the axis differ."""
        found: dict[int, Removed] = {}
        for share in np.linspace(1, KEEP, count):
            removed = {
                group.name: group.size - kept_of(group, share, multiple) for group in groups if group.name in self.names
            }
            found.setdefault(self.axis.left(removed), removed)
        return tuple(found[length] for length in sorted(found))


@dataclass(frozen=True, slots=True, eq=False)
class GridLayer:
    """A layer to time.

    Attributes:
        single: the node alone.
        spans: the axes of its table.
        points: for each of them the points along it.
        steps: for each of them more points, at which all other axes are whole.
    """

    single: Single
    spans: tuple[Span, ...]
    points: tuple[tuple[Removed, ...], ...]
    steps: tuple[tuple[Removed, ...], ...] = ()

    @property
    def grid(self) -> tuple[np.ndarray, ...]:
        """Lengths of the points, rising."""
        return self._lengths(self.points)

    @property
    def step_lengths(self) -> tuple[np.ndarray, ...]:
        """Lengths of the steps, rising."""
        return self._lengths(self.steps)

    def _lengths(self, points: Sequence[Sequence[Removed]]) -> tuple[np.ndarray, ...]:
        pairs = zip(self.spans, points, strict=True)
        return tuple(np.array([span.axis.left(removed) for removed in along]) for span, along in pairs)

    def states(self) -> list[Removed]:
        """Channels removed at every point of the table, the last axis running fastest."""
        return [dict(itertools.chain(*(part.items() for part in parts))) for parts in itertools.product(*self.points)]

    def step_states(self) -> list[Removed]:
        """Channels removed at every step, axis by axis."""
        return [removed for along in self.steps for removed in along]

    def shares(self) -> list[float]:
        """What is left of the layer at every point and step that is taken, each once."""
        axes = [span.axis for span in self.spans]
        every = [*self.states(), *self.step_states()]
        return [share_left(axes, state) for state in {_without_zeros(state): state for state in every}.values()]

    @property
    def key(self) -> str:
        """The same for layers that take the same time."""
        node, model, labels = self.single.node, self.single.model, self.single.grouping.channels
        names = [name for name in node.inputs if name]
        shapes = [(model.constants if name in model.constants else labels)[name].shape for name in names]
        attributes = sorted((name, repr(value)) for name, value in node.attributes.items())
        kinds = [model.types[name].dtype for name in names]
        lengths = [row.tolist() for row in (*self.grid, *(self.step_lengths if self.steps else ()))]
        return repr((node.op, node.domain, attributes, shapes, kinds, lengths))


def _without_zeros(removed: Removed) -> tuple[tuple[str, int], ...]:
    """The same for states that leave the same."""
    return tuple(sorted((name, count) for name, count in removed.items() if count))


@dataclass(frozen=True, slots=True, eq=False)
class Shrinking:
    """A layer that may shrink: the node alone, and the axes that its table has."""

    single: Single
    spans: tuple[Span, ...]

    def at_points(self, groups: Sequence[Group], multiple: int, count: int, steps: int = 0) -> GridLayer:
        """The layer with so many points along every axis, or fewer where a group is narrow; and so many steps."""
        points = tuple(span.points(groups, multiple, count) for span in self.spans)
        if not steps:
            return GridLayer(self.single, self.spans, points)
        finer = (span.points(groups, multiple, steps) for span in self.spans)
        return GridLayer(self.single, self.spans, points, tuple(map(self._joined, self.spans, points, finer)))

    def _joined(self, span: Span, points: Sequence[Removed], more: Sequence[Removed]) -> tuple[Removed, ...]:
        """Points of two kinds in one row."""
        found = {span.axis.left(removed): removed for removed in (*more, *points)}
        return tuple(found[length] for length in sorted(found))


def shrinking(model: Model, grouping: Grouping, groups: Sequence[Group]) -> list[Shrinking]:
    """The weighted nodes that can run alone; those that no group has a part in have tables without axes."""
    names = dict.fromkeys(work.node for work in work_of(model, grouping.sizes) if work.weight is not None)
    found = []
    for node in map(model.node, names):
        spans = _spans(axis for name in node.inputs if name in model.constants for axis in axes_of(name, model, groups))
        single = Single.of(model, grouping, node)
        if single is not None:
            found.append(Shrinking(single, spans))
    return found


def _spans(axes: Iterable[Axis]) -> tuple[Span, ...]:
    """Sets of groups that share an axis; the axis with the most groups stands for them."""
    found: list[Span] = []
    for axis in sorted(axes, key=lambda axis: -len(axis.groups)):
        names = frozenset(name for name, _ in axis.groups)
        met = [span for span in found if span.names & names]
        found = [span for span in found if span not in met]
        found.append(Span(names.union(*(span.names for span in met)), met[0].axis if met else axis))
    return tuple(found)
