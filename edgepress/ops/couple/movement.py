"""The label rule of data movement: the operator itself, executed on labels by onnx's reference evaluator.

Reshape, Transpose, Split, Slice, Gather, Flatten, Tile, DepthToSpace and their like need no rule of their own.
The cases that are not plain movement are here:

    Concat   done on what varies only, because its inputs are often many and large
    Pad      padding along a labelled axis makes positions that belong to no channel
    Slice    with step s: s neighbours go together, so that the step still meets the channels it met; a slice that
             starts within the first s (every other channel, from the second on) counts from the first channel on
    Expand   one position that is fixed, spread over many: each copy may go with what it is joined with
    Trilu    a mask: fine over axes without labels
    DepthToSpace, SpaceToDepth    pixels stay: what becomes pixels of one channel, or was, goes together

Parameters are constants, or values that depend on shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, fill, spread, thin, varying

AMONG = "it picks positions on an axis where channels lie beside a length that is not fixed"


def movement(board: Board, node: NodeLike) -> str | None:
    """Label rule; returns the reason if it cannot be applied."""
    if node.op == "Concat":
        _concat(board, node)
        return None
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it moves a constant"
    if any(board.given(node, slot) and board.known(node, slot) is None for slot in range(1, len(node.inputs))):
        return "how it moves data is computed, not constant"
    special: Mapping[str, Callable[[Board, NodeLike, np.ndarray], str | None]] = {
        "Pad": _pad,
        "Trilu": _triangle,
        "Slice": _slice,
        "Expand": _expand,
        "DepthToSpace": _into_space,
        "SpaceToDepth": _from_space,
    }
    return special.get(node.op, _run)(board, node, labels)


def _run(board: Board, node: NodeLike, labels: np.ndarray) -> None:
    """Run the operator on labels; where they do not vary there is nothing to move."""
    names = [name for name in node.outputs if name]
    if not varying(labels):
        for name in names:
            board.write(name, fill(int(core(labels).ravel()[0]), board.shapes[name]))
        return
    slots = [f"{slot}" if board.given(node, slot) else "" for slot in range(len(node.inputs))]
    feed = {name: np.asarray(board.known(node, slot)) for slot, name in enumerate(slots) if slot and name}
    feed["0"] = labels
    moving = helper.make_node(node.op, slots, names, **node.attributes)
    entering = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in feed]
    leaving = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in names]
    one = helper.make_model(
        helper.make_graph([moving], "movement", entering, leaving),
        opset_imports=[helper.make_opsetid("", board.opset)],
        ir_version=10,
    )
    for name, moved in zip(names, ReferenceEvaluator(one).run(None, feed), strict=True):
        board.write(name, thin(np.asarray(moved)))


def _concat(board: Board, node: NodeLike) -> None:
    """Join labels along one axis; a constant among them goes along, or is fixed where channels lie along that axis."""
    shape = board.shapes[node.outputs[0]]
    axis = int(node.attributes["axis"]) % len(shape)
    parts = _beside(board, node, axis)
    inner = [core(part) for part in parts]
    others = list(np.broadcast_shapes(*(part.take([0], axis).shape for part in inner)))
    whole = [
        np.broadcast_to(part, [*others[:axis], given.shape[axis], *others[axis + 1 :]])
        for part, given in zip(inner, parts, strict=True)
    ]
    board.write(node.outputs[0], np.broadcast_to(core(thin(np.concatenate(whole, axis))), shape))


def _beside(board: Board, node: NodeLike, axis: int) -> list[np.ndarray]:
    """The labels of the inputs; those of a constant are those of the channels beside it (a class token).

    Where a constant lies along the axis of the channels (zeros that a recurrence starts from), each of its positions
    may go with what it is joined with.
    """
    moving = [board.labels[name] for name in node.inputs if name in board.labels]
    across = next((labels for labels in moving if varying(labels)), moving[0])
    along = not any(axis in varying(labels) for labels in moving) and bool(varying(across))
    parts = []
    for slot, name in enumerate(node.inputs):
        if name in board.labels:
            parts.append(board.labels[name])
        elif along:
            parts.append(np.broadcast_to(core(across).take([0], axis), board.constants[name].shape))
            board.lay(node, slot, parts[-1], "along")
        else:
            shape = board.shapes[name]
            fresh = board.atoms.fresh(shape[axis])
            board.copies.append(fresh)
            board.use(node, slot, axis, fresh, "along")
            parts.append(spread(fresh, shape, axis))
    return parts


def _expand(board: Board, node: NodeLike, labels: np.ndarray) -> None:
    """Copies of one fixed position along one axis are free; everything else is moved as it is."""
    shape = board.shapes[node.outputs[0]]
    before = (1,) * (len(shape) - labels.ndim) + labels.shape
    grown = [axis for axis, (old, new) in enumerate(zip(before, shape, strict=True)) if old != new]
    if varying(labels) or len(grown) != 1:
        _run(board, node, labels)
        return
    board.atoms.pin(labels, board.atoms.source(node.name, "it spreads one channel over many", wall=True))
    fresh = board.atoms.fresh(shape[grown[0]])
    board.copies.append(fresh)
    board.write(node.outputs[0], spread(fresh, shape, grown[0]))


def _triangle(board: Board, node: NodeLike, labels: np.ndarray) -> str | None:
    if set(varying(labels)) & {labels.ndim - 1, labels.ndim - 2}:
        return "which channels it masks depends on their number"
    board.write(node.outputs[0], labels)
    return None


def _slice(board: Board, node: NodeLike, labels: np.ndarray) -> str | None:
    """Neighbours that one step passes over go together; slices that take turns (every other one) share them."""
    ranges = _ranges(board, node, labels.shape)
    if any(among_free_lengths(board, node, axis) for axis in ranges):
        return AMONG
    for axis, (start, stop, step) in ranges.items():
        if axis in varying(labels):
            first = 0 if 0 <= start < step else start
            passed = np.arange(first, stop, 1 if step > 0 else -1)
            rows = np.moveaxis(core(labels), axis, 0)[passed]
            places = np.arange(len(passed))
            board.atoms.tie(rows[places // abs(step) * abs(step)], rows)
    _run(board, node, labels)
    return None


def among_free_lengths(board: Board, node: NodeLike, axis: int) -> bool:
    """Whether an axis of the data holds channels and its length is not stated."""
    return (node.inputs[0], axis) in board.free and axis in varying(board.labels[node.inputs[0]])


def _ranges(board: Board, node: NodeLike, shape: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Per sliced axis (start, stop, step) as Python's ``range`` takes them."""
    starts = _numbers(board, node, 1, "starts", ())
    ends = _numbers(board, node, 2, "ends", ())
    axes = _numbers(board, node, 3, "axes", range(len(starts)))
    steps = _numbers(board, node, 4, "steps", [1] * len(starts))
    return {
        axis % len(shape): slice(start, end, step).indices(shape[axis])
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }


