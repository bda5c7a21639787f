r"""Steps: fold what scales and shifts the channels of a linear operator into that operator.

A linear operator (Conv, ConvTranspose, Gemm, or MatMul of a 2-D tensor with a constant) gives y[c] = W[c] x + b[c].
If its only reader computes s[c] y[c] + t[c], both are one operator with

    W'[c] = s[c] W[c],      b'[c] = s[c] b[c] + t[c]

- BatchNormalization (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.1, inference):
  s = gamma / sqrt(var + eps), t = beta - mean s;
- Add of a constant per channel: s = 1, t = the constant.

All arithmetic is in float64, rounded once to the type of the weights. A MatMul becomes a Gemm, because only that has a
bias. A weight with other readers keeps its value for them: the folded copy gets a name of its own.
The linear node keeps its name and takes over the name of the output.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference

from edgepress import storage
from edgepress.model import Model
from edgepress.normalize.graph import (
    DEFAULT_DOMAIN,
    attributes,
    drop_attribute,
    drop_nodes,
    fresh,
    initializers,
    names_in_use,
    output_names,
    reads,
    set_constant,
)

CONVOLUTIONS = ("Conv", "ConvTranspose")
LINEAR = (*CONVOLUTIONS, "Gemm", "MatMul")


@dataclass(frozen=True)
class _Affine:
    """y -> scale * y + shift per channel, float64 [C] each; ``bias_name``: the constant whose name a new bias takes."""

    scale: np.ndarray
    shift: np.ndarray
    bias_name: str


@dataclass(frozen=True)
class _Linear:
    """A linear operator: its weight as stored, its bias float64 [C], the name of the bias (empty: none)."""

    weight: np.ndarray
    bias: np.ndarray
    bias_name: str

    @property
    def channels(self) -> int:
        return int(self.bias.size)


def merge_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold a per-channel constant Add into the linear operator before it."""
    return _fold(proto, ("Add",))


def fold_batch_normalization(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold BatchNormalization, and constant Adds behind it, into the linear operator before it."""
    return _fold(proto, ("BatchNormalization", "Add"))


def write_biases(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give every Conv and Gemm with constant weights a bias: a refit needs a place for what constants add up to."""
    weights = initializers(proto.graph)
    taken = names_in_use(proto.graph)
    for node in proto.graph.node:
        bare = node.op_type in ("Conv", "Gemm") and (len(node.input) < 3 or not node.input[2])
        if bare and node.input[1] in weights:
            array = numpy_helper.to_array(weights[node.input[1]])
            name = fresh(f"{node.name or node.input[1]}/bias", taken)
            taken.add(name)
            set_constant(proto.graph, name, np.zeros(_channels(node, array), array.dtype))
            _set_bias(node, name)
    return proto


def _fold(proto: onnx.ModelProto, kinds: Collection[str]) -> onnx.ModelProto:
    graph = proto.graph
    if not any(node.op_type in kinds for node in graph.node):
        return proto
    ranks = _ranks(proto)
    constants = {name: numpy_helper.to_array(item) for name, item in initializers(graph).items()}
    uses = _uses(graph)
    folded: set[int] = set()
    for position, node in enumerate(graph.node):
        while (follower := _follower(graph, node, kinds, uses)) is not None:
            linear = _linear(node, constants, ranks)
            affine = None if linear is None else _affine(graph.node[follower], node, linear, constants)
            if linear is None or affine is None:
                break
            read = ((position, reads(node)), (follower, reads(graph.node[follower])))
            constants |= _merge(graph, node, follower, linear, affine, uses)
            for place, names in read:
                _reread(uses, place, names, graph.node[place])
            folded.add(follower)
    drop_nodes(graph, folded)
    return proto


def _uses(graph: onnx.GraphProto) -> dict[str, set[int]]:
    """Positions of the nodes that read a tensor."""
    found: dict[str, set[int]] = {}
    for position, node in enumerate(graph.node):
        for name in reads(node):
            found.setdefault(name, set()).add(position)
    return found


def _reread(uses: dict[str, set[int]], position: int, before: Collection[str], node: onnx.NodeProto) -> None:
    """Enter what the node at a position reads now in place of what it read before."""
    for name in before:
        uses[name].discard(position)
    for name in reads(node):
        uses.setdefault(name, set()).add(position)


def _follower(
    graph: onnx.GraphProto, node: onnx.NodeProto, kinds: Collection[str], uses: Mapping[str, Collection[int]]
) -> int | None:
    """Position of the only reader of a linear node, if it is of one of the kinds."""
    if node.op_type not in LINEAR or node.domain not in DEFAULT_DOMAIN or node.output[0] in output_names(graph):
        return None
    found = uses.get(node.output[0], ())
    if len(found) != 1:
        return None
    (position,) = found
    reader = graph.node[position]
    return position if reader.op_type in kinds and reader.domain in DEFAULT_DOMAIN else None


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    types = Model.of(shape_inference.infer_shapes(storage.outline(proto), data_prop=True)).types
    return {name: len(kind.shape) for name, kind in types.items() if kind.shape is not None}


def _linear(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], ranks: Mapping[str, int]) -> _Linear | None:
    weight = constants.get(node.input[1])
    bias_name = node.input[2] if len(node.input) > 2 else ""
    if weight is None or (bias_name and bias_name not in constants):
        return None
    if node.op_type == "MatMul" and (weight.ndim != 2 or ranks.get(node.input[0]) != 2):
        return None
    channels = _channels(node, weight)
    beta = float(attributes(node).get("beta", 1.0)) if node.op_type == "Gemm" else 1.0
    bias = np.zeros(channels)
    if bias_name:
        rank = 2 if node.op_type == "Gemm" else 1
        stored = _per_channel(constants[bias_name], channels, rank, axis=rank - 1)
        if stored is None:
            return None
        bias = beta * stored
    return _Linear(weight, bias, bias_name)


