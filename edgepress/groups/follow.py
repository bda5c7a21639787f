"""Tensors computed from shapes and constants alone: how they follow the channels they meet, and when they cannot.

The rules take such tensors for constants (their values are known at the bound sizes), so they too may note that an
axis of one shrinks. Nobody stores these tensors, so the note is handed back along the nodes that make them: through
elementwise operators and data movement to real constants, which shrink, and to ConstantOfShape and Expand, whose
targets surgery mends. What cannot hand it back keeps its channels.

A width may also enter a computation (x / Shape(x)[1]): then removing channels is not zeroing them. For every such
number that a layer reads, the widths it comes from are changed by one in turn; if the number changes, they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from edgepress.groups.bodies import read_inside
from edgepress.groups.values import evaluated
from edgepress.model import Model, Node
from edgepress.ops.board import Board, NodeLike, Use
from edgepress.ops.labels import spread, thin, varying
from edgepress.ops.table import lookup

Back = Callable[[Board, NodeLike, int], "list[tuple[int, int]] | None"]
"""``back(board, node, axis)``: the (input, axis) pairs that an axis of the output comes from; None: it cannot tell."""

MENDED: Mapping[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "ConstantOfShape": (0,),
    "Slice": (1, 2),
    "Split": (1,),
    "Resize": (3,),
}
"""Inputs that surgery mends also where they are computed (:mod:`edgepress.surgery.mend.computed`)."""


def hand_back(board: Board, model: Model) -> None:
    """Replace uses of computed tensors by uses of the constants they are made of."""
    pending: dict[str, list[Use]] = {}
    for use in board.uses:
        if use.tensor in board.values:
            pending.setdefault(use.tensor, []).append(use)
    board.uses[:] = [use for use in board.uses if use.tensor not in board.values]
    for node in reversed(model.nodes):
        for name in node.outputs:
            for use in pending.pop(name, ()):
                _hand_back(board, node, use, pending)


def _hand_back(board: Board, node: Node, use: Use, pending: dict[str, list[Use]]) -> None:
    moved = _sources(board, node, use.axis) if use.role == "along" else None
    held = board.labels.get(use.tensor)
    if moved is None or (held is not None and varying(held) not in ([], [use.axis])):
        reason = "it joins a tensor that is made at run time and cannot be narrowed"
        board.atoms.pin(use.labels, board.atoms.source(use.node, reason, wall=True))
        return
    labels = spread(use.labels, board.shapes[use.tensor], use.axis)
    if held is not None:
        board.atoms.tie(held, labels)
    board.write(use.tensor, labels if held is None else held)
    for slot, axis in moved:
        further = Use(node.inputs[slot], axis, use.labels, "along", node.name, slot)
        if further.tensor in board.values:
            pending.setdefault(further.tensor, []).append(further)
        else:
            board.uses.append(further)


def _sources(board: Board, node: Node, axis: int) -> list[tuple[int, int]] | None:
    row = lookup(node.op, node.domain, board.opset)
    if row is not None and row.couple == "elementwise":
        return _aligned(board, node, axis, range(len(node.inputs)))
    return _BACK[node.op](board, node, axis) if node.op in _BACK and not node.domain else None


def _aligned(board: Board, node: NodeLike, axis: int, slots: range) -> list[tuple[int, int]]:
    """Inputs broadcast against the output, where they are not one long there."""
    rank = len(board.shapes[node.outputs[0]])
    found = []
    for slot in slots:
        shape = board.shapes[node.inputs[slot]] if node.inputs[slot] else ()
        place = axis - (rank - len(shape))
        if place >= 0 and shape[place] > 1:
            found.append((slot, place))
    return found


def _gather(board: Board, node: NodeLike, axis: int) -> list[tuple[int, int]] | None:
    at = node.attributes.get("axis", 0) % len(board.shapes[node.inputs[0]])
    indices = len(board.shapes[node.inputs[1]])
    if at <= axis < at + indices:
        return None
    return [(0, axis if axis < at else axis - indices + 1)]


def _unchanged(board: Board, node: NodeLike, axis: int) -> list[tuple[int, int]] | None:
    before, after = board.shapes[node.inputs[0]], board.shapes[node.outputs[0]]
    return [(0, axis)] if before[axis] == after[axis] else None


def _transpose(board: Board, node: NodeLike, axis: int) -> list[tuple[int, int]]:
    rank = len(board.shapes[node.inputs[0]])
    order = node.attributes.get("perm") or tuple(reversed(range(rank)))
    return [(0, order[axis])]


def _ones(board: Board, node: NodeLike, axis: int) -> list[tuple[int, int]] | None:
    """Only axes of length 1 come or go: the others keep their order."""
    before, after = board.shapes[node.inputs[0]], board.shapes[node.outputs[0]]
    wide, now = ([place for place, n in enumerate(shape) if n > 1] for shape in (before, after))
    if [before[place] for place in wide] != [after[place] for place in now]:
        return None
    return [(0, wide[now.index(axis)])]


def _concat(board: Board, node: NodeLike, axis: int) -> list[tuple[int, int]] | None:
    at = node.attributes["axis"] % len(board.shapes[node.outputs[0]])
    return None if at == axis else [(slot, axis) for slot in range(len(node.inputs))]


_BACK: Mapping[str, Back] = {
    "ConstantOfShape": lambda board, node, axis: [],
    "Expand": lambda board, node, axis: _aligned(board, node, axis, range(1)),
    "Gather": _gather,
    "Slice": _unchanged,
    "Trilu": _unchanged,
    "Transpose": _transpose,
    "Unsqueeze": _ones,
    "Squeeze": _ones,
    "Reshape": _ones,
    "Concat": _concat,
}


def pin_widths(board: Board, model: Model) -> None:
    """Pin channels whose number enters a computation."""
    wanted = _read_numbers(board, model)
    if not wanted:
        return
    for node in model.nodes:
        if node.op not in ("Shape", "Size") or node.output not in board.values or node.inputs[0] not in board.labels:
            continue
        labels = thin(board.atoms.live(board.labels[node.inputs[0]]))
        for axis in varying(labels):
            if _enters(board, model, node, axis, wanted):
                reason = "its width enters a computation, so removing channels changes more than zeroing them"
                board.atoms.pin(labels, board.atoms.source(node.name, reason, wall=True))


def _read_numbers(board: Board, model: Model) -> set[str]:
    """Computed values that other nodes read as numbers, not as a target that surgery mends."""
    found = {name for name in model.outputs if name in board.values}
    for node in model.nodes:
        if not all(name in board.values for name in node.outputs if name):
            mended = MENDED.get(node.op, ())
            found.update(x for slot, x in enumerate(node.inputs) if x in board.values and slot not in mended)
            found.update(name for name in read_inside(node) if name in board.values)
    return found


def _enters(board: Board, model: Model, node: Node, axis: int, wanted: set[str]) -> bool:
    """Whether a number in ``wanted`` changes when this Shape node sees one channel less."""
    behind = list(_behind(board, model, node))
    shape = list(board.shapes[node.inputs[0]])
    shape[axis] -= 1
    shapes = {**board.shapes, node.inputs[0]: tuple(shape)}
    made = [node.output, *(name for other in behind for name in other.outputs if name)]
    changed: dict[str, np.ndarray] = {name: value for name, value in board.values.items() if name not in set(made)}
    for other in (node, *behind):
        changed.update(evaluated(other, changed, model.constants, shapes, board.opset) or {})
    return any(name in wanted and not (name in changed and _equal(changed[name], board.values[name])) for name in made)


def _behind(board: Board, model: Model, node: Node) -> Iterator[Node]:
    """Nodes of the shape program that depend on this one, other than by a target that surgery mends."""
    reached = set(node.outputs)
    for other in model.nodes:
        if not all(name in board.values for name in other.outputs if name):
            continue
        mended = MENDED.get(other.op, ())
        if any(name in reached for slot, name in enumerate(other.inputs) if slot not in mended):
            reached.update(other.outputs)
            yield other


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    return left.shape == right.shape and bool(np.array_equal(left, right, equal_nan=left.dtype.kind == "f"))
