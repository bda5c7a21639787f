"""Multiply-adds of one sample, operator by operator.

    constant operand   every number of it times the positions it is used at: pixels (of the output for Conv, of the
                       input for ConvTranspose), rows of a product, steps of a recurrence
    two activations    every number of the output times the length they are summed over (attention: twice, for the
                       scores and for the values)

The batch (the first axis) counts as 1. Other sizes the model does not state are those of the samples, as far as the
caller knows them, else 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from edgepress.errors import Refusal
from edgepress.groups.shapes import bind
from edgepress.model import Model, Node
from edgepress.ops.couple.products import einsum_letters

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """Multiply-adds that shrink together.

    Attributes:
        node: the node that does them.
        macs: how many.
        weight: the constant operand they are proportional to; None when both are computed.
        spans: activations and their axes that they are proportional to, where there is no constant operand.
    """

    node: str
    macs: int
    weight: str | None
    spans: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class _Sized:
    """A model with the shapes of its tensors, as far as they are known (private)."""

    model: Model
    shapes: Mapping[str, Shape]

    @property
    def constants(self) -> Mapping[str, np.ndarray]:
        return self.model.constants

    def shape(self, tensor: str) -> Shape:
        """The shape; 1 for a size that is not stated, empty when nothing is."""
        if tensor in self.shapes:
            return self.shapes[tensor]
        known = self.model.types.get(tensor)
        stated = known.shape if known is not None and known.shape is not None else ()
        return tuple(size if isinstance(size, int) else 1 for size in stated)


def _shapes(model: Model, sizes: Mapping[str, int]) -> Mapping[str, Shape]:
    """Shapes at these sizes, where the model leaves any open and they can be known."""
    shapes = [known.shape for known in model.types.values()]
    if all(shape is not None and all(isinstance(size, int) for size in shape[1:]) for shape in shapes):
        return {}
    bound = bind(model, sizes)
    return {} if isinstance(bound, Refusal) else bound.shapes


def work_of(model: Model, sizes: Mapping[str, int] | None = None) -> tuple[Work, ...]:
    """All multiply-adds of a model, in graph order.

    Args:
        model: the model.
        sizes: what its symbolic dimensions stand for (``Grouping.sizes``); without it each counts as 1.
    """
    sized = _Sized(model, {} if sizes is None else _shapes(model, sizes))
    return tuple(work for node in model.nodes for work in _COUNTERS.get(node.op, _nothing)(sized, node))


def count_macs(model: Model, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
    """Multiply-adds of one sample per node (see :func:`work_of`); nodes without any are left out."""
    found: dict[str, int] = {}
    for work in work_of(model, sizes):
        found[work.node] = found.get(work.node, 0) + work.macs
    return found


def _nothing(sized: _Sized, node: Node) -> Iterator[Work]:
    return iter(())


def _convolution(sized: _Sized, node: Node) -> Iterator[Work]:
    if node.inputs[1] in sized.constants:
        at = node.output if node.op == "Conv" else node.inputs[0]
        yield _constant(sized, node, node.inputs[1], prod(sized.shape(at)[2:]))


def _product(sized: _Sized, node: Node) -> Iterator[Work]:
    """Gemm, MatMul and FusedMatMul."""
    left, right = node.inputs[:2]
    made = sized.shape(node.output)
    if right in sized.constants:
        yield _constant(sized, node, right, prod(made[1:-1]))
    elif left in sized.constants:
        yield _constant(sized, node, left, prod(made[1:] if len(made) == 2 else (*made[1:-2], *made[-1:])))
    else:
        summed = len(sized.shape(left)) - (2 if node.attributes.get("transA", 0) else 1)
        length = sized.shape(left)[summed : summed + 1] if summed >= 0 else ()
        spans = ((left, summed), *((node.output, axis) for axis in range(len(made))))
        yield Work(node.name, prod(made[1:]) * prod(length), None, spans)


def _einsum(sized: _Sized, node: Node) -> Iterator[Work]:
    """Every index once, but for the batch: the first one of the output."""
    found = einsum_letters(str(node.attributes["equation"]), [len(sized.shape(name)) for name in node.inputs])
    if isinstance(found, str):  # it takes a diagonal
        return
    terms, makes = found
    places: dict[str, tuple[str, int]] = {}
    for name, term in zip((node.output, *node.inputs), (makes, *terms), strict=True):
        places |= {letter: (name, axis) for axis, letter in enumerate(term) if letter not in places}
    sizes = {letter: (*sized.shape(name), *(1,) * 9)[axis] for letter, (name, axis) in places.items()}
    constants = [(name, term) for name, term in zip(node.inputs, terms, strict=True) if name in sized.constants]
    if len(constants) == 1:
        name, own = constants[0]
        yield _constant(sized, node, name, prod(sizes[x] for x in sizes if x not in own and x not in makes[:1]))
    else:
        yield Work(node.name, prod(sizes[x] for x in sizes if x not in makes[:1]), None, tuple(places.values()))


def _recurrent(sized: _Sized, node: Node) -> Iterator[Work]:
    """Weights and recurrent weights, once for every step."""
    steps = prod(sized.shape(node.inputs[0])[:1])
    for name in node.inputs[1:3]:
        if name in sized.constants:
            yield _constant(sized, node, name, steps)


def _attention(sized: _Sized, node: Node) -> Iterator[Work]:
    """Scores and values; keys are [batch, length, width] or [batch, heads, length, width]."""
    made, keys = sized.shape(node.output), sized.shape((*node.inputs, "")[1])
    length = prod(keys[-2:-1])
    spans = tuple((node.output, axis) for axis in range(len(made)))
    yield Work(node.name, 2 * prod(made[1:]) * length, None, spans)


_COUNTERS: Mapping[str, Callable[[_Sized, Node], Iterator[Work]]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _product,
    "MatMul": _product,
    "FusedMatMul": _product,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
    "GroupQueryAttention": _attention,
}


def _constant(sized: _Sized, node: Node, weight: str, positions: int) -> Work:
    return Work(node.name, int(sized.constants[weight].size) * positions, weight)
