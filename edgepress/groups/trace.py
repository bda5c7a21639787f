"""Runs a model on labels: shapes at bound sizes, then one rule per node, then the box rule.

The box rule is the one condition that makes cutting legal: in every tensor the positions that stay must
form a box (a product of index sets), because only boxes are tensors. Where labels vary along several axes,
everything at one index of the longest such axis is tied; repeated until nothing changes. Channel shuffle
and Flatten -> Gemm need no other code.

Tensors that depend on shapes alone have no channels; the rules take them for constants
(:mod:`edgepress.groups.follow`). Bodies of If, Loop and Scan are walls: what they read from outside stays whole.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgepress.errors import Refusal
from edgepress.groups.binding import takes_away_ones
from edgepress.groups.bodies import CONTROL_FLOW, read_inside
from edgepress.groups.follow import hand_back, pin_widths
from edgepress.groups.shapes import Bound, bind
from edgepress.groups.values import LAYERS, Joined
from edgepress.model import Model, Node
from edgepress.ops.board import Board, Use
from edgepress.ops.couple import rule_of
from edgepress.ops.labels import core, fill, thin, varying
from edgepress.ops.table import lookup


def trace_labels(model: Model, dimensions: Mapping[str, int]) -> tuple[Board, Bound] | Refusal:
    """Labels of every tensor of ``model``, and what it was bound to; a Refusal when its shapes cannot be known.

    Args:
        model: a flat model (functions inlined, no initializer listed as input).
        dimensions: sizes of symbolic dimensions (:mod:`edgepress.groups.binding` says how they are called).
    """
    bound = bind(model, dimensions)
    if isinstance(bound, Refusal):
        return bound
    board = Board(Joined(bound.values, model.constants), bound.shapes, model.opset, bound.values, _free(model))
    for name in model.inputs:
        fixed = board.atoms.source(name, f"its channels join the graph input {name!r}", wall=False)
        board.write(name, fill(fixed, board.shapes.get(name, ())))
    for node in model.nodes:
        if not all(name in board.values for name in node.outputs if name):
            _visit(board, node, symbolic=bool(bound.sizes))
    for name in model.outputs:
        if name in board.labels:
            reached = board.atoms.source(name, f"its channels reach the graph output {name!r}", wall=False)
            board.atoms.pin(board.labels[name], reached)
    _box(board)
    board.settle()
    hand_back(board, model)
    _tie_shared(board, model)
    _box(board)
    pin_widths(board, model)
    return board, bound


def _free(model: Model) -> frozenset[tuple[str, int]]:
    """Axes whose length is a symbol or not stated."""
    shapes = ((name, known.shape or ()) for name, known in model.types.items())
    return frozenset((name, axis) for name, shape in shapes for axis, n in enumerate(shape) if not isinstance(n, int))


def _visit(board: Board, node: Node, *, symbolic: bool) -> None:
    """Apply the rule of one node, or make it a wall."""
    if node.op in LAYERS:
        _enter(board, node)
    moving = [name for name in (*node.inputs, *read_inside(node)) if name in board.labels]
    row = lookup(node.op, node.domain, board.opset)
    rule = None if row is None else rule_of(row)
    if rule is None:
        _wall(board, node, moving, board.atoms.source(node.name, _unknown(node), wall=True))
    elif not moving:  # computed from constants alone: nothing here has channels
        _wall(board, node, moving, board.atoms.source(node.name, "its channels join a computed constant", wall=False))
    elif any(name not in board.shapes for name in (*moving, *node.outputs) if name):
        source = board.atoms.source(node.name, "the shapes around it are not known", wall=True)
        behind = [int(core(board.labels[name]).ravel()[0]) for name in moving if name not in board.shapes]
        _wall(board, node, moving, behind[0] if behind and behind[0] < 0 else source)
    else:
        reason = _untouchable(board, node, symbolic) or rule(board, node)
        if reason is not None:
            _wall(board, node, moving, board.atoms.source(node.name, reason, wall=True))


def _enter(board: Board, node: Node) -> None:
    """A layer that reads a computed constant alone takes it for an input: it makes channels all the same."""
    known = [name for name in node.inputs if name in board.values]
    if known and not any(name in board.labels for name in node.inputs):
        for name in known:
            fixed = board.atoms.source(node.name, "its channels join a computed constant", wall=False)
            board.write(name, fill(fixed, board.shapes[name]))


def _unknown(node: Node) -> str:
    """Why nothing is known about an operator."""
    if node.op in CONTROL_FLOW:
        return f"control flow ({node.op}), whose bodies are left alone"
    return f"unknown operator {node.domain}.{node.op}" if node.domain else f"unknown operator {node.op}"


def _untouchable(board: Board, node: Node, symbolic: bool) -> str | None:
    """Two things no rule sees: that sizes of 1 are so by chance, and that positions are computed, not constant."""
    if symbolic and takes_away_ones(node):
        return "it takes away whichever axes are 1" if 1 in board.shapes[node.inputs[0]] else None
    if node.op == "Gather" and node.inputs[1] in board.values and node.inputs[0] in board.labels:
        labels = board.labels[node.inputs[0]]
        if node.attributes.get("axis", 0) % labels.ndim in varying(labels):
            return "it picks channels by computed positions"
    return None


def _wall(board: Board, node: Node, moving: list[str], source: int) -> None:
    """Nothing crosses this node: what enters is pinned, what leaves is fixed."""
    for name in moving:
        board.atoms.pin(board.labels[name], source)
    for name in filter(None, node.outputs):
        board.write(name, fill(source, board.shapes.get(name, ())))


def _tie_shared(board: Board, model: Model) -> None:
    """A constant read by several nodes must shrink alike for all of them, or not at all."""
    inside = {name: node.name for node in model.nodes for name in read_inside(node)}
    axes: dict[tuple[str, int], list[Use]] = {}
    for use in board.uses:
        axes.setdefault((use.tensor, use.axis), []).append(use)
    for (tensor, _), uses in axes.items():
        for other in uses[1:]:
            board.atoms.tie(uses[0].labels, other.labels)
        reads = {
            (node.name, slot) for node in model.consumers(tensor) for slot, x in enumerate(node.inputs) if x == tensor
        }
        left_out = [name for name, _ in sorted(reads - {(use.node, use.slot) for use in uses})]
        left_out += [inside[tensor]] if tensor in inside else []
        if left_out or tensor in model.outputs:
            user = left_out[0] if left_out else "the graph output"
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
