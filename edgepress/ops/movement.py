"""The label rule of data movement: the operator itself, executed on labels by onnx's reference evaluator.

Reshape, Transpose, Concat, Split, Slice, Gather, Flatten, Expand, Tile, DepthToSpace and their like need no
rule of their own. Three cases are not plain movement: padding makes positions that belong to no channel, a
strided slice cannot be mended, and parameters that are computed at run time cannot be executed.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.labels import core, fill, thin, varying


def movement(board: Board, node: NodeLike) -> str | None:
    """Label rule; returns the reason if it cannot be applied."""
    data = range(len(node.inputs)) if node.op == "Concat" else range(1)
    parameters = [slot for slot in range(len(node.inputs)) if slot not in data and board.given(node, slot)]
    if any(board.constant(node, slot) is None for slot in parameters):
        return "how it moves data is computed, not constant"
    if node.op == "Concat":
        _run(board, node)
        return None
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it moves a constant"
    if node.op == "Pad":
        return _pad(board, node, labels)
    if node.op == "Slice" and varying(labels) and not _contiguous(board, node, labels):
        return "it takes every n-th channel"
    if varying(labels):
        _run(board, node)
        return None
    for name in filter(None, node.outputs):
        board.write(name, fill(int(core(labels).ravel()[0]), board.shapes[name]))
    return None


def _run(board: Board, node: NodeLike) -> None:
    """Run the operator on labels (activations) and values (parameters); a constant among the data is fixed."""
    feed = {}
    for name in filter(None, node.inputs):
        feed[name] = board.labels[name] if name in board.labels else board.constants[name]
        if node.op == "Concat" and name not in board.labels:
            feed[name] = fill(
                board.atoms.source(node.name, "it joins them with a constant", wall=True), feed[name].shape
            )
    integer = onnx.TensorProto.INT64
    graph = helper.make_graph(
        [helper.make_node(node.op, node.inputs, node.outputs, **node.attributes)],
        "movement",
        [helper.make_tensor_value_info(name, integer, None) for name in feed],
        [helper.make_tensor_value_info(name, integer, None) for name in node.outputs if name],
    )
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", board.opset)], ir_version=10)
    names = [name for name in node.outputs if name]
    for name, moved in zip(names, ReferenceEvaluator(one).run(None, feed), strict=True):
        board.write(name, thin(np.asarray(moved)))


def _contiguous(board: Board, node: NodeLike, labels: np.ndarray) -> bool:
    """Whether a Slice takes a plain range of every labelled axis."""
    starts, axes, steps = (board.constant(node, slot) for slot in (1, 3, 4))
    count = len(np.ravel(starts)) if starts is not None else 0
    chosen = range(count) if axes is None else np.ravel(axes).tolist()
    strides = [1] * count if steps is None else np.ravel(steps).tolist()
    return all(step == 1 for axis, step in zip(chosen, strides, strict=True) if axis % labels.ndim in varying(labels))


def _pad(board: Board, node: NodeLike, labels: np.ndarray) -> str | None:
    """Padding repeats a channel's label along other axes and is fixed along a labelled axis."""
    pads = np.asarray(board.constant(node, 1)).ravel().tolist()
    chosen = board.constant(node, 3)
    axes = list(range(labels.ndim)) if chosen is None else [int(axis) % labels.ndim for axis in chosen.ravel()]
    widths = [(0, 0)] * labels.ndim
    for place, axis in enumerate(axes):
        if axis in varying(labels):
            widths[axis] = (int(pads[place]), int(pads[place + len(axes)]))
    inner = core(labels)
    if any(side for pair in widths for side in pair):
        if node.attributes.get("mode", "constant") != "constant" or min(min(pair) for pair in widths) < 0:
            return "it pads channels with copies or cuts them off"
        padding = board.atoms.source(node.name, "padding on the channel axis", wall=True)
        inner = np.pad(inner, widths, constant_values=padding)
    board.write(node.outputs[0], np.broadcast_to(inner, board.shapes[node.outputs[0]]))
    return None
