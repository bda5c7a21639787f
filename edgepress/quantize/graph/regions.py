"""Which nodes run in int8: rules for the weighted ones, a minimum cut for everything between them.

Conv, Gemm and MatMul follow the rules of the target (``stays_float``). Every other operator that has an int8
kernel may run either way. Its place is the one that makes the traffic over the border smallest::

    cost = sum of elements of tensors quantized behind a float producer   (one Q each)
         + sum of elements of tensors dequantized for a float consumer    (one DQ each)
         + sum over int8 nodes of WEIGHT[role] * elements of the output   (measured kernel time, float = 0)

which is a minimum cut with int8 as the source side. A Relu or Clip behind its only producer vanishes into
the Q that follows, so the pair is one *unit*.

A target that wants everything quantized (``Target.whole``: accelerators) gets just that: every operator with an
int8 kernel, those of the record included, whatever it costs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import onnx

from edgepress.model import Model, Node
from edgepress.ops.row import Role
from edgepress.ops.table import lookup
from edgepress.ops.weighted import WEIGHTED
from edgepress.quantize.graph.added import ending
from edgepress.quantize.graph.mincut import INFINITE, Edge, source_side
from edgepress.targets import Target

# Time of an int8 kernel minus that of the float one, in units of a twentieth of a quantized element
# (QLinearAdd 1.2 x float, QLinearLeakyRelu 1.3 x float, data movement a quarter of the bytes).
WEIGHT = {Role.JOINED: 4, Role.MAPPED: 6, Role.ALIKE: -5, Role.POOLED: 0}
BORDER = 20
MATRICES = ("Gemm", "MatMul")
READS_SHAPE = ("Shape", "Size")
"""Operators that never look at the values: they read the uint8 tensor and cost nothing."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A node, and the Relu or Clip that vanishes into the Q behind it.

    Attributes:
        node: the main node.
        role: what it does in an int8 graph.
        fused: the Relu or Clip.
        constants: float constants that it reads as if they were activations: they carry QDQ too.
        closed: its result always carries a Q, whoever reads it.
        added: the constant that an Add behind its MatMul adds, which becomes the bias of a Gemm.
    """

    node: Node
    role: Role
    fused: Node | None = None
    constants: tuple[str, ...] = ()
    closed: bool = False
    added: str = ""

    @property
    def name(self) -> str:
        """Name of the main node."""
        return self.node.name

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the unit hands on."""
        return tuple(name for name in (self.fused or self.node).outputs if name)

    @property
    def hands_out_float(self) -> bool:
        """Whether its int8 kernel needs no Q behind it where only float nodes read the result."""
        return self.node.op in MATRICES and self.fused is None and not self.closed


def typed(model: Model) -> Model:
    """The model with the type of every tensor stated, inferred when the file does not say."""
    if all(name in model.types for node in model.nodes for name in node.outputs if name):
        return model
    return Model.of(onnx.shape_inference.infer_shapes(model.edit()))


def units(model: Model, target: Target | None = None) -> tuple[Unit, ...]:
    """The nodes of a typed model in graph order, Relu and Clip joined to their producer where that fuses.

    Args:
        model: a typed model.
        target: adds the int8 kernels of its record to those of the operator table, which every CPU has.
    """
    found: list[Unit] = []
    swallowed: set[str] = set()
    for node in model.nodes:
        if node.name in swallowed:
            continue
        role = _role(model, node)
        fused = _follower(model, node) if role in (Role.WEIGHTED, Role.JOINED, Role.POOLED) else None
        if fused is not None:
            swallowed.add(fused.name)
        unit = Unit(node, Role.FLOAT if role is Role.FUSED else role, fused)
        found.append(_closed(model, unit, target) if target is not None and target.whole else _ended(model, unit))
    return tuple(found)


def _ended(model: Model, unit: Unit) -> Unit:
    """A unit that knows what an Add behind its MatMul means."""
    if unit.role is not Role.WEIGHTED or unit.node.op != "MatMul" or unit.fused is not None:
        return unit
    how, constant = ending(model, unit.node)
    return replace(unit, closed=how == "apart", added=constant)


