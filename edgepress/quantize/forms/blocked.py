"""Blocked 4-bit weights: products that read few rows, where fetching the weights is what takes the time.

    y = MatMulNBits(x, Q, scale, zero) [+ b]       4 bits, blocks of 128 input channels, accuracy level 4

MatMulNBits (com.microsoft) unpacks the weights as it multiplies. At accuracy level 4 it also rounds x to int8, one
scale per row and block: that is where its speed comes from (level 0 and 1 compute in float). It is the fastest form for
one row of 256 channels or more; from a few rows on dynamic int8 is faster, and from 16 on float may be, too
(benchmarks/transformers.py). The file has half the bytes of int8 either way.
Guarantees: graph outputs keep their names and types; at levels 0 and 1 the result is that of the dequantized weight.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx

from edgepress.errors import InputError
from edgepress.model import Model, Node
from edgepress.quantize.forms.blocks import Blocks, round_blocks
from edgepress.quantize.forms.draft import CONTRIB, Draft, node
from edgepress.quantize.forms.dynamic import chosen_product
from edgepress.quantize.forms.products import Product, bias_behind, channel_bias, fits, judged, product, rows
from edgepress.quantize.graph.regions import typed

LEAST_DEPTH, MANY_ROWS = 256, 16
"""Input channels from which 4 bits may pay, and rows of a call from which dynamic int8 is faster for certain."""

LEVELS = (0, 1, 4)
"""Accuracy levels of the CPU: float, float, int8."""

_NOTHING: Mapping[str, int] = MappingProxyType({})
_EQUAL: Mapping[str, np.ndarray] = MappingProxyType({})


def blocked_candidates(model: Model, sizes: Mapping[str, int] = _NOTHING) -> dict[str, str]:
    """Every MatMul and Gemm, with the reason why 4-bit blocks are nothing for it; empty if they may pay.

    Args:
        model: a float model.
        sizes: sizes of free axes by their names; unknown numbers of rows are given the benefit of the doubt.
    """
    return judged(model, lambda stated, each: _reason(stated, each, sizes))


def _reason(model: Model, each: Node, sizes: Mapping[str, int]) -> str:
    made = product(model, each)
    if isinstance(made, str):
        return made
    if made.weight.shape[0] < LEAST_DEPTH:
        return f"{made.weight.shape[0]} input channels are faster in float"
    count, _ = rows(model, each, sizes)
    return f"{count} rows a call are faster in dynamic int8" if count >= MANY_ROWS else ""


def blocked(
    model: Model,
    nodes: Collection[str],
    block: int = 128,
    accuracy_level: int = 4,
    importance: Mapping[str, np.ndarray] = _EQUAL,
) -> Model:
    """The model with 4-bit weights in blocks.

    Args:
        model: a float model.
        nodes: names of MatMul and Gemm nodes (see :func:`blocked_candidates`).
        block: input channels of a block: a power of two, 16 or more.
        accuracy_level: 4 rounds activations to int8 as they come, 0 and 1 keep them float.
        importance: mean square of the input channels by node name, ``[K]``: where rounding errors weigh more.

    Raises:
        ModelError: a node of that name does not exist or is no product with constant weights.
        InputError: a block or level that onnxruntime does not have.
    """
    if block < 16 or block & (block - 1):
        raise InputError(f"Blocks of {block} input channels are not possible: choose a power of two, 16 or more.")
    if accuracy_level not in LEVELS:
        raise InputError(f"There is no accuracy level {accuracy_level} on a CPU: choose 4 for speed or 1 for float.")
    draft, stated = Draft(model), typed(model)
    for name in sorted(nodes):
        found = chosen_product(model, name)
        weight = round_blocks(found.weight, block, importance.get(name))
        bias, output, behind = _ending(draft, stated, found)
        draft.replace(found.node, [_written(draft, found, weight, accuracy_level, bias, output), *behind])
    return draft.finish()


def _ending(draft: Draft, stated: Model, found: Product) -> tuple[str, str, list[onnx.NodeProto]]:
    """How a product ends: the name of its bias, of what it makes, and the nodes behind it.

    The kernel adds a number to every output channel, be it the bias of a Gemm or in an Add of its own; the rest of what
    a Gemm adds is left to an Add.
    """
    name, output = found.node.name, found.node.output
    behind = None if found.bias else bias_behind(draft.model, found)
    if behind is not None and fits(stated, found, behind[1]):
        add, constant = behind
        draft.replace(add, [])
        return draft.constant(f"{name}/b", draft.model.constants[constant].reshape(-1)), add.output, []
    values = channel_bias(draft.model, found)
    if values is not None:
        return draft.constant(f"{name}/b", values), output, []
    if not found.bias:
        return "", output, []
    unfinished = draft.fresh(f"{output}/y")
    return "", unfinished, [node("Add", [unfinished, found.bias], [output])]


def _written(draft: Draft, found: Product, weight: Blocks, level: int, bias: str, output: str) -> onnx.NodeProto:
    name = found.node.name
    inputs = [
        found.node.inputs[0],
        draft.constant(f"{name}/w", weight.packed),
        draft.constant(f"{name}/ws", weight.scale),
    ]
    if weight.packed_zero is not None:
        inputs.append(draft.constant(f"{name}/wz", weight.packed_zero))
    if bias:
        inputs += [""] * (5 - len(inputs)) + [bias]
    return node(
        "MatMulNBits",
        inputs,
        [output],
        name=name,
        domain=CONTRIB,
        K=found.weight.shape[0],
        N=found.weight.shape[1],
        bits=4,
        block_size=weight.values.shape[2],
        accuracy_level=level,
    )
