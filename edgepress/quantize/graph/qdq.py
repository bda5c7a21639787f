"""Write the int8 graph: QuantizeLinear / DequantizeLinear (QDQ) around the units that run in int8.

    q = clip(round(x / scale) + zero, 0, 255)      activations, uint8, one scale per tensor
    w = scale[o] q                                 weights, int8, one scale per output channel, zero point 0
    b = scale_x scale_w[o] q                       bias, int32

Every choice follows what onnxruntime 1.31 fuses: the output of an int8 unit is read through one Q only, the Q
sits behind the Relu or Clip (zero point 0 behind a Relu, scale <= bound / 255 behind a Clip), data movement shares
the scale of its input, a Gemm or MatMul that only float nodes read gets no Q, a graph output ends in Q -> DQ.
Guarantees: the graph outputs keep their names and types, float nodes read float, original node names stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from edgepress.errors import InvariantError, ModelError, Refusal
from edgepress.model import Model
from edgepress.ops.row import Role
from edgepress.ops.table import NEWEST_OPSET
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.plan import Quantization
from edgepress.quantize.activations.grids import Grid, grids
from edgepress.quantize.activations.ranges import Range
from edgepress.quantize.graph.regions import (
    MATRICES,
    READS_SHAPE,
    Unit,
    has_float32_weight,
    int8_units,
    operands,
    per_channel,
    stays_float,
    typed,
    units,
)
from edgepress.quantize.graph.shortcuts import Rewritten, as_convolutions
from edgepress.quantize.storage.slim import slim
from edgepress.quantize.storage.unpacking import FEWEST_HALVES, float_vector, int8_weight, narrowest
from edgepress.quantize.storage.writer import Writer
from edgepress.quantize.weights.nearest import Rounded, on_levels, round_weights
from edgepress.quantize.weights.scales import half
from edgepress.targets import Target
from edgepress.targets.releases import Release, release

IR_VERSION = 10
OPSETS = (13, NEWEST_OPSET)
"""Operator sets with per-channel int8 weights that onnxruntime 1.31 fuses, alike in every one of them."""

LARGEST_BIAS = 1 << 30
"""Largest ``|int32 bias|``: leaves room for the sum of products."""


def quantize(
    model: Model,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    settings: Quantization,
    target: Target,
) -> Model:
    """The int8 QDQ form of a normalized float model.

    Args:
        model: the float model (operator set within ``OPSETS``).
        ranges: range of every tensor of ``activations_to_observe``.
        rounded: int8 weights by node name; weighted nodes that are not in it stay float.
        settings: ``float_nodes`` stay float as well, with float weights; ``compute`` float keeps all arithmetic float.
        target: its rules (``stays_float``) keep some more nodes float. Their weights are stored as int8 all the
            same (a quarter of the bytes, float speed), as ``rounded`` has them if it does.

    Raises:
        ModelError: :func:`quantize_refusal` says why the model cannot have an int8 form.
        InvariantError: a tensor that needs a range has none.
    """
    problem = quantize_refusal(model)
    if problem is not None:
        raise ModelError(f"Int8: {problem.reason}: normalize the model first.")
    rewritten, weights, stored = _integer_weights(typed(model), rounded, settings, target)
    made = _written(
        rewritten.model,
        ranges,
        weights,
        rewritten.same,
        stored,
        target,
        release(settings.min_ort),
        settings.activation_bits,
    )
    return slim(made)


def written_grids(
    model: Model,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    settings: Quantization,
    target: Target,
) -> tuple[dict[str, Grid], dict[str, Rounded]]:
    """The grid of every activation and the weights of every node of a model, as :func:`quantize` writes them."""
    rewritten, weights, stored = _integer_weights(typed(model), rounded, settings, target)
    *_, made = _placed(rewritten.model, ranges, weights, rewritten.same, target, settings.activation_bits)
    tensors = {*model.inputs, *(name for node in model.nodes for name in node.outputs)}
    own = {name: item for name, item in {**weights, **stored}.items() if name not in rewritten.rounded}
    return {name: grid for name, grid in made.items() if name in tensors}, own


def _integer_weights(
    model: Model, rounded: Mapping[str, Rounded], settings: Quantization, target: Target
) -> tuple[Rewritten, dict[str, Rounded], dict[str, Rounded]]:
    """A typed model with its shortcuts rewritten, the weights of its int8 nodes, and those that are only stored."""
    target = target.unruled() if settings.whole else target
    everything = {unit.name for unit in units(model) if unit.role is Role.WEIGHTED}
    by_rule = everything if settings.compute == "float" else stays_float(model, target).keys()
    weighted = rounded.keys() - set(settings.float_nodes) - by_rule
    rewritten = as_convolutions(model, weighted)
    weights = {name: _scaled(model, rounded[name], name, target) for name in weighted} | dict(rewritten.rounded)
    stored = {
        unit.name: rounded.get(unit.name) or _round(model, unit, settings.weight_limit)
        for unit in units(model)
        if unit.role is Role.WEIGHTED and unit.name in by_rule and unit.name not in settings.float_nodes
    }
    return rewritten, weights, stored


def quantize_refusal(model: Model) -> Refusal | None:
    """Why a model cannot have an int8 form: another operator set, or no float32 weights to round; None if it can."""
    if not OPSETS[0] <= model.opset <= OPSETS[1]:
        return Refusal("int8", f"it needs operator set {OPSETS[0]} to {OPSETS[1]}, and the model has {model.opset}")
    if any(has_float32_weight(model, node) for node in model.nodes):
        return None
    weights = [node.inputs[1] for node in model.nodes if node.op in WEIGHTED and node.inputs[1] in model.constants]
    if weights:
        return Refusal("int8", f"only float32 weights are rounded, and those of the model are {_types(model, weights)}")
    return Refusal("int8", f"the model has no {' or '.join(WEIGHTED)} with a constant weight")


def _scaled(model: Model, item: Rounded, name: str, target: Target) -> Rounded:
    """The weights with one scale for all channels, where the target wants that of matrices."""
    if per_channel(model.node(name), target):
        return item
    return on_levels(item, np.full_like(item.scale, item.scale.max()))


def _types(model: Model, names: Sequence[str]) -> str:
    return " and ".join(sorted({model.types[name].dtype for name in names}))


def _round(model: Model, unit: Unit, limit: int) -> Rounded:
    axis = output_axis(unit.node.op, unit.node.attributes)
    return round_weights(model.constants[unit.node.inputs[1]], axis, limit)


def _written(
    model: Model,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    same: Mapping[str, str],
    stored: Mapping[str, Rounded],
    target: Target,
    runtime: Release,
    activation_bits: int,
) -> Model:
    proto = model.edit()
    proto.ir_version = max(proto.ir_version, IR_VERSION)
    del proto.graph.node[:]
    found, inside, made = _placed(model, ranges, rounded, same, target, activation_bits)
    writer = _Writer(model, proto, found, inside, {**rounded, **stored}, made, runtime)
    for node, original in zip(model.nodes, model.edit().graph.node, strict=True):
        writer.write(node.name, original)
    writer.finish()
    return Model.of(proto)


def _placed(
    model: Model,
    ranges: Mapping[str, Range],
    rounded: Mapping[str, Rounded],
    same: Mapping[str, str],
    target: Target,
    activation_bits: int,
) -> tuple[tuple[Unit, ...], Collection[str], dict[str, Grid]]:
    """The units of a typed model, which of them run in int8, and the grids of their activations."""
    infinite = [name for name, bound in ranges.items() if not bound.finite]
    found, inside = units(model, target), int8_units(model, rounded.keys(), infinite, target)
    return found, inside, grids(model, found, inside, ranges, same, fixed=target.fixed_grids, bits=activation_bits)


@dataclass
class _Writer:
    """Copies a graph node by node into ``proto``, with Q and DQ where they belong."""

    model: Model
    proto: onnx.ModelProto
    found: Sequence[Unit]
    inside: Collection[str]
    rounded: Mapping[str, Rounded]
    grids: Mapping[str, Grid]
    runtime: Release
    done: dict[str, str] = field(default_factory=dict)  # tensor -> its DQ output
    biases: dict[str, tuple[str, str]] = field(default_factory=dict)  # Add behind a MatMul -> its constant, its DQ

    def __post_init__(self) -> None:
        self.writer = Writer(self.proto)
        self.narrow = narrowest(self.model.opset, self.runtime)
        self.units = {unit.name: unit for unit in self.found}
        self.made = {tensor for unit in self.found if unit.name in self.inside for tensor in unit.outputs}

    def write(self, name: str, node: onnx.NodeProto) -> None:
        """Write one node of the model, given its original form."""
        unit = self.units.get(name)
        if unit is not None and name in self.inside:
            self._int8(unit, node)
        else:
            self._float(name, node)
        renamed = [self._raw(tensor) for tensor in node.output]
        node.output[:] = renamed
        self.proto.graph.node.append(node)

    def _float(self, name: str, node: onnx.NodeProto) -> None:
        for place, tensor in enumerate(node.input):
            if tensor in self.grids and tensor in self.made:
                reads_shape = node.op_type in READS_SHAPE
                node.input[place] = self._q(tensor) if reads_shape else self._dq(tensor)
        if name in self.biases:
            constant, whole = self.biases[name]
            node.input[:] = [whole if tensor == constant else tensor for tensor in node.input]
        if name in self.rounded:
            self._stored(name, node)

    def _int8(self, unit: Unit, node: onnx.NodeProto) -> None:
        read = (*operands(self.model, unit), *unit.constants)
        for place, tensor in enumerate(node.input):
            if tensor in read:
                node.input[place] = self._dq(tensor)
        if unit.role is Role.WEIGHTED:
            self._weights(unit, node)

    def _raw(self, tensor: str) -> str:
        """Name under which a tensor is made: a graph output made in int8 gets its own name behind the DQ only."""
        through = tensor in self.model.outputs and tensor in self.made and tensor in self.grids
        return f"{tensor}/raw" if through else tensor

    def _q(self, tensor: str) -> str:
        self._dq(tensor)
        return f"{tensor}/q"

    def _dq(self, tensor: str) -> str:
        if tensor not in self.done:
            grid, raw = self.grids[tensor], self._raw(tensor)
            self.done[tensor] = tensor if raw != tensor else f"{tensor}/dq"
            scale = self.writer.constant(f"{tensor}/scale", np.array(grid.scale, np.float32))
            # the zero point is said even where it is 0: data movement wants it
            zero = self.writer.constant(f"{tensor}/zero", np.array(grid.zero, grid.dtype))
            if tensor in self.model.constants:
                self.writer.constant(f"{tensor}/q", grid.whole(self.model.constants[tensor]))
            else:
                self.writer.node("QuantizeLinear", [raw, scale, zero], f"{tensor}/q")
            self.writer.node("DequantizeLinear", [f"{tensor}/q", scale, zero], self.done[tensor])
        return self.done[tensor]

    def finish(self) -> None:
        """Close the graph outputs that nothing else has read."""
        for tensor in self.model.outputs:
            if tensor in self.grids and tensor in self.made:
                self._dq(tensor)

    def _weights(self, unit: Unit, node: onnx.NodeProto) -> None:
        name, source = unit.name, self.rounded[unit.name]
        scale_in = self.grids[unit.node.inputs[0]].scale
        bias = _bias(self.model, unit, source)
        if bias is not None:
            if node.op_type == "MatMul" and not unit.added:
                raise InvariantError(f"MatMul {name!r} takes no bias: this is a bug, please report it.")
            source = _room_for_bias(source, bias, scale_in)
        values = int8_weight(self.writer, name, source, self.narrow)
        scale = _one(source.scale) if node.op_type in MATRICES else source.scale
        given = [values, float_vector(self.writer, f"{name}/ws", scale)]
        if node.op_type != "Conv":  # without its zero point a Gemm does not fuse (onnxruntime 1.31)
            given.append(self.writer.constant(f"{name}/wz", np.zeros(scale.shape, np.int8)))
        node.input[1] = self.writer.dequantized(given, f"{name}/wdq", source.axis if scale.ndim else None)
        if bias is not None and unit.added:
            (behind,) = self.model.consumers(unit.node.output)
            self.biases[behind.name] = unit.added, self._bias(unit, source, bias)
        elif bias is not None:
            node.input[2:] = [self._bias(unit, source, bias)]

    def _bias(self, unit: Unit, source: Rounded, bias: np.ndarray) -> str:
        """The bias of an int8 unit: int32 on the grid of the products; where the runtime rounds it itself, float16."""
        name, scale = unit.name, self.grids[unit.node.inputs[0]].scale
        if self.runtime.casts2 and unit.node.op == "Conv" and bias.size >= FEWEST_HALVES:
            return float_vector(self.writer, f"{name}/b", half(bias))
        own = _one(source.scale) if unit.node.op in MATRICES else source.scale
        step = (scale * own).astype(np.float32)
        whole = self.writer.constant(f"{name}/b", np.rint(bias / step.astype(np.float64)).astype(np.int32))
        if own.size >= FEWEST_HALVES:  # a product of two constants takes fewer bytes than its result
            steps = self.writer.node("Mul", [f"{name}/ws", f"{unit.node.inputs[0]}/scale"], f"{name}/bs")
        else:
            steps = self.writer.constant(f"{name}/bs", step)
        return self.writer.dequantized([whole, steps], f"{name}/bdq", 0 if own.ndim else None)

    def _stored(self, name: str, node: onnx.NodeProto) -> None:
        """Weights of a float node kept as int8; onnxruntime multiplies them out once, when it loads the file."""
        source = self.rounded[name]
        shape = [-1 if axis == source.axis else 1 for axis in range(source.values.ndim)]
        values = int8_weight(self.writer, name, source, self.narrow)
        scale = float_vector(self.writer, f"{name}/ws", source.scale.reshape(shape))
        cast = self.writer.node("Cast", [values], f"{name}/wf", to=onnx.TensorProto.FLOAT)
        node.input[1] = self.writer.node("Mul", [cast, scale], f"{name}/wdq")
        own = self.model.constants.get(node.input[2]) if len(node.input) > 2 else None
        bias = own if source.bias is None else source.bias
        if bias is not None and bias.size == source.scale.size:
            shape = list(bias.shape if own is None else own.shape)
            node.input[2:] = [float_vector(self.writer, f"{name}/b", half(bias.reshape(shape)))]


def _one(scale: np.ndarray) -> np.ndarray:
    """One scale for all channels as a single number: a Gemm runs faster with it; others as they are."""
    return scale[0].reshape(()) if (scale == scale[0]).all() else scale


def _bias(model: Model, unit: Unit, source: Rounded) -> np.ndarray | None:
    """The float64 bias ``[channels]`` of a weighted unit; None without."""
    inputs = unit.node.inputs
    constant = unit.added or (inputs[2] if len(inputs) > 2 else "")
    own = model.constants[constant] if constant else None
    found = source.bias if source.bias is not None else own
    if found is None:
        return None
    return np.array(np.broadcast_to(found.reshape(-1), source.scale.shape), dtype=np.float64)


def _room_for_bias(source: Rounded, bias: np.ndarray, scale_in: np.float32) -> Rounded:
    """Coarser weights, by a power of two, where int32 cannot hold a channel's bias otherwise (next to no weights)."""
    needed = np.abs(bias) / (float(scale_in) * LARGEST_BIAS * source.scale.astype(np.float64))
    if (needed <= 1).all():
        return source
    return on_levels(source, (source.scale * np.exp2(np.ceil(np.log2(np.maximum(needed, 1))))).astype(np.float32))
