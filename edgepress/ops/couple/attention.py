"""Label rules of the attention operators: whole heads are channels.

All of them are the two products of :mod:`edgepress.ops.couple.products`, over these letters::

    scores[b g n t s] = sum_d q[b g n t d] k[b g 1 s d]      g: key-value heads, n: query heads that share one
    output[b g n t e] = sum_s scores[b g n t s] v[b g 1 s e]

so a channel is a key-value head with its n query heads. Where key-value heads must stay (there is one, or they join a
cache that is a graph input or output), one query head of each may go. What the operators add: how heads are packed into
their inputs (``[B, T, H d]``, ``[B, H, T, d]``, or q, k and v side by side), masks and biases on the scores, caches and
rotation, which turns pairs of channels of a head and so ties them head by head.

Attention, RotaryEmbedding: ONNX operator sets 23 and later; MultiHeadAttention, GroupQueryAttention: com.microsoft.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.products import product
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, fill, varying

QUERY, KEY, SCORE, OUTPUT = "bgntd", "bgnsd", "bgnts", "bgnte"
VALUE = "bgnse"

MIXES = "it compares channels with each other"
PARTIAL = "attention needs keys and values of the same width, so channels of a head cannot go alone"


@dataclass(frozen=True, slots=True)
class Heads:
    """How many there are: ``groups`` key-value heads, each shared by ``each`` query heads."""

    groups: int
    each: int

    @property
    def queries(self) -> int:
        """Number of query heads."""
        return self.groups * self.each

    @classmethod
    def of(cls, queries: int, groups: int) -> Heads:
        """From the numbers of query and of key-value heads."""
        return cls(groups, queries // groups)


def attention(board: Board, node: NodeLike) -> str | None:
    """Attention of ONNX: 3-D inputs with head counts as attributes, or 4-D inputs."""
    if any(name not in board.labels for name in node.inputs[:3]):
        return "its queries, keys or values are constant"
    query, key, value = (board.labels[name] for name in node.inputs[:3])
    if query.ndim == 4:
        heads = Heads.of(query.shape[1], key.shape[1])
    else:
        heads = Heads.of(int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"]))
    each = (heads.each, 1, 1)
    parts = [
        _upright(x, n) if x.ndim == 4 else _split(x, heads.groups, n)
        for x, n in zip((query, key, value), each, strict=True)
    ]
    return _attend(board, node, heads, parts, mask=3, past=(4, 5), narrow=True)


def multi_head_attention(board: Board, node: NodeLike) -> str | None:
    """MultiHeadAttention of com.microsoft: one bias over q, k and v; keys and values may come in heads."""
    given = [node.inputs[slot] for slot in range(3) if board.given(node, slot)]
    if any(name not in board.labels for name in given):
        return "its queries, keys or values are constant"
    labels = [board.labels[name] for name in given]
    if len(labels) < 3 or any(x.ndim == 5 for x in labels):  # runs on GPUs only
        return "its queries, keys and values are packed into one tensor"
    heads = Heads(int(node.attributes["num_heads"]), 1)
    parts = [_split(x, heads.groups, 1) if x.ndim == 3 else _upright(x, 1) for x in labels]
    if board.given(node, 3):
        if board.constant(node, 3) is None:
            return "its bias is computed, not constant"
        lines = [_side_by_side(part)[0, 0] for part in parts]
        board.lay(node, 3, np.concatenate(lines), "along")
    return _attend(board, node, heads, parts, mask=5, past=(6, 7), narrow=True)


def group_query_attention(board: Board, node: NodeLike) -> str | None:
    """GroupQueryAttention of com.microsoft: q, k and v side by side where key and value are left out."""
    packed = not board.given(node, 1)
    if any(name not in board.labels for name in node.inputs[: 1 if packed else 3]):
        return "its queries, keys or values are constant"
    heads = Heads.of(int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"]))
    labels = [board.labels[name] for name in node.inputs[: 1 if packed else 3]]
    if packed:
        width = labels[0].shape[-1] // (heads.queries + 2 * heads.groups)
        ends = [heads.queries * width, (heads.queries + heads.groups) * width]
        labels = np.split(labels[0], ends, axis=-1)
    parts = [_split(x, heads.groups, n) for x, n in zip(labels, (heads.each, 1, 1), strict=True)]
    return _attend(board, node, heads, parts, mask=10, past=(3, 4), narrow=False)


def rotary_embedding(board: Board, node: NodeLike) -> str | None:
    """RotaryEmbedding of ONNX and of com.microsoft: channels of a head are turned in pairs."""
    labels = board.labels.get(node.inputs[0])
    if labels is None:
        return "it rotates a constant"
    if labels.ndim == 3:
        # left out by com.microsoft alone: then the caches, half as wide as a head, say how many there are
        heads = int(node.attributes.get("num_heads", 0)) or labels.shape[-1] // (2 * board.shapes[node.inputs[2]][-1])
        parts = _split(labels, heads, 1)
    else:
        heads = labels.shape[1]
        parts = _upright(labels, 1)
    kept = ties.together(board, parts, [-1])
    if kept is None or 4 in varying(kept):
        return "it turns channels in pairs"
    board.write(node.outputs[0], _packed(kept, board.shapes[node.outputs[0]]))
    return None


# --- how heads are packed ---------------------------------------------------------------------------------


def _split(labels: np.ndarray, groups: int, each: int) -> np.ndarray:
    """[B, T, groups each d] as [B, groups, each, T, d]."""
    batch, length, width = labels.shape
    inner = core(labels)
    inner = np.broadcast_to(inner, (*inner.shape[:2], width)).reshape(*inner.shape[:2], groups, each, -1)
    full = (batch, groups, each, length, width // (groups * each))
    return np.broadcast_to(inner.transpose(0, 2, 3, 1, 4), full)


def _upright(labels: np.ndarray, each: int) -> np.ndarray:
    """[B, groups each, T, d] as [B, groups, each, T, d]."""
    batch, heads, length, width = labels.shape
    inner = core(labels)
    inner = np.broadcast_to(inner, (inner.shape[0], heads, *inner.shape[2:]))
    inner = inner.reshape(inner.shape[0], heads // each, each, *inner.shape[2:])
    return np.broadcast_to(inner, (batch, heads // each, each, length, width))


def _side_by_side(parts: np.ndarray) -> np.ndarray:
    """[B, groups, each, T, d] as [B, T, groups each d], of length 1 where nothing varies over B and T."""
    inner = core(parts)
    inner = np.broadcast_to(inner, (inner.shape[0], *parts.shape[1:3], inner.shape[3], parts.shape[4]))
    return inner.transpose(0, 3, 1, 2, 4).reshape(inner.shape[0], inner.shape[3], -1)


def _packed(parts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[B, groups, each, T, d] in the layout of an output: [B, T, heads d] or [B, heads, T, d]."""
    if len(shape) == 3:
        return np.broadcast_to(_side_by_side(parts), shape)
    inner = core(parts)
    inner = np.broadcast_to(inner, (inner.shape[0], *parts.shape[1:3], *inner.shape[3:]))
    return np.broadcast_to(inner.reshape(inner.shape[0], -1, *inner.shape[3:]), shape)


