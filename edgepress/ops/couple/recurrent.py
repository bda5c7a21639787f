"""Label rule of LSTM, GRU and RNN: a hidden unit goes with all its gates, in every direction at once.

    W [D, gates*H, I]   input features are contracted, all gates of unit j are its outputs
    R [D, gates*H, H]   unit j is read by its last axis and made by all gates of its middle one
    B [D, 2*gates*H], P [D, 3*H], initial states [D, B, H], outputs [.., H]   go along

``hidden_size`` is one number for both directions, so unit j of both is one channel. Zeroing what reads unit j
(the columns of R and of the next layers) leaves it running for nobody: removing it is the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import spread

GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3, "RNN": 1}

INPUT, RECURRENCE, BIAS, PEEPHOLE = 1, 2, 3, 7
STATES = (5, 6)


def recurrent(board: Board, node: NodeLike) -> str | None:
    """Input features are consumed, hidden units are made and read again."""
    recurrence = board.constant(node, RECURRENCE)
    weights = [slot for slot in (INPUT, RECURRENCE, BIAS, PEEPHOLE) if board.given(node, slot)]
    if recurrence is None or any(board.constant(node, slot) is None for slot in weights):
        return "its weights are computed, not constant"
    if node.inputs[0] not in board.labels:
        return "what it reads at every step is constant"
    ties.settle_copies(board, node, node.inputs[0], [2])
    gates = GATES[node.op]
    board.use(node, INPUT, 2, board.channels(node.inputs[0], 2), "in")
    hidden = board.atoms.fresh(recurrence.shape[2])
    board.use(node, RECURRENCE, 2, hidden, "in")
    for slot in (INPUT, RECURRENCE):
        board.use(node, slot, 1, np.tile(hidden, gates), "out")
    for slot, copies in ((BIAS, 2 * gates), (PEEPHOLE, 3)):
        if board.given(node, slot):
            board.use(node, slot, 1, np.tile(hidden, copies), "along")
    for slot in STATES:
        _start(board, node, slot, hidden)
    for name in filter(None, node.outputs):
        shape = board.shapes[name]
        board.write(name, spread(hidden, shape, len(shape) - 1))
    return None


def _start(board: Board, node: NodeLike, slot: int, hidden: np.ndarray) -> None:
    """What a recurrence starts from has the same units: a constant goes along, a computed state is tied."""
    if board.constant(node, slot) is not None:
        board.use(node, slot, 2, hidden, "along")
    elif board.given(node, slot) and node.inputs[slot] in board.labels:
        board.atoms.tie(board.channels(node.inputs[slot], 2), hidden)


RULES: dict[str, Rule] = {"recurrent": recurrent}