def _channels(node: onnx.NodeProto, weight: np.ndarray) -> int:
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * int(attributes(node).get("group", 1))
    return int(weight.shape[0 if attributes(node).get("transB", 0) else 1])


def _per_channel(array: np.ndarray, channels: int, rank: int, *, axis: int) -> np.ndarray | None:
    """A constant that broadcasts along ``axis`` only, as float64 [channels]; None if it is of another shape."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for position, size in enumerate(shape) if position != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(array.astype(np.float64).ravel(), (channels,)).copy()


def _affine(
    node: onnx.NodeProto, before: onnx.NodeProto, linear: _Linear, constants: Mapping[str, np.ndarray]
) -> _Affine | None:
    if node.op_type == "BatchNormalization":
        return _affine_of_normalization(node, linear, constants)
    others = [name for name in node.input if name != before.output[0]]
    if len(others) != 1 or others[0] not in constants:
        return None
    rank = linear.weight.ndim if before.op_type in CONVOLUTIONS else 2
    shift = _per_channel(constants[others[0]], linear.channels, rank, axis=1)
    return None if shift is None else _Affine(np.ones(linear.channels), shift, others[0])


def _affine_of_normalization(
    node: onnx.NodeProto, linear: _Linear, constants: Mapping[str, np.ndarray]
) -> _Affine | None:
    values = attributes(node)
    names = list(node.input[1:5])
    if values.get("training_mode", 0) or not values.get("spatial", 1) or not constants.keys() >= set(names):
        return None
    if any(node.output[1:]) or any(constants[name].shape != (linear.channels,) for name in names):
        return None
    gamma, beta, mean, variance = (constants[name].astype(np.float64) for name in names)
    deviation = np.sqrt(variance + np.float32(values.get("epsilon", 1e-5)))
    if not (deviation > 0).all():
        return None
    scale = gamma / deviation
    return _Affine(scale, beta - mean * scale, names[1])


def _merge(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    follower: int,
    linear: _Linear,
    affine: _Affine,
    uses: Mapping[str, Collection[int]],
) -> dict[str, np.ndarray]:
    """Write the folded weights, connect the node past its follower, and return the constants that changed."""
    changed: dict[str, np.ndarray] = {}
    outputs = output_names(graph)
    if (affine.scale != 1).any():
        stored = node.input[1]
        own = len(uses[stored]) == 1 and list(node.input).count(stored) == 1 and stored not in outputs
        name = stored if own else fresh(f"{stored}.{node.name}", names_in_use(graph))
        changed[name] = _scaled(node, linear.weight, affine.scale)
        node.input[1] = name
    bias = (affine.scale * linear.bias + affine.shift).astype(linear.weight.dtype)
    wanted = linear.bias_name or affine.bias_name
    free = len(uses[wanted]) == 1 and wanted not in outputs and wanted != node.input[1]
    name = wanted if free else fresh(f"{node.name}.bias", names_in_use(graph))
    changed[name] = bias
    _set_bias(node, name)
    node.output[0] = graph.node[follower].output[0]
    graph.node[follower].Clear()
    for key, array in changed.items():
        set_constant(graph, key, array)
    return changed


def _set_bias(node: onnx.NodeProto, name: str) -> None:
    if node.op_type == "MatMul":
        node.op_type = "Gemm"
    drop_attribute(node, "beta")
    inputs = [*list(node.input)[:2], name]
    del node.input[:]
    node.input.extend(inputs)


def _scaled(node: onnx.NodeProto, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The weight with every output channel multiplied by its scale; same shape and type."""
    exact = weight.astype(np.float64)
    if node.op_type == "ConvTranspose":  # [C_in, C_out / groups, ...]: the groups lie one behind the other along C_in
        group = int(attributes(node).get("group", 1))
        ones = (1,) * (weight.ndim - 2)
        split = exact.reshape(group, -1, *weight.shape[1:]) * scale.reshape(group, 1, weight.shape[1], *ones)
        folded: np.ndarray = split.reshape(weight.shape)
        return folded.astype(weight.dtype)
    rows = node.op_type == "Conv" or bool(attributes(node).get("transB", 0))
    factor = scale.reshape(-1, *(1,) * (weight.ndim - 1)) if rows else scale
    product: np.ndarray = exact * factor
    return product.astype(weight.dtype)
