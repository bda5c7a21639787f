"""Run the original and a changed network side by side, node by node, on a bounded set of samples.

At every node a visitor sees what the changed network really gets as input (all nodes before it are changed already) and
what the original made of the same samples; it may return new values of initializers, and the sweep goes on with them.
Where the output meets another branch in an Add that both networks have computed already, the visitor is told so: a
target corrected by what the other branch got wrong (``y + other_original - other_changed``) keeps errors of a residual
stream from adding up.

Redistribution (``surgery.fold``) and mean/std matching (``quantize.weights.repair``) are two visitors.
Guarantee: bit-identical for any number of workers (chunks are independent, merged in order).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from edgepress.executor.run import Executor, single_threaded
from edgepress.model import Model, Node
from edgepress.parallel import ordered_map

T = TypeVar("T")
Values = dict[str, Any]

BUDGET = 256 * 2**20
"""Bytes of live activations, both networks together, that a sweep may hold."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One chunk at the moment a node is visited.

    Attributes:
        number: of the chunk.
        original: live activations of the original network, the node's outputs among them.
        changed: live activations of the changed network, the node's inputs among them but not yet its outputs.
        other: the activation that the node's output is added to, if both networks have computed it already.
    """

    number: int
    original: Mapping[str, np.ndarray]
    changed: Mapping[str, np.ndarray]
    other: str | None


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visitor sees of one node.

    Attributes:
        node: the node of the changed network.
        stale: whether an activation it reads differs from the original's.
        parameters: current initializers of the changed network.
        stream: ``stream(f)`` calls ``f(scene)`` for every chunk and yields the results in order, a few at a time: for
            results that are too large to keep (a Gram of 6000 columns takes 300 MB).
    """

    node: Node
    stale: bool
    parameters: Mapping[str, np.ndarray]
    stream: Callable[[Callable[[Scene], Any]], Iterator[Any]]

    def each(self, function: Callable[[Scene], T]) -> list[T]:
        """All results at once, in order."""
        return list(self.stream(function))


Visitor = Callable[[Visit], Mapping[str, np.ndarray]]


