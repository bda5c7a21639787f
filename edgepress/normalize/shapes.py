"""Step: fold chains that compute shapes (Shape -> Gather -> Concat -> Reshape, ...), keeping free axes free.

Which tensors depend on shapes alone is traced in the graph: outputs of Shape and Size, constants, and whatever
deterministic operators make of those. Their values are then observed: onnxruntime runs the model with those tensors as
outputs, with 1, 2 and 5 rows of one sample (once, if every axis is fixed) and with each other free axis doubled.

- A tensor that is the same in all runs becomes an initializer of the same name.
- The target of a Reshape whose entries follow a free axis becomes a constant with ``0`` (copy the input's size at
  that position) and at most one ``-1`` (what is left over).
- Everything else that follows a free axis (Expand, ConstantOfShape, ...) is left alone.

Shapes that depend on data (below NonZero, NonMaxSuppression, a Reshape to computed sizes, ...) are not constants, no
matter what the runs say; they are excluded by the trace. The source of the idea is the observation that the channel
sizes of exported models hide in such chains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgepress.errors import ModelError, Refusal
from edgepress.model import Model, TensorType
from edgepress.normalize import feeds
from edgepress.normalize.constants import GROWTH_LIMIT, is_deterministic
from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    attributes,
    drop_attribute,
    drop_dead_nodes,
    drop_nodes,
    fresh,
    initializers,
    names_in_use,
    output_names,
    reads,
    set_constant,
    subgraphs,
)
from edgepress.runtime import run

BATCHES = (1, 2, 5)

SHAPED_BY_DATA = frozenset({"NonZero", "Unique", "NonMaxSuppression", "Compress", "StringSplit", "ConcatFromSequence"})
"""Operators whose output shape depends on the values of any input."""

SHAPE_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1, 2),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "ConstantOfShape": (0,),
    "Range": (0, 1, 2),
    "TopK": (1,),
    "OneHot": (1,),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "CenterCropPad": (1,),
    "MaxUnpool": (2,),
    "BlackmanWindow": (0,),
    "HannWindow": (0,),
    "HammingWindow": (0,),
}
"""Operators whose output shape depends on the values of these inputs."""


@dataclass(frozen=True)
class _Observed:
    """Values of shape tensors, and shapes of Reshape inputs, one entry per run."""

    values: Mapping[str, list[np.ndarray]]
    inputs: Mapping[str, list[np.ndarray]]


def fold_shapes(proto: onnx.ModelProto, samples: Sequence[feeds.Feed]) -> onnx.ModelProto | Refusal:
    """Fold the shape chains of the main graph.

    Returns:
        The model, or a Refusal when it does not run with another size of a free axis.
    """
    graph = proto.graph
    names = sorted(shape_tensors(graph) - output_names(graph))
    if not names:
        return proto
    runs = _runs(Model.of(proto).inputs, samples[0])
    try:
        observed = _observe(proto, names, runs)
    except ModelError as error:
        return Refusal("shape chains", f"the model does not run with every size of its free axes: {error}")
    constant = _constants(observed.values)
    for position, node in enumerate(graph.node):
        if _reshapes_to(node, observed.values.keys() - constant.keys()):
            _mend_reshape(graph, position, observed)
    _replace(graph, constant)
    drop_dead_nodes(graph)
    return proto


def shape_tensors(graph: onnx.GraphProto) -> set[str]:
    """Names of computed tensors that depend on shapes and constants only (initializers are not listed)."""
    known = set(initializers(graph))
    made: set[str] = set()
    by_data: set[str] = set()
    for node in graph.node:
        inputs = {name for name in node.input if name}
        outputs = {name for name in node.output if name}
        if _shaped_by_data(node, known | made) or inputs & by_data:
            by_data |= outputs
        elif not is_deterministic(node):
            continue
        elif node.op_type in ("Shape", "Size") or (inputs and inputs <= known | made):
            made |= outputs
    return made


def reshape_target(
    values: Sequence[np.ndarray], inputs: Sequence[np.ndarray], *, zero_is_zero: bool
) -> np.ndarray | None:
    """One constant Reshape target that fits all runs; None if there is none.

    Args:
        values: the targets seen, int64 [k] each.
        inputs: the shapes of the reshaped tensor, int64 [rank] each.
        zero_is_zero: the node's ``allowzero``: a 0 in the target means an empty axis.
    """
    if len({value.shape for value in values}) > 1 or len({shape.shape for shape in inputs}) > 1:
        return None
    seen, sizes = np.stack(values), np.stack(inputs)
    if zero_is_zero and (seen == 0).any():
        return None
    target: np.ndarray = seen[0].copy()
    varying = np.flatnonzero((seen != seen[0]).any(axis=0))
    copied = [axis for axis in varying if axis < sizes.shape[1] and (seen[:, axis] == sizes[:, axis]).all()]
    left = [axis for axis in varying if axis not in copied]
    inferred = bool((target == -1).any())
    if len(varying) == 1 and not inferred:
        copied, left = [], list(varying)
    if len(left) > (0 if inferred else 1):
        return None
    target[copied] = 0
    target[left] = -1
    return target


def _shaped_by_data(node: onnx.NodeProto, known: set[str]) -> bool:
    if node.domain not in DEFAULT_DOMAIN or node.op_type in SHAPED_BY_DATA or subgraphs(node):
        # the output shape of an operator of another domain or of control flow is anyone's guess
        return True
    positions = SHAPE_INPUTS.get(node.op_type, ())
    return any(p < len(node.input) and node.input[p] and node.input[p] not in known for p in positions)


def _runs(types: Mapping[str, TensorType], sample: feeds.Feed) -> list[dict[str, np.ndarray]]:
    first = feeds.batch_symbols(types)
    sizes = feeds.current_sizes(sample, types)
    base = feeds.resized(sample, types, dict.fromkeys(first, 1))
    runs = [feeds.resized(base, types, dict.fromkeys(first, batch)) for batch in (BATCHES if first else (1,))]
    others = [symbol for symbol in sizes if symbol not in first]
    return runs + [feeds.resized(base, types, {symbol: 2 * sizes[symbol]}) for symbol in others]


def _observe(proto: onnx.ModelProto, names: list[str], runs: list[dict[str, np.ndarray]]) -> _Observed:
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    graph = probe.graph
    taken = names_in_use(graph)
    reshaped = {node.input[0] for node in graph.node if _reshapes_to(node, set(names))}
    shape_names = {tensor: fresh(f"shape of {tensor}", taken) for tensor in sorted(reshaped)}
    graph.node.extend(onnx.helper.make_node("Shape", [tensor], [name]) for tensor, name in shape_names.items())
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*names, *shape_names.values()))
    drop_dead_nodes(graph)
    opened = Model.of(probe).session()
    read = {value.name for value in opened.get_inputs()}
    seen = [run(opened, {name: array for name, array in feed.items() if name in read}) for feed in runs]
    values = {name: [found[name] for found in seen] for name in names}
    return _Observed(values, {tensor: [found[name] for found in seen] for tensor, name in shape_names.items()})


def _reshapes_to(node: onnx.NodeProto, targets: Collection[str]) -> bool:
    return node.op_type == "Reshape" and node.domain in DEFAULT_DOMAIN and node.input[1] in targets


def _constants(values: Mapping[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Tensors that are the same in all runs, up to the size limit."""
    found: dict[str, np.ndarray] = {}
    size = 0
    for name, arrays in values.items():
        same = all(array.shape == arrays[0].shape and np.array_equal(array, arrays[0]) for array in arrays[1:])
        if same and size + arrays[0].nbytes <= GROWTH_LIMIT:
            size += arrays[0].nbytes
            found[name] = arrays[0]
    return found


def _mend_reshape(graph: onnx.GraphProto, position: int, observed: _Observed) -> None:
    node = graph.node[position]
    zero_is_zero = bool(attributes(node).get("allowzero", 0))
    target = reshape_target(observed.values[node.input[1]], observed.inputs[node.input[0]], zero_is_zero=zero_is_zero)
    if target is None:
        return
    name = fresh(f"{node.name or node.output[0]}.shape", names_in_use(graph))
    set_constant(graph, name, target)
    node.input[1] = name
    drop_attribute(node, "allowzero")


def _replace(graph: onnx.GraphProto, values: Mapping[str, np.ndarray]) -> None:
    read = {name for node in graph.node for name in reads(node)}
    whole = {p for p, node in enumerate(graph.node) if node.output and all(not o or o in values for o in node.output)}
    made = {name for position in whole for name in graph.node[position].output if name}
    drop_nodes(graph, whole)
    for name in sorted(made & read):
        set_constant(graph, name, values[name])