def _closed(model: Model, unit: Unit, target: Target) -> Unit:
    """A unit with the role that a target which quantizes everything has for it."""
    node = unit.node
    if unit.role is not Role.FLOAT:
        return replace(unit, closed=True)
    row = lookup(node.op, node.domain, model.opset)
    joined = row is not None and (row.role is Role.JOINED or node.op in target.joined)
    mapped = row is not None and node.op in target.mapped
    data = [name for name in node.inputs[: None if joined else 1] if name]
    tensors = (*data, *(name for name in node.outputs if name))
    given = tuple(name for name in data if name in model.constants)
    if not (joined or mapped) or len(given) == len(data) or not all(_is_float32(model, name) for name in tensors):
        return unit
    return replace(unit, role=Role.JOINED if joined else Role.MAPPED, constants=given, closed=True)


def operands(model: Model, unit: Unit) -> tuple[str, ...]:
    """The activation tensors a unit reads (each once); shapes, weights and other constants are left out."""
    inputs = unit.node.inputs if unit.role in (Role.JOINED, Role.FLOAT) else unit.node.inputs[:1]
    return tuple(dict.fromkeys(name for name in inputs if name and name not in model.constants))


def clip_bounds(model: Model, node: Node) -> tuple[float, float] | None:
    """Constant bounds of a Clip around zero; None when it cannot vanish into a Q."""
    values = [model.constants.get(name) for name in (*node.inputs[1:3], "", "")[:2]]
    if any(value is None or value.size != 1 for value in values):
        return None
    low, high = (float(value.reshape(())) for value in values if value is not None)
    return (low, high) if low <= 0 < high else None


def elements(model: Model, tensor: str) -> int:
    """Elements of a tensor for one sample; symbolic and unknown dimensions count as 1."""
    known = model.types.get(tensor)
    shape = known.shape if known is not None else None
    return math.prod(d for d in shape or () if isinstance(d, int))


def stays_float(model: Model, target: Target) -> dict[str, str]:
    """Weighted nodes that stay float by rule, with the reason (for the report)."""
    model = typed(model)
    rows = ((node, lookup(node.op, node.domain, model.opset)) for node in model.nodes)
    weighted = [node for node, row in rows if row is not None and row.role is Role.WEIGHTED]
    reasons = [(node.name, _float_reason(model, node, target)) for node in weighted]
    return {name: reason for name, reason in reasons if reason}


def per_channel(node: Node, target: Target) -> bool:
    """Whether the weights of a node may have one scale per output channel."""
    return node.op not in MATRICES or target.per_channel_matrices


def int8_units(
    model: Model, weighted: Collection[str], infinite: Collection[str] = (), target: Target | None = None
) -> frozenset[str]:
    """Names of the units that run in int8 when the weighted nodes ``weighted`` do.

    Args:
        model: a typed model.
        weighted: names of Conv, Gemm and MatMul nodes that have int8 weights.
        infinite: tensors that cannot carry a Q; the units they touch stay float.
        target: one that wants everything quantized gets all it can have.
    """
    found = units(model, target)
    masked = {unit.name for unit in found if not {*operands(model, unit), *unit.outputs}.isdisjoint(infinite)}
    if target is not None and target.whole:
        able = (unit for unit in found if unit.role is not Role.FLOAT and unit.name not in masked)
        return frozenset(unit.name for unit in able if unit.role is not Role.WEIGHTED or unit.name in weighted)
    edges = [*_edges(model, found, weighted), *((("unit", name), ("float",), INFINITE) for name in masked)]
    side = source_side(edges, ("int8",), ("float",))
    return frozenset(unit.name for unit in found if ("unit", unit.name) in side)


def _edges(model: Model, found: tuple[Unit, ...], weighted: Collection[str]) -> Iterator[Edge]:
    readers: dict[str, list[Unit]] = {}
    for unit in found:
        yield from _unit_edges(model, unit, weighted)
        for name in operands(model, unit):
            readers.setdefault(name, []).append(unit)
    for unit in found:
        for name in unit.outputs:
            yield from _tensor_edges(model, name, ("unit", unit.name), readers.get(name, []), unit.hands_out_float)
    for name in model.inputs:
        yield from _tensor_edges(model, name, ("float",), readers.get(name, []), True)


def _unit_edges(model: Model, unit: Unit, weighted: Collection[str]) -> Iterator[Edge]:
    key, weight = ("unit", unit.name), WEIGHT.get(unit.role)
    if unit.role is Role.WEIGHTED and unit.name in weighted:
        yield ("int8",), key, INFINITE
    elif weight is None:
        yield key, ("float",), INFINITE
    else:
        amount = abs(weight) * elements(model, unit.outputs[0])
        yield (("int8",), key, amount) if weight < 0 else (key, ("float",), amount)
    if unit.role is Role.POOLED:  # the int8 pooling kernel is slow unless an int8 unit hands it channels last
        yield key, ("made by", unit.node.inputs[0]), INFINITE