def affordable(model: Model, samples: int) -> int:
    """How many of the samples a sweep can hold within ``BUDGET``; at least one run (the batch, where it is fixed)."""
    batches = [known.shape[0] for known in model.inputs.values() if known.shape]
    run = max([size for size in batches if isinstance(size, int)], default=1)
    return min(samples, max(run, BUDGET // max(1, 2 * _live_bytes(Executor(model)))))


def sweep(
    original: Model,
    changed: Model,
    chunks: Sequence[Mapping[str, np.ndarray]],
    visit: Visitor,
    *,
    workers: int,
) -> Model:
    """Visit the nodes of ``changed`` in order and return it with the initializers the visitor gave.

    Args:
        original: the reference network.
        changed: the same nodes by name, with other weights, possibly narrower, and perhaps more that mend shapes.
        chunks: inputs, ready to run.
        visit: called for every node.
        workers: threads.
    """
    state = _Sweep(Executor(original), Executor(changed), [_Pair(part) for part in chunks], workers)
    with single_threaded():
        for position, node in enumerate(state.original.nodes):
            state.step(position, node, visit)
    return changed.with_constants(state.given)


class _Arrays(Mapping[str, np.ndarray]):
    """Tensors by name, seen as numpy arrays."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = tensors

    def __getitem__(self, name: str) -> np.ndarray:
        return np.asarray(self.tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class _Pair:
    """Live activations of one chunk in both networks."""

    def __init__(self, inputs: Mapping[str, np.ndarray]) -> None:
        # torch shares memory and wants it writable; 0-d arrays stay 0-d
        whole = {name: np.require(array, requirements=["C", "W"]) for name, array in inputs.items()}
        tensors = {name: torch.from_numpy(array) for name, array in whole.items()}
        self.original: Values = dict(tensors)
        self.changed: Values = dict(tensors)


class _Sweep:
    """State of one sweep (private)."""

    def __init__(self, original: Executor, changed: Executor, pairs: list[_Pair], workers: int) -> None:
        self.original, self.changed, self.pairs, self.workers = original, changed, pairs, workers
        self.given: dict[str, np.ndarray] = {}
        self.differs: set[str] = {name for name in original.parameters if self._parameter_differs(name)}
        self.others = _other_branches(original.model)
        self.added = _added(original.model, changed.model)

    def _parameter_differs(self, name: str) -> bool:
        twin = self.changed.parameters.get(name)
        mine = self.original.parameters[name]
        return twin is None or twin.shape != mine.shape or not torch.equal(twin, mine)

    def step(self, position: int, node: Node, visit: Visitor) -> None:
        """Compute one node in both networks, visiting it in between."""
        twin = self.changed.model.node(node.name)
        for more in self.added.get(node.name, ()):
            self._each(lambda pair, more=more: _compute(self.changed, more, pair.changed))  # type: ignore[misc]
            self.differs.update(more.outputs)
        self._each(lambda pair: _compute(self.original, node, pair.original))
        stale = any(name in self.differs for name in node.inputs if name not in self.original.parameters)
        self._accept(visit(Visit(twin, stale, _Arrays(self.changed.parameters), self._looker(node))))
        self._each(lambda pair: _compute(self.changed, twin, pair.changed))
        if any(name in self.differs for name in node.inputs):
            self.differs.update(node.outputs)
        self._each(lambda pair: _release(pair, self.original.releases[position]))

    def _each(self, function: Callable[[_Pair], None]) -> None:
        for _ in ordered_map(function, self.pairs, workers=self.workers):
            pass

    def _accept(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.given[name] = array
            self.changed.parameters[name] = torch.from_numpy(np.array(array))
            self.differs.add(name)

    def _looker(self, node: Node) -> Callable[[Callable[[Scene], T]], Iterator[T]]:
        def look(function: Callable[[Scene], T]) -> Iterator[T]:
            def one(numbered: tuple[int, _Pair]) -> T:
                number, pair = numbered
                other = self._other(node, pair)
                return function(Scene(number, _Arrays(pair.original), _Arrays(pair.changed), other))

            return ordered_map(one, enumerate(self.pairs), workers=self.workers)

        return look

    def _other(self, node: Node, pair: _Pair) -> str | None:
        """The other branch of the Add behind this node; None while it is not known, or broadcast."""
        other = self.others.get(node.output)
        if other is None or other not in pair.original or other not in pair.changed:
            return None
        # a broadcast one: one value stands for many
        return other if pair.original[other].shape == pair.original[node.output].shape else None


def _added(original: Model, changed: Model) -> dict[str, list[Node]]:
    """Nodes that only the changed network has (mended shapes), by the name of the common node they stand before."""
    common = {node.name for node in original.nodes}
    found: dict[str, list[Node]] = {}
    waiting: list[Node] = []
    for node in changed.nodes:
        if node.name not in common:
            waiting.append(node)
        elif waiting:
            found[node.name], waiting = waiting, []
    return found


def _compute(executor: Executor, node: Node, values: Values) -> None:
    with torch.inference_mode():
        values.update(zip(node.outputs, executor.apply(node, values), strict=False))


def _release(pair: _Pair, names: Sequence[str]) -> None:
    for name in names:
        pair.original.pop(name, None)
        pair.changed.pop(name, None)


def _other_branches(model: Model) -> dict[str, str]:
    """For every tensor that goes into one Add and nowhere else: the activation it is added to.

    An Add of a constant on the way (a bias) is passed over.
    """
    found: dict[str, str] = {}
    for node in reversed(model.nodes):
        if node.op == "Add" and not node.domain and len(set(node.inputs)) == 2:
            constant = [name in model.constants for name in node.inputs]
            for mine, other, fixed in zip(node.inputs, node.inputs[::-1], constant[::-1], strict=True):
                behind = found.get(node.output) if fixed else other
                if behind is not None and len(model.consumers(mine)) == 1 and mine not in model.outputs:
                    found[mine] = behind
    return {mine: other for mine, other in found.items() if mine not in model.constants}


def _live_bytes(executor: Executor) -> int:
    """Peak bytes of live activations for one sample, from the stated shapes."""
    types, alive, peak, sizes = executor.model.types, 0, 0, {}
    for node, released in zip(executor.nodes, executor.releases, strict=True):
        for name in node.outputs:
            known = types.get(name)
            shape = known.shape if known is not None and known.shape is not None else ()
            sizes[name] = 4 * int(np.prod([size if isinstance(size, int) else 1 for size in shape], dtype=np.int64))
            alive += sizes[name]
        peak = max(peak, alive)
        alive -= sum(sizes.pop(name, 0) for name in released)
    return peak
