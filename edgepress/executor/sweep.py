"""Run the original and a changed network side by side, layer by layer, on a bounded set of samples.

At every Conv, Gemm or MatMul of the changed network a visitor sees what it really gets as input (all layers before it
are changed already) and what the original made of the same samples; it may return new parameters, and the sweep goes
on with them. Where the output meets another branch in an Add that both networks have computed already, the target is
corrected by what the other branch got wrong (``y + other_original - other_changed``), so that errors of a residual
stream do not add up.

Redistribution (``surgery.fold``) and mean/std matching (``quantize.repair``) are two visitors.
Guarantee: bit-identical for any number of workers (chunks are independent, merged in order).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgepress.executor.run import Executor, single_threaded
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.parallel import ordered_map

Values = dict[str, torch.Tensor]
Kept = Mapping[str, tuple[np.ndarray | None, ...]]

BUDGET = 256 * 2**20
"""Bytes of live activations, both networks together, that a sweep may hold."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visitor sees of one weighted node.

    Attributes:
        node: the node of the changed network.
        fold: ``fold(f)`` calls ``f(chunk number, inputs, targets)`` for every chunk and yields the results in order;
            inputs and targets are numpy arrays, targets restricted to the output channels the changed network kept.
        parameters: current parameters of the changed network.
    """

    node: Node
    fold: Callable[[Callable[[int, np.ndarray, np.ndarray], object]], Sequence[object]]
    parameters: Mapping[str, np.ndarray]


Visitor = Callable[[Visit], Mapping[str, np.ndarray]]


def affordable(model: Model, samples: int) -> int:
    """How many of the samples a sweep can hold within ``BUDGET``; at least one run (the batch, where it is fixed)."""
    batches = [known.shape[0] for known in model.inputs.values() if known.shape]
    run = max([size for size in batches if isinstance(size, int)], default=1)
    return min(samples, max(run, BUDGET // max(1, 2 * _live_bytes(Executor(model)))))


def sweep(
    original: Model,
    changed: Model,
    kept: Kept,
    chunks: Sequence[Mapping[str, np.ndarray]],
    visit: Visitor,
    *,
    workers: int,
    everywhere: bool = False,
) -> Model:
    """Visit the weighted nodes of ``changed`` in order and return it with the parameters the visitor gave.

    Args:
        original: the reference network.
        changed: the same nodes by name, with other weights, possibly narrower.
        kept: per initializer of ``original`` and axis, the positions that ``changed`` kept.
        chunks: inputs, ready to run.
        visit: called for nodes whose inputs differ from the original's (for all nodes if ``everywhere``).
        workers: threads.
        everywhere: visit every weighted node.
    """
    state = _Sweep(Executor(original), Executor(changed), kept, [_Pair(part) for part in chunks], workers)
    with single_threaded():
        for position, node in enumerate(state.original.nodes):
            state.step(position, node, visit, everywhere)
    return changed.with_constants(state.given)


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

    def __init__(self, original: Executor, changed: Executor, kept: Kept, pairs: list[_Pair], workers: int) -> None:
        self.original, self.changed, self.kept, self.pairs, self.workers = original, changed, kept, pairs, workers
        self.given: dict[str, np.ndarray] = {}
        self.differs: set[str] = {name for name in original.parameters if self._parameter_differs(name)}
        self.others = _other_branches(original.model)

    def _parameter_differs(self, name: str) -> bool:
        twin = self.changed.parameters.get(name)
        mine = self.original.parameters[name]
        return twin is None or twin.shape != mine.shape or not torch.equal(twin, mine)

    def step(self, position: int, node: Node, visit: Visitor, everywhere: bool) -> None:
        """Compute one node in both networks, visiting it in between."""
        twin = self.changed.model.node(node.name)
        weighted = node.op in WEIGHTED and node.inputs[1] in self.original.parameters
        self._each(lambda pair: _compute(self.original, node, pair.original))
        stale = node.inputs[0] in self.differs
        if weighted and (stale or everywhere):
            self._accept(twin, visit(Visit(twin, self._folder(node, twin), self._numpy_parameters(twin))))
        self._each(lambda pair: _compute(self.changed, twin, pair.changed))
        if any(name in self.differs for name in node.inputs):
            self.differs.update(node.outputs)
        self._each(lambda pair: _release(pair, self.original.releases[position]))

    def _each(self, function: Callable[[_Pair], None]) -> None:
        for _ in ordered_map(function, self.pairs, workers=self.workers):
            pass

    def _accept(self, node: Node, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.given[name] = array
            self.changed.parameters[name] = torch.from_numpy(np.array(array))
            self.differs.add(name)

    def _numpy_parameters(self, node: Node) -> dict[str, np.ndarray]:
        known = self.changed.parameters
        return {name: known[name].numpy() for name in node.inputs[1:] if name in known}

    def _folder(
        self, node: Node, twin: Node
    ) -> Callable[[Callable[[int, np.ndarray, np.ndarray], object]], Sequence[object]]:
        axis = 1 if node.op == "Conv" else -1
        rows = _kept_rows(self.kept, node)

        def fold(function: Callable[[int, np.ndarray, np.ndarray], object]) -> Sequence[object]:
            def one(numbered: tuple[int, _Pair]) -> object:
                number, pair = numbered
                target = _rows(pair.original[node.output], rows, axis) + self._correction(node, pair, rows, axis)
                return function(number, pair.changed[twin.inputs[0]].numpy(), target.numpy())

            return list(ordered_map(one, enumerate(self.pairs), workers=self.workers))

        return fold

    def _correction(self, node: Node, pair: _Pair, rows: torch.Tensor | None, axis: int) -> torch.Tensor | float:
        """What the other branch of the Add behind this node got wrong so far; 0 when it is not known yet."""
        other = self.others.get(node.output)
        if other is None or other not in pair.original or other not in pair.changed:
            return 0.0
        if pair.original[other].shape != pair.original[node.output].shape:  # broadcast: one value stands for many
            return 0.0
        mine, now = _rows(pair.original[other], rows, axis), pair.changed[other]
        return mine - now if mine.shape == now.shape else 0.0


def _compute(executor: Executor, node: Node, values: Values) -> None:
    with torch.inference_mode():
        values.update(zip(node.outputs, executor.apply(node, values), strict=False))


def _release(pair: _Pair, names: Sequence[str]) -> None:
    for name in names:
        pair.original.pop(name, None)
        pair.changed.pop(name, None)


def _rows(tensor: torch.Tensor, rows: torch.Tensor | None, axis: int) -> torch.Tensor:
    return tensor if rows is None else tensor.index_select(axis, rows)


def _kept_rows(kept: Kept, node: Node) -> torch.Tensor | None:
    """Output channels of a weighted node that the changed network kept; None means all."""
    axes = kept.get(node.inputs[1])
    if axes is None:
        return None
    rows = axes[output_axis(node.op, node.attributes)]
    return None if rows is None else torch.from_numpy(np.asarray(rows, np.int64))


def _other_branches(model: Model) -> dict[str, str]:
    """For every tensor that goes into one Add and nowhere else: the tensor it is added to."""
    adds = [node for node in model.nodes if node.op == "Add" and not model.constants.keys() & set(node.inputs)]
    pairs = [pair for node in adds for pair in (node.inputs, node.inputs[::-1])]
    return {mine: other for mine, other in pairs if len(model.consumers(mine)) == 1 and mine not in model.outputs}


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