# --- what they compute ------------------------------------------------------------------------------------


def _attend(
    board: Board,
    node: NodeLike,
    heads: Heads,
    parts: Sequence[np.ndarray],
    *,
    mask: int,
    past: tuple[int, int],
    narrow: bool,
) -> str | None:
    """Tie heads and write the outputs.

    Args:
        board: the analysis.
        node: the operator.
        heads: how many there are.
        parts: labels of queries, keys and values, [B, groups, each, T, d].
        mask: slot of what is added to the scores.
        past: slots of the caches.
        narrow: whether values may be narrower than keys.
    """
    query, *cached = parts
    for place, slot in enumerate(past):
        if board.given(node, slot):
            before = _upright(_labels(board, node, slot), 1)
            cached[place] = ties.respect(board, cached[place], [before])
    key, value = cached
    scores = product(board, node, [(query, QUERY), (key, KEY)], SCORE)
    scores = _over_keys(board, node, _masked(board, node, scores, mask))
    value = value if narrow else _whole(board, node, value)
    output = product(board, node, [(scores, SCORE), (value, VALUE)], OUTPUT)
    _sink(board, node, scores)
    for name, labels in zip(node.outputs, (output, key, value, scores), strict=False):
        if name:
            board.write(name, _packed(labels, board.shapes[name]))
    return None


def _whole(board: Board, node: NodeLike, value: np.ndarray) -> np.ndarray:
    """Values whose heads go whole or not at all."""
    kept = ties.together(board, value, [-1])
    if kept is None:
        return ties.hold(board, value, board.atoms.source(node.name, PARTIAL, wall=True))
    return kept


def _labels(board: Board, node: NodeLike, slot: int) -> np.ndarray:
    """Labels of an optional input; a constant is fixed."""
    name = node.inputs[slot]
    if name in board.labels:
        return board.labels[name]
    constant = board.atoms.source(node.name, "its channels join a constant", wall=False)
    return fill(constant, board.constants[name].shape)


def _masked(board: Board, node: NodeLike, scores: np.ndarray, slot: int) -> np.ndarray:
    """The labels of the scores with a mask or a bias added: one with an axis of heads goes along with them."""
    if not board.given(node, slot):
        return scores
    name = node.inputs[slot]
    if name in board.constants:
        board.lay(node, slot, _packed(scores, _flat(scores)), "along")
        return scores
    labels = board.labels[name][(None,) * (4 - len(board.shapes[name]))]
    added = labels[:, :, None] if labels.shape[1] == 1 else _upright(labels, scores.shape[2])
    return product(board, node, [(scores, SCORE), (added, SCORE)], SCORE)


def _flat(scores: np.ndarray) -> tuple[int, ...]:
    return (scores.shape[0], scores.shape[1] * scores.shape[2], *scores.shape[3:])


def _over_keys(board: Board, node: NodeLike, scores: np.ndarray) -> np.ndarray:
    """Softmax runs over the keys: nothing may be apart along them."""
    kept = ties.together(board, scores, [-1])
    if kept is None or 4 in varying(kept):
        return ties.hold(board, scores, board.atoms.source(node.name, MIXES, wall=True))
    return kept


def _sink(board: Board, node: NodeLike, scores: np.ndarray) -> None:
    """The sinks of GroupQueryAttention: one number per query head."""
    if node.op == "GroupQueryAttention" and board.constant(node, 11) is not None:
        board.lay(node, 11, _side_by_side(scores[..., :1])[0, 0], "along")


RULES: Mapping[str, Rule] = {
    "attention": attention,
    "multi_head_attention": multi_head_attention,
    "group_query_attention": group_query_attention,
    "rotary_embedding": rotary_embedding,
}