def _numbers(board: Board, node: NodeLike, slot: int, attribute: str, default: Sequence[int]) -> Sequence[int]:
    """A parameter: an input, or an attribute in old operator sets."""
    values = board.known(node, slot) if board.given(node, slot) else None
    return [int(n) for n in (node.attributes.get(attribute, default) if values is None else values.ravel())]


def _pad(board: Board, node: NodeLike, labels: np.ndarray) -> str | None:
    """Padding repeats a channel's label along other axes and is fixed along a labelled axis."""
    pads = _numbers(board, node, 1, "pads", ())
    axes = [axis % labels.ndim for axis in _numbers(board, node, 3, "axes", range(labels.ndim))]
    widths = [(0, 0)] * labels.ndim
    for place, axis in enumerate(axes):
        if axis in varying(labels):
            widths[axis] = (pads[place], pads[place + len(axes)])
    inner = core(labels)
    if any(side for pair in widths for side in pair):
        if node.attributes.get("mode", "constant") != "constant" or min(min(pair) for pair in widths) < 0:
            return "it pads channels with copies or cuts them off"
        padding = board.atoms.source(node.name, "padding on the channel axis", wall=True)
        inner = np.pad(inner, widths, constant_values=padding)
    board.write(node.outputs[0], np.broadcast_to(inner, board.shapes[node.outputs[0]]))
    return None


def _into_space(board: Board, node: NodeLike, labels: np.ndarray) -> None:
    """The pixels that neighbouring channels become are no channels: a block of them goes whole."""
    _run(board, node, labels)
    board.channels(node.outputs[0], 1)


def _from_space(board: Board, node: NodeLike, labels: np.ndarray) -> None:
    """The other way round."""
    board.channels(node.inputs[0], 1)
    _run(board, node, labels)


RULES: dict[str, Rule] = {"movement": movement}
