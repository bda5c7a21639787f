"""From nodes to parts: one function for every kind of linear operator.

Each takes a model and a node and returns the node's parts, or says in plain words why there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgepress.calibrate.views.bias import Bias
from edgepress.calibrate.views.gates import recurrent
from edgepress.calibrate.views.letters import DOTS, Letters
from edgepress.calibrate.views.part import Part
from edgepress.calibrate.views.rows import Rows
from edgepress.calibrate.views.source import Source, whole
from edgepress.calibrate.views.transposed import Phase, lattices
from edgepress.calibrate.views.window import Window
from edgepress.model import Model, Node

Builder = Callable[[Model, Node], "tuple[Part, ...] | str"]

COMPUTED = "its weights are computed, not constant"


def conv(model: Model, node: Node) -> tuple[Part, ...] | str:
    """One part for every group; none for a depthwise one, which carries channels along."""
    weight = model.constants.get(node.inputs[1])
    if weight is None:
        return COMPUTED
    attributes, shape = node.attributes, weight.shape
    rank, groups = len(shape) - 2, int(attributes.get("group", 1))
    if groups > 1 and shape[1] == 1:
        return "a depthwise convolution carries channels along and sums over none"
    automatic = attributes.get("auto_pad", "NOTSET")
    pads = _numbers(attributes, "pads", 0, 2 * rank) if automatic == "NOTSET" else automatic
    bias = Bias.of(model, node, slot=2, sizes=(shape[0],), axes=(-1 - rank,))
    if isinstance(bias, str):
        return bias
    parts = []
    for group in range(groups):
        made, read = _share(shape[0], groups, group), _share(shape[1] * groups, groups, group)
        strides, dilations = _numbers(attributes, "strides", 1, rank), _numbers(attributes, "dilations", 1, rank)
        geometry = Window(node.inputs[0], node.output, shape[2:], strides, dilations, pads, read, made)
        source = Source(node.inputs[1], shape, (made, *whole(shape[1:])), tuple(range(len(shape))), 1)
        parts.append(bias.part(geometry, source, made, group if groups > 1 else None))
    return tuple(parts)


def conv_transpose(model: Model, node: Node) -> tuple[Part, ...] | str:
    """One part for every group and phase."""
    weight = model.constants.get(node.inputs[1])
    if weight is None:
        return COMPUTED
    attributes, shape = node.attributes, weight.shape
    rank, groups = len(shape) - 2, int(attributes.get("group", 1))
    if attributes.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes:
        return "its padding follows from a wanted size"
    outputs = shape[1] * groups
    bias = Bias.of(model, node, slot=2, sizes=(outputs,), axes=(-1 - rank,))
    if isinstance(bias, str):
        return bias
    pads = _numbers(attributes, "pads", 0, 2 * rank)
    steps, apart = _numbers(attributes, "strides", 1, rank), _numbers(attributes, "dilations", 1, rank)
    extra = _numbers(attributes, "output_padding", 0, rank)
    along = [lattices(shape[2 + a], steps[a], apart[a], (pads[a], pads[a + rank]), extra[a]) for a in range(rank)]
    parts = []
    for group in range(groups):
        made, read = _share(outputs, groups, group), _share(shape[0], groups, group)
        for number, index in enumerate(np.ndindex(*(len(axis) for axis in along))):
            axes = tuple(axis[i] for axis, i in zip(along, index, strict=True))
            region = (read, range(shape[1]), *(axis.taps for axis in axes))
            source = Source(node.inputs[1], shape, region, (1, 0, *range(2, 2 + rank)), 1)
            geometry = Phase(node.inputs[0], node.output, axes, read, made)
            parts.append(bias.part(geometry, source, made, (group, number)))
    return tuple(parts)


def gemm(model: Model, node: Node) -> tuple[Part, ...] | str:
    """One part; alpha and beta belong to the sources."""
    weight, attributes = model.constants.get(node.inputs[1]), node.attributes
    if weight is None:
        return COMPUTED
    alpha, turned = float(attributes.get("alpha", 1.0)), bool(attributes.get("transB", 0))
    if alpha == 0:
        return "it multiplies its weights by zero"
    sizes, beta = (weight.shape[0 if turned else 1],), float(attributes.get("beta", 1.0))
    bias = Bias.of(model, node, slot=2, sizes=sizes, axes=(-1,), scale=beta)
    if isinstance(bias, str):
        return bias
    source = Source(node.inputs[1], weight.shape, whole(weight.shape), (0, 1) if turned else (1, 0), 1, alpha)
    into = -2 if attributes.get("transA", 0) else -1
    return (bias.part(Rows(node.inputs[0], node.output, into), source),)


def matmul(model: Model, node: Node) -> tuple[Part, ...] | str:
    """One part, with the constant on either side."""
    left, right = (model.constants.get(name) for name in node.inputs[:2])
    if (left is None) == (right is None):
        return COMPUTED
    slot, weight = (0, left) if left is not None else (1, right)
    if weight is None or weight.ndim != 2:
        return "its weight is not a matrix"
    axis = -2 if slot == 0 else -1  # W x makes and contracts the last axis but one, x W the last
    bias = Bias.of(model, node, slot=2, sizes=(weight.shape[slot],), axes=(axis,))
    if isinstance(bias, str):
        return bias
    source = Source(node.inputs[slot], weight.shape, whole(weight.shape), (slot, 1 - slot), 1)
    geometry = Rows(node.inputs[1 - slot], node.output, axis, axis)
    return (bias.part(geometry, source),)


def einsum(model: Model, node: Node) -> tuple[Part, ...] | str:
    """One part, where it is a product with a matrix."""
    operands = [model.constants.get(name) for name in node.inputs]
    terms, arrow, makes = str(node.attributes["equation"]).replace(" ", "").partition("->")
    if len(operands) != 2 or (operands[0] is None) == (operands[1] is None) or not arrow:
        return "only a product of an activation and a constant, written with ->, is a linear operator"
    slot = 0 if operands[0] is not None else 1
    split = terms.split(",")
    own, reads = split[slot], split[1 - slot]
    summed = "".join(letter for letter in own if letter in reads and letter not in makes)
    made = "".join(letter for letter in own if letter in makes and letter not in reads)
    counted = set(reads.replace(DOTS, "")) - set(summed)
    plain = all(len(set(term)) == len(term) for term in (own, reads.replace(DOTS, ""), makes.replace(DOTS, "")))
    if not plain or len(summed) + len(made) != len(own) or not summed or not made:
        return f"its equation {terms}->{makes} is not one product with a matrix"
    if counted != set(makes.replace(DOTS, "")) - set(made) or (DOTS in reads) != (DOTS in makes):
        return f"its equation {terms}->{makes} is not one product with a matrix"
    weight = model.constants[node.inputs[slot]]
    order = tuple(own.index(letter) for letter in made + summed)
    source = Source(node.inputs[slot], weight.shape, whole(weight.shape), order, len(made))
    geometry = Letters(node.inputs[1 - slot], node.output, reads, makes, summed, made)
    # counted from the end: not behind dots, which stand for any number of axes
    axes = () if DOTS in makes.lstrip(".") else tuple(makes.index(letter) - len(makes) for letter in made)
    sizes = tuple(weight.shape[own.index(letter)] for letter in made)
    bias = Bias.of(model, node, slot=2, sizes=sizes, axes=axes)
    return bias if isinstance(bias, str) else (bias.part(geometry, source),)


BUILDERS: Mapping[str, Builder] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "Einsum": einsum,
    "LSTM": recurrent,
    "GRU": recurrent,
    "RNN": recurrent,
}
"""Operators that are linear in what they read, with constant weights."""


def _numbers(attributes: Mapping[str, Any], name: str, default: int, count: int) -> tuple[int, ...]:
    found = attributes.get(name)
    return tuple(int(value) for value in found) if found else (default,) * count


def _share(total: int, groups: int, group: int) -> range:
    """The positions of one of several equal groups."""
    each = total // groups
    return range(group * each, (group + 1) * each)
