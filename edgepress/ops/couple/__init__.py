"""How channels couple through each kind of operator: one label rule per kind, found by a row's ``couple`` name.

A rule reads the labels of a node's inputs from the board (:mod:`edgepress.ops.board`), ties what must live
and die together, notes every axis of every constant that shrinks with the channels (``Use``) and writes the
labels of the outputs. A rule that cannot do so changes nothing and returns the reason: the node becomes a wall.

    conv, gemm           consume labels along the contracted axis, make fresh ones along the other
    matmul, einsum       the same with a constant; of two computed tensors whole heads are left
    attention            whole heads, whichever operator computes it
    recurrent            a hidden unit with all its gates, in every direction
    normalization        carries labels along axis 1, with its constants; group normalization in whole blocks
    layer_normalization  a wall for what it normalizes over, with the reason
    elementwise          ties what it joins; constants that vary along a labelled axis go along
    pooling              keeps axis 1, forgets the rest
    resampling           keeps axes that keep their size
    reduction, mixing    harmless over axes without labels, a wall along labelled ones
    movement             is EXECUTED on the labels by onnx's reference evaluator: no rule per operator
    gather               the same; a table that is looked up makes a channel per column

What the rules promise: removing a channel everywhere equals zeroing the weights that consume it.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgepress.ops.couple import (
    attention,
    carry,
    contract,
    elementwise,
    layers,
    lookup,
    movement,
    products,
    recurrent,
    reduce,
    shapes,
)
from edgepress.ops.couple.rule import Rule
from edgepress.ops.row import Op

RULES: Mapping[str, Rule] = {
    **contract.RULES,
    **carry.RULES,
    **elementwise.RULES,
    **reduce.RULES,
    **recurrent.RULES,
    **movement.RULES,
    **shapes.RULES,
    **products.RULES,
    **attention.RULES,
    **layers.RULES,
    **lookup.RULES,
}
"""Every name a row of the operator table may give as ``couple``."""


def rule_of(row: Op) -> Rule | None:
    """The label rule of a row; None when channels stop there."""
    return RULES.get(row.couple) if isinstance(row.couple, str) else row.couple


__all__ = ["RULES", "Rule", "rule_of"]
