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
from edgepress.planner.cost import Axis, axes_of
from edgepress.planner.macs import work_of
from edgepress.planner.single import Single
from edgepress.planner.widths import KEEP

Removed = dict[str, int]


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
                group.name: group.size - min(group.size, multiple * math.ceil(share * group.size / multiple))
                for group in groups
                if group.name in self.names
            }
            found.setdefault(self.axis.left(removed), removed)
        return tuple(found[length] for length in sorted(found))


@dataclass(frozen=True, slots=True, eq=False)
class GridLayer:
    """A layer to time: the node alone, and for each axis of its table the points along it."""

    single: Single
    spans: tuple[Span, ...]
    points: tuple[tuple[Removed, ...], ...]

    @property
    def grid(self) -> tuple[np.ndarray, ...]:
        """Lengths of the points, rising."""
        pairs = zip(self.spans, self.points, strict=True)
        return tuple(np.array([span.axis.left(removed) for removed in along]) for span, along in pairs)

    def states(self) -> list[Removed]:
        """Channels removed at every point of the table, the last axis running fastest."""
        return [dict(itertools.chain(*(part.items() for part in parts))) for parts in itertools.product(*self.points)]

    @property
    def key(self) -> str:
        """The same for layers that take the same time."""
        node, model, labels = self.single.node, self.single.model, self.single.grouping.channels
        names = [name for name in node.inputs if name]
        shapes = [(model.constants if name in model.constants else labels)[name].shape for name in names]
        attributes = sorted((name, repr(value)) for name, value in node.attributes.items())
        kinds = [model.types[name].dtype for name in names]
        return repr((node.op, node.domain, attributes, shapes, kinds, [lengths.tolist() for lengths in self.grid]))


@dataclass(frozen=True, slots=True, eq=False)
class Shrinking:
    """A layer that may shrink: the node alone, and the axes that its table has."""

    single: Single
    spans: tuple[Span, ...]

    def at_points(self, groups: Sequence[Group], multiple: int, count: int) -> GridLayer:
        """The layer with so many points along every axis, or fewer where a group is narrow."""
        return GridLayer(self.single, self.spans, tuple(span.points(groups, multiple, count) for span in self.spans))


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
