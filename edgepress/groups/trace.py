"""Runs a model on labels: shapes with the batch bound to 1, then one rule per node, then the box rule.

The box rule is the one condition that makes cutting legal: in every tensor the positions that stay must
form a box (a product of index sets), because only boxes are tensors. Where labels vary along several axes,
everything at one index of the longest such axis is tied; repeated until nothing changes. Channel shuffle
and Flatten -> Gemm need no other code.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import shape_inference

from edgepress.errors import Refusal
from edgepress.model import Model, Node
from edgepress.ops.board import Board, Shape, Use
from edgepress.ops.couple import RULES
from edgepress.ops.labels import core, fill, thin, varying
from edgepress.ops.table import lookup


def trace_labels(model: Model, dimensions: Mapping[str, int]) -> Board | Refusal:
    """Labels of every tensor of ``model``; a Refusal when its shapes cannot be known.

    Args:
        model: a flat model (functions inlined, no initializer listed as input).
        dimensions: sizes of symbolic dimensions other than the batch.
    """
    shapes = _shapes(model, dimensions)
    if isinstance(shapes, Refusal):
        return shapes
    board = Board(model.constants, shapes, model.opset)
    for name in model.inputs:
        fixed = board.atoms.source(name, f"its channels join the graph input {name!r}", wall=False)
        board.write(name, fill(fixed, shapes.get(name, ())))
    for node in model.nodes:
        _visit(board, node)
    for name in model.outputs:
        if name in board.labels:
            reached = board.atoms.source(name, f"its channels reach the graph output {name!r}", wall=False)
            board.atoms.pin(board.labels[name], reached)
    _tie_shared(board, model)
    _box(board)
    return board


def _shapes(model: Model, dimensions: Mapping[str, int]) -> dict[str, Shape] | Refusal:
    """Static shapes of all tensors that have one, by strict shape inference on the bound graph."""
    proto = model.edit()
    del proto.graph.value_info[:]
    bound = dict(dimensions)
    for value in proto.graph.input:
        if value.name in model.inputs:
            refusal = _bind(value, bound)
            if refusal is not None:
                return refusal
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        proto = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        first = str(error).strip().splitlines()[0]
        return Refusal("model", f"its shapes cannot be inferred with a batch of 1 ({first})")
    found = {name: array.shape for name, array in model.constants.items()}
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            found[value.name] = tuple(d.dim_value for d in tensor.shape.dim)
    return found


def _bind(value: onnx.ValueInfoProto, bound: dict[str, int]) -> Refusal | None:
    """Give every dimension of a graph input a size: 1 for the batch, ``bound`` for other symbols."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return Refusal("model", f"the shape of its input {value.name!r} is not stated", "state it in the model")
    for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
        if dimension.HasField("dim_value"):
            continue
        symbol = dimension.dim_param
        if axis == 0 and symbol:
            bound.setdefault(symbol, 1)
        if axis and symbol not in bound:
            name = repr(symbol) if symbol else f"number {axis}"
            return Refusal("model", f"dimension {name} of its input {value.name!r} has no size", "fix it in the model")
        dimension.dim_value = bound.get(symbol, 1)
    return None


def _visit(board: Board, node: Node) -> None:
    """Apply the rule of one node, or make it a wall."""
    moving = [name for name in node.inputs if name in board.labels]
    row = lookup(node.op, node.domain, board.opset)
    if row is None or row.couple is None:
        known = f"unknown operator {node.op}" if not node.domain else f"unknown operator {node.domain}.{node.op}"
        _wall(board, node, moving, board.atoms.source(node.name, known, wall=True))
    elif not moving:  # computed from constants alone: nothing here has channels
        _wall(board, node, moving, board.atoms.source(node.name, "its channels join a computed constant", wall=False))
    elif any(name not in board.shapes for name in (*moving, *node.outputs) if name):
        source = board.atoms.source(node.name, "the shapes around it are not known", wall=True)
        behind = [int(core(board.labels[name]).ravel()[0]) for name in moving if name not in board.shapes]
        _wall(board, node, moving, behind[0] if behind and behind[0] < 0 else source)
    else:
        reason = RULES[row.couple](board, node)
        if reason is not None:
            _wall(board, node, moving, board.atoms.source(node.name, reason, wall=True))


def _wall(board: Board, node: Node, moving: list[str], source: int) -> None:
    """Nothing crosses this node: what enters is pinned, what leaves is fixed."""
    for name in moving:
        board.atoms.pin(board.labels[name], source)
    for name in filter(None, node.outputs):
        board.write(name, fill(source, board.shapes.get(name, ())))


def _tie_shared(board: Board, model: Model) -> None:
    """A constant read by several nodes must shrink alike for all of them, or not at all."""
    axes: dict[tuple[str, int], list[Use]] = {}
    for use in board.uses:
        axes.setdefault((use.tensor, use.axis), []).append(use)
    for (tensor, _), uses in axes.items():
        for other in uses[1:]:
            board.atoms.tie(uses[0].labels, other.labels)
        reads = {
            (node.name, slot) for node in model.consumers(tensor) for slot, x in enumerate(node.inputs) if x == tensor
        }
        left_out = sorted(reads - {(use.node, use.slot) for use in uses})
        if left_out or tensor in model.outputs:
            user = left_out[0][0] if left_out else "the graph output"
            shared = board.atoms.source(user, f"it shares the constant {tensor!r} and needs all of it", wall=True)
            board.atoms.pin(uses[0].labels, shared)


def _box(board: Board) -> None:
    """Tie labels until the removable positions of every tensor form a box."""
    wide = [labels for labels in board.labels.values() if len(varying(labels)) > 1]
    changed = True
    while changed:
        changed = False
        for labels in wide:
            found, live = core(board.atoms.find(labels)), core(board.atoms.live(labels))
            axes = varying(thin(live))
            if len(axes) > 1:
                longest = max(axes, key=lambda axis: (live.shape[axis], -axis))
                rows, alive = (x.swapaxes(0, longest).reshape(x.shape[longest], -1) for x in (found, live))
                rows = rows[alive.any(axis=1)]
                board.atoms.tie(rows[:, :1], rows)
                changed = True
