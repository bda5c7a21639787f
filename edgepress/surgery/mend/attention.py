"""Numbers of heads: attributes of the attention operators.

    Attention             q_num_heads, kv_num_heads    where its inputs are 3-D; 4-D inputs say it by their shape
    GroupQueryAttention   num_heads, kv_num_heads
    MultiHeadAttention    num_heads
    RotaryEmbedding       num_heads                    where it is given

The scale is by default that of the width of a head, which stays.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from edgepress.model import Model, Node
from edgepress.surgery.mend.mender import Mender
from edgepress.surgery.mend.survivors import Survivors


def _heads(mask: np.ndarray, heads: int) -> int:
    """Heads that are left of ``mask``, the places of all heads side by side."""
    return int(mask.reshape(heads, -1).any(axis=1).sum())


def _attention(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    for slot, name in ((0, "q_num_heads"), (1, "kv_num_heads")):
        if name in node.attributes:
            flat = len(left.shape(node.inputs[slot])) == 3
            mask = left.mask(node.inputs[slot], -1 if flat else 1)
            target.attrs[name] = _heads(mask, int(node.attributes[name]))


def _multi_head_attention(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    query = node.inputs[0]
    mask = left.mask(query, -1 if len(left.shape(query)) == 3 else 2)
    target.attrs["num_heads"] = _heads(mask, int(node.attributes["num_heads"]))


def _group_query_attention(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    queries, groups = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    mask = left.mask(node.inputs[0], -1)
    if len(node.inputs) > 1 and node.inputs[1]:
        key = left.mask(node.inputs[1], -1)
    else:  # q, k and v side by side
        width = len(mask) // (queries + 2 * groups)
        mask, key, _ = np.split(mask, [queries * width, (queries + groups) * width])
    target.attrs["num_heads"], target.attrs["kv_num_heads"] = _heads(mask, queries), _heads(key, groups)


def _rotary_embedding(model: Model, node: Node, target: gs.Node, left: Survivors) -> None:
    heads = int(node.attributes.get("num_heads", 0))
    if heads and len(left.shape(node.inputs[0])) == 3:
        target.attrs["num_heads"] = _heads(left.mask(node.inputs[0], -1), heads)


MENDERS: Mapping[str, Mender] = {
    "Attention": _attention,
    "MultiHeadAttention": _multi_head_attention,
    "GroupQueryAttention": _group_query_attention,
    "RotaryEmbedding": _rotary_embedding,
}
