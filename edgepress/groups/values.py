"""Values of tensors that depend on shapes and small constants alone, at given shapes.

Exporters compute targets, bounds, masks and positions at run time (Shape -> Gather -> Concat -> Reshape, Range ->
Less -> Where). Given the shapes these are numbers: Shape and Size are answered from the shapes, everything behind them
by onnx's reference evaluator, node by node. The same program is evaluated before a cut (the labels need the numbers)
and after it (surgery mends those that no longer fit).

Guarantees: nothing that depends on an input, on chance or on a body of control flow is ever evaluated, and no layer
with weights is; what cannot be evaluated is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgepress.model import Node

LIMIT = 2**20
"""Elements that one evaluated node may read or write."""

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"}
)
NEVER = RANDOM | {"If", "Loop", "Scan", "DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"}

LAYERS = frozenset({"MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN"})
"""What makes channels, where it holds a matrix: learned queries that are repeated for every sample go through them."""

Shape = tuple[int, ...]
Arrays = Mapping[str, np.ndarray]

_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, MemoryError)


class Joined(Mapping[str, np.ndarray]):
    """Two mappings as one, without looking anything up (constants of large models are decoded at every look-up)."""

    def __init__(self, values: Arrays, constants: Arrays) -> None:
        """What both hold is taken from ``values``."""
        self._parts = values, constants

    def __getitem__(self, name: str) -> np.ndarray:
        values, constants = self._parts
        return values[name] if name in values else constants[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._parts[0], *self._parts[1])))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def shape_values(
    nodes: Iterable[Node], constants: Arrays, shapes: Mapping[str, Shape], opset: int
) -> dict[str, np.ndarray]:
    """Evaluate what depends on shapes alone.

    Args:
        nodes: the graph, in order.
        constants: the initializers.
        shapes: static shapes of tensors, as far as known.
        opset: version of the default operator set.

    Returns:
        The values by tensor name.
    """
    values: dict[str, np.ndarray] = {}
    for node in nodes:
        values.update(evaluated(node, values, constants, shapes, opset) or {})
    return values


def evaluated(
    node: Node, values: Arrays, constants: Arrays, shapes: Mapping[str, Shape], opset: int
) -> dict[str, np.ndarray] | None:
    """Outputs of one node, given the values before it; None if they do not depend on shapes alone."""
    if node.domain not in ("", "ai.onnx") or node.op in NEVER or not any(node.outputs):
        return None
    if node.op in ("Shape", "Size"):
        source = node.inputs[0]
        known = values[source].shape if source in values else shapes.get(source)
        return None if known is None else {node.output: _shape(node, known)}
    if node.op in LAYERS and any(_matrix(constants[name]) for name in node.inputs if name in constants):
        return None
    read = [name for name in node.inputs if name]
    if not any(name in values for name in read) or not all(name in values or name in constants for name in read):
        return None
    arrays = {name: values[name] if name in values else constants[name] for name in read}
    if node.op in ("ConstantOfShape", "Expand"):
        return _filled(node, arrays)
    large = max(sum(array.size for array in arrays.values()), *(_size(shapes.get(name, ())) for name in node.outputs))
    if large > LIMIT:
        return None
    return _run(node, arrays, opset)


def _matrix(constant: np.ndarray) -> bool:
    return len([size for size in constant.shape if size > 1]) > 1


def _filled(node: Node, feed: Arrays) -> dict[str, np.ndarray] | None:
    """What only repeats a value, as a broadcast view: masks and states may be large."""
    shape = tuple(int(n) for n in feed[node.inputs[-1]].ravel())
    if min(shape, default=0) < 0:
        return None
    if node.op == "Expand":
        data = feed[node.inputs[0]]
        try:
            return {node.output: np.broadcast_to(data, np.broadcast_shapes(data.shape, shape))}
        except ValueError:
            return None
    value = node.attributes.get("value")
    held = np.zeros((), np.float32) if value is None else numpy_helper.to_array(value).ravel()[0]
    return {node.output: np.broadcast_to(held, shape)}


def _run(node: Node, feed: Arrays, opset: int) -> dict[str, np.ndarray] | None:
    """Run one node of the default domain by onnx's reference evaluator; None if it cannot."""
    try:
        proto = helper.make_node(node.op, node.inputs, node.outputs, **node.attributes)
        evaluator = ReferenceEvaluator(proto, opsets={"": opset})
        made = dict(zip(node.outputs, evaluator.run(None, dict(feed)), strict=False))
        arrays = {name: np.asarray(made[name]) for name in node.outputs if name}
    except _FAILURES:
        return None
    return arrays if all(array.size <= LIMIT for array in arrays.values()) else None


def _shape(node: Node, shape: Shape) -> np.ndarray:
    if node.op == "Size":
        return np.array(_size(shape), np.int64)
    return np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end", len(shape))], np.int64)


def _size(shape: Shape) -> int:
    return int(np.prod(shape, dtype=np.int64))
