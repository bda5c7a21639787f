"""Dynamic int8: weights are int8, activations become uint8 as they come, with a scale of their own in every call.

    q, s, z = DynamicQuantizeLinear(x)            s = (max(x, 0) - min(x, 0)) / 255
    y = float(MatMulInteger(q, W8, z)) * (s * w) [+ b]        w[o] = max |W[:, o]| / limit

This is the form that onnxruntime 1.31 fuses to one DynamicQuantizeMatMul (dynamic_quantize_matmul_fusion.cc); products
that read the same x share its q and become a MatMulIntegerToFloat each. A bias has to stand on the right of its Add.
No samples are needed. What it takes of float's time depends on K and on how many rows share the cost of rounding them
(``FLOORS``, from benchmarks/transformers.py). Guarantees: graph outputs keep their names and types; weights within half
a step, one step for every output channel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import onnx

from edgepress.errors import ModelError
from edgepress.model import Model, Node
from edgepress.quantize.forms.draft import FLOAT, Draft, node
from edgepress.quantize.forms.products import Product, bias_behind, channel_bias, fits, judged, product, rows
from edgepress.quantize.graph.regions import typed
from edgepress.quantize.weights.nearest import Rounded, round_weights

FLOORS = ((256, 1), (128, 16), (64, 64))
"""Input channels, and rows of a call from which int8 may pay with as many (timing decides)."""

LEAST_OPSET = 11
"""The first operator set with DynamicQuantizeLinear."""

MISREAD = "onnxruntime would take what is added to it for its bias"

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NONE: Mapping[str, Rounded] = MappingProxyType({})


def dynamic_candidates(model: Model, sizes: Mapping[str, int] = _NOTHING) -> dict[str, str]:
    """Every MatMul and Gemm, with the reason why dynamic int8 is nothing for it; empty if it may pay.

    Args:
        model: a float model.
        sizes: sizes of free axes by their names; unknown numbers of rows are given the benefit of the doubt.
    """
    return judged(model, lambda stated, each: _reason(stated, each, sizes))


def _reason(model: Model, each: Node, sizes: Mapping[str, int]) -> str:
    made = product(model, each)
    if isinstance(made, str):
        return made
    if _misread(model, made):
        return MISREAD
    depth, (count, certain) = made.weight.shape[0], rows(model, each, sizes)
    least = next((fewest for channels, fewest in FLOORS if depth >= channels), None)
    if least is None:
        return f"{depth} input channels are faster in float"
    return f"{count} rows of {depth} channels are faster in float" if certain and count < least else ""


def dynamic(model: Model, nodes: Collection[str], limit: int = 127, rounded: Mapping[str, Rounded] = _NONE) -> Model:
    """The model with products that quantize their input as it comes.

    Args:
        model: a float model of operator set 11 or newer.
        nodes: names of MatMul and Gemm nodes (see :func:`dynamic_candidates`).
        limit: largest ``|int8 weight|``; 64 where the CPU adds pairs of products in 16 bits.
        rounded: weights that are rounded already, by node name, in the layout of the node's own; ``limit`` is theirs.

    Raises:
        ModelError: a node of that name does not exist or is no product with constant weights, or an old operator set.
    """
    draft, stated = Draft(model, least_opset=LEAST_OPSET), typed(model)
    chosen = {name: chosen_product(model, name) for name in sorted(nodes)}
    for name, found in chosen.items():
        if _misread(stated, found):
            raise ModelError(f"Node {name!r} cannot be quantized: {MISREAD}.")
    shared: dict[str, list[str]] = {}
    for each in model.nodes:  # in graph order: the first reader of a tensor quantizes it for all
        if each.name in chosen:
            found = chosen[each.name]
            weight = _integers(found, limit, rounded.get(each.name))
            draft.replace(each, [*_activation(draft, each.inputs[0], shared), *_written(draft, found, weight, shared)])
            _bias_on_the_right(draft, found)
    return draft.finish()


def chosen_product(model: Model, name: str) -> Product:
    """The product of a node that was asked for by name.

    Raises:
        ModelError: there is no such node, or it is none.
    """
    known = {each.name: each for each in model.nodes}
    found = product(model, known[name]) if name in known else "there is no such node"
    if isinstance(found, str):
        raise ModelError(f"Node {name!r} cannot be quantized: {found}.")
    return found


def _integers(found: Product, limit: int, given: Rounded | None) -> Rounded:
    """The weight as int8 ``[K, N]`` with one scale per column."""
    if given is None:
        return round_weights(found.weight, 1, limit)
    if given.axis != (0 if found.transposed else 1):
        raise ModelError(f"The rounded weights of {found.node.name!r} have no scale per output channel.")
    return Rounded(given.values.T if found.transposed else given.values, given.scale, 1, given.bias)


def _activation(draft: Draft, tensor: str, shared: dict[str, list[str]]) -> list[onnx.NodeProto]:
    """What quantizes a tensor, unless something does already."""
    if tensor in shared:
        return []
    shared[tensor] = [draft.fresh(f"{tensor}/{part}") for part in ("x8", "xs", "xz")]
    return [node("DynamicQuantizeLinear", [tensor], shared[tensor])]


def _written(draft: Draft, found: Product, weight: Rounded, shared: Mapping[str, list[str]]) -> list[onnx.NodeProto]:
    name, output = found.node.name, found.node.output
    q, step, zero = shared[found.node.inputs[0]]
    whole, real, scale = (draft.fresh(f"{output}/{part}") for part in ("y32", "yf", "ys"))
    values = draft.constant(f"{name}/w", weight.values)
    steps = draft.constant(f"{name}/ws", weight.scale)
    bias = _bias(draft, found, weight)
    unscaled = draft.fresh(f"{output}/y") if bias else output
    return [
        node("MatMulInteger", [q, values, zero], [whole], name=name),
        node("Mul", [step, steps], [scale]),
        node("Cast", [whole], [real], to=FLOAT),
        node("Mul", [real, scale], [unscaled]),
        *([node("Add", [unscaled, bias], [output])] if bias else []),
    ]


def _bias(draft: Draft, found: Product, weight: Rounded) -> str:
    values = weight.bias if weight.bias is not None else channel_bias(draft.model, found)
    return found.bias if values is None else draft.constant(f"{found.node.name}/b", values.astype(np.float32))


def _misread(model: Model, found: Product) -> bool:
    behind = bias_behind(model, found)
    return behind is not None and not fits(model, found, behind[1])


def _bias_on_the_right(draft: Draft, found: Product) -> None:
    behind = bias_behind(draft.model, found)
    if behind is not None:
        add, constant = behind
        draft.replace(add, [node("Add", [found.node.output, constant], add.outputs, name=add.name)])