def _tensor_edges(
    model: Model, tensor: str, producer: tuple[str, ...], readers: list[Unit], free: bool
) -> Iterator[Edge]:
    """One Q if an int8 unit reads a float tensor; one DQ if a float unit reads an int8 one."""
    cost = BORDER * elements(model, tensor)
    yield ("made by", tensor), producer, INFINITE
    yield ("Q", tensor), producer, cost
    for unit in readers:
        yield ("unit", unit.name), ("Q", tensor), INFINITE
    if free:
        return
    yield producer, ("DQ", tensor), cost
    for unit in readers:
        if unit.node.op not in READS_SHAPE:
            yield ("DQ", tensor), ("unit", unit.name), INFINITE
    if tensor in model.outputs:
        yield ("DQ", tensor), ("float",), INFINITE


def _role(model: Model, node: Node) -> Role:
    """The table's role, FLOAT where this node is not of the kind that the int8 kernels take."""
    row = lookup(node.op, node.domain, model.opset)
    if row is None or row.role is Role.FLOAT:
        return Role.FLOAT
    if node.inputs[0] in model.constants or not _is_float32(model, node.inputs[0]):
        return Role.FLOAT
    if any(not _is_float32(model, name) for name in node.outputs if name):
        return Role.FLOAT
    if row.role is Role.JOINED and any(name in model.constants for name in node.inputs):
        return Role.FLOAT
    if row.role is Role.WEIGHTED and not _has_constant_weight(model, node):
        return Role.FLOAT
    return row.role


def _is_float32(model: Model, tensor: str) -> bool:
    known = model.types.get(tensor)
    return known is not None and known.dtype == "float32"


def has_float32_weight(model: Model, node: Node) -> bool:
    """Whether a node multiplies by a float32 constant: weights of other types are not rounded."""
    return node.op in WEIGHTED and node.inputs[1] in model.constants and _is_float32(model, node.inputs[1])


def _has_constant_weight(model: Model, node: Node) -> bool:
    constants = [name for name in node.inputs[1:] if name]
    if node.inputs[0] in model.constants or any(name not in model.constants for name in constants):
        return False
    return node.op != "MatMul" or model.constants[node.inputs[1]].ndim == 2


def _follower(model: Model, node: Node) -> Node | None:
    """The Relu or Clip that is the only reader of a node's only output and can vanish into a Q."""
    readers = model.consumers(node.output)
    if len(node.outputs) != 1 or len(readers) != 1 or node.output in model.outputs:
        return None
    after = readers[0]
    if after.op == "Relu" and _role(model, after) is Role.FUSED:
        return after
    return after if after.op == "Clip" and clip_bounds(model, after) else None


def _float_reason(model: Model, node: Node, target: Target) -> str:
    if not _has_constant_weight(model, node):
        return "its weights or bias are computed, not constant"
    if not _is_float32(model, node.inputs[1]) or not _is_float32(model, node.inputs[0]):
        return "it does not compute in float32"
    return _conv_reason(model, node, target) if node.op == "Conv" else _gemm_reason(model, node, target)


def _conv_reason(model: Model, node: Node, target: Target) -> str:
    weight, groups = model.constants[node.inputs[1]], int(node.attributes.get("group", 1))
    channels = weight.shape[1] * groups
    if node.inputs[0] in model.inputs and channels % target.stem_multiple:
        return f"it reads the input, whose {channels} channel(s) are no multiple of {target.stem_multiple}"
    if 1 < groups < channels and weight.shape[1] < target.group_floor:
        return f"{weight.shape[1]} channels per group are slower in int8"
    return ""


def _gemm_reason(model: Model, node: Node, target: Target) -> str:
    weight, given = model.constants[node.inputs[1]], node.attributes
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
        return "it scales or transposes its input"
    width = weight.shape[0] if given.get("transB", 0) else weight.shape[1]
    if len(node.inputs) > 2 and node.inputs[2] and model.constants[node.inputs[2]].size not in (1, width):
        return "its bias differs between rows"
    work = weight.size * elements(model, node.inputs[0]) // max(weight.size // width, 1)
    if work < target.gemm_floor:
        return f"{work} multiply-adds a call are faster in float"
    return ""
