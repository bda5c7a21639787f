"""Multiply-adds of one sample, operator by operator.

    constant operand   every number of it times the positions it is used at: pixels (of the output for Conv, of the
                       input for ConvTranspose), rows of a product, steps of a recurrence
    two activations    every number of the output times the length they are summed over (attention: twice, for the
                       scores and for the values)

The batch (the first axis) counts as 1, and so does every size the model does not state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from edgepress.model import Model, Node

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


def work_of(model: Model) -> tuple[Work, ...]:
    """All multiply-adds of a model, in graph order."""
    return tuple(work for node in model.nodes for work in _COUNTERS.get(node.op, _nothing)(model, node))


def count_macs(model: Model) -> dict[str, int]:
    """Multiply-adds of one sample per node; nodes without any are left out."""
    found: dict[str, int] = {}
    for work in work_of(model):
        found[work.node] = found.get(work.node, 0) + work.macs
    return found


def _nothing(model: Model, node: Node) -> Iterator[Work]:
    return iter(())


def _convolution(model: Model, node: Node) -> Iterator[Work]:
    if node.inputs[1] in model.constants:
        at = node.output if node.op == "Conv" else node.inputs[0]
        yield _constant(model, node, node.inputs[1], prod(_shape(model, at)[2:]))


def _product(model: Model, node: Node) -> Iterator[Work]:
    """Gemm and MatMul."""
    left, right = node.inputs[:2]
    made = _shape(model, node.output)
    if right in model.constants:
        yield _constant(model, node, right, prod(made[1:-1]))
    elif left in model.constants:
        yield _constant(model, node, left, prod(made[1:] if len(made) == 2 else (*made[1:-2], *made[-1:])))
    else:
        length = _shape(model, left)[-1:]
        spans = ((left, len(_shape(model, left)) - 1), *((node.output, axis) for axis in range(len(made))))
        yield Work(node.name, prod(made[1:]) * prod(length), None, spans)


def _einsum(model: Model, node: Node) -> Iterator[Work]:
    """Every index once, but for the batch: the first one of the output."""
    terms, arrow, makes = str(node.attributes["equation"]).replace(" ", "").partition("->")
    places: dict[str, tuple[str, int]] = {}
    for name, term in zip((node.output, *node.inputs), (makes, *terms.split(",")), strict=False):
        places |= {letter: (name, axis) for axis, letter in enumerate(term) if letter not in places}
    if not arrow or "." in places:  # dots stand for a number of axes that is not known here
        return
    sizes = {letter: (*_shape(model, name), *(1,) * 9)[axis] for letter, (name, axis) in places.items()}
    pairs = zip(node.inputs, terms.split(","), strict=True)
    constants = [(name, term) for name, term in pairs if name in model.constants]
    if len(constants) == 1:
        name, own = constants[0]
        yield _constant(model, node, name, prod(sizes[x] for x in sizes if x not in own and x != makes[:1]))
    else:
        yield Work(node.name, prod(sizes[x] for x in sizes if x != makes[:1]), None, tuple(places.values()))


def _recurrent(model: Model, node: Node) -> Iterator[Work]:
    """Weights and recurrent weights, once for every step."""
    steps = prod(_shape(model, node.inputs[0])[:1])
    for name in node.inputs[1:3]:
        if name in model.constants:
            yield _constant(model, node, name, steps)


def _attention(model: Model, node: Node) -> Iterator[Work]:
    """Scores and values; keys are [batch, length, width] or [batch, heads, length, width]."""
    made, keys = _shape(model, node.output), _shape(model, (*node.inputs, "")[1])
    length = prod(keys[-2:-1])
    spans = tuple((node.output, axis) for axis in range(len(made)))
    yield Work(node.name, 2 * prod(made[1:]) * length, None, spans)


_COUNTERS: Mapping[str, Callable[[Model, Node], Iterator[Work]]] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _product,
    "MatMul": _product,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
    "GroupQueryAttention": _attention,
}


def _constant(model: Model, node: Node, weight: str, positions: int) -> Work:
    return Work(node.name, int(model.constants[weight].size) * positions, weight)


def _shape(model: Model, tensor: str) -> Shape:
    """The stated shape, 1 for what is not a number; empty when nothing is stated."""
    known = model.types.get(tensor)
    shape = known.shape if known is not None and known.shape is not None else ()
    return tuple(size if isinstance(size, int) else 1 for size in shape)
