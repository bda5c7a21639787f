"""Where channels go: the way from a tensor to what stops its group, and the nodes that join its streams.

A tensor carries a group where its channel numbers (:class:`~edgepress.groups.Grouping`) lie in the group's range. The
way is the shortest one over nodes and tensors that carry the group, with the flow of data or against it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepress.groups import Group, Grouping
from edgepress.model import Model, Node
from edgepress.ops.labels import core


@dataclass(frozen=True)
class Traced:
    """A model as it was analysed.

    Attributes:
        path: of the file.
        model: after normalization.
        grouping: its groups.
        notes: what was assumed.
    """

    path: str
    model: Model
    grouping: Grouping
    notes: tuple[str, ...]

    @cached_property
    def carried(self) -> dict[str, frozenset[str]]:
        """Names of the groups that every tensor carries; weights included."""
        names = np.array(["", *(name for group in self.grouping.groups for name in [group.name] * group.size)])
        found = {
            tensor: frozenset(names[np.unique(core(numbers))].tolist()) - {""}
            for tensor, numbers in self.grouping.channels.items()
        }
        for group in self.grouping.groups:
            for site in group.sites:
                found[site.tensor] = found.get(site.tensor, frozenset()) | {group.name}
        return found

    def at(self, node: Node) -> tuple[str, ...]:
        """Names of the groups that reach a node, in the order of the grouping."""
        reached = frozenset[str]().union(
            *(self.carried.get(name, frozenset()) for name in (*node.inputs, *node.outputs))
        )
        return tuple(group.name for group in self.grouping.groups if group.name in reached)


def operator_name(node: Node) -> str:
    """The operator of a node with its domain."""
    return node.op if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op}"


def called(node: Node) -> str:
    """A node with its operator."""
    return f"{node.name} ({operator_name(node)})"


def way_to_stopper(traced: Traced, tensor: str, group: Group) -> tuple[str, ...]:
    """The nodes from a tensor to the one where its group is stopped, that one last."""
    if not group.stopper:
        return ()
    # fixed positions that a node made (padding, a joined constant) stop the channels that meet them later
    made = (name for node in traced.model.nodes if node.name == group.stopper for name in node.outputs)
    near = {group.stopper, *made}
    return _shortest(traced, tensor, group, near) or _shortest(traced, tensor, group, _behind_fixed(traced, near))


def _behind_fixed(traced: Traced, ends: set[str]) -> set[str]:
    """``ends`` with the tensors without channels that follow from them: Relu of a graph input stops as that does."""
    found = set(ends)
    for node in traced.model.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(name for name in node.outputs if not traced.carried.get(name))
    return found


def _shortest(traced: Traced, tensor: str, group: Group, ends: set[str]) -> tuple[str, ...]:
    """The shortest way over what carries a group to a node that touches one of the ends; empty if there is none."""
    reached: dict[str, tuple[str, ...]] = {tensor: ()}
    waiting = deque([tensor])
    while waiting:
        name = waiting.popleft()
        for node in _around(traced.model, name):
            way = (*reached[name], node.name)
            if not ends.isdisjoint((node.name, *node.inputs, *node.outputs)):
                return way
            for other in (*node.inputs, *node.outputs):
                if other not in reached and group.name in traced.carried.get(other, ()):
                    reached[other] = way
                    waiting.append(other)
    return ()


def _around(model: Model, tensor: str) -> Iterable[Node]:
    """The nodes that read or make a tensor, readers first."""
    producer = model.producer(tensor)
    return (*model.consumers(tensor), *(() if producer is None else (producer,)))


def joins(traced: Traced, group: Group) -> Iterator[str]:
    """Nodes where streams of a group that different nodes made come together."""
    made: dict[str, frozenset[str]] = {}
    for node in traced.model.nodes:
        carrying = [name for name in dict.fromkeys(node.inputs) if name in made]
        for name in node.outputs:
            if group.name not in traced.carried.get(name, ()):
                continue
            own = {node.name} if node.name in group.producers or not carrying else set()
            made[name] = frozenset[str](own).union(*(made[other] for other in carrying if not own))
        if len({made[name] for name in carrying}) > 1 and node.name not in group.consumers:
            yield called(node)
