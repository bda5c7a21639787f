"""What every label rule does with channels, in one plain sentence: what ``explain`` and the documentation say."""

from __future__ import annotations

from collections.abc import Mapping

from edgepress.ops.row import Op

SHARED_HEADS = (
    "A key-value head goes as a whole, with all its query heads; where key-value heads must stay, one query head of "
    "each may go."
)

SENTENCES: Mapping[str, str] = {
    "conv": (
        "It sums over the channels that enter and makes new ones, so its weights shrink on both sides; a depthwise one "
        "carries every channel along; the blocks of a grouped one lose the same places, or whole blocks go."
    ),
    "conv_transpose": (
        "It sums over the channels that enter and makes new ones, so its weights shrink on both sides; the blocks of a "
        "grouped one lose the same places, or whole blocks go."
    ),
    "gemm": "It sums over the columns that enter and makes new ones, so its matrix shrinks on both sides.",
    "matmul": (
        "With a constant matrix it sums over the channels that enter and makes new ones; of two computed tensors "
        "(attention) it ties what is summed over and hands the other axes on."
    ),
    "einsum": "The letters of its equation say it all: letters that are summed over tie, the others are handed on.",
    "recurrent": "A hidden unit goes with all its gates and its columns of the recurrent weights, in every direction.",
    "attention": SHARED_HEADS,
    "group_query_attention": SHARED_HEADS,
    "multi_head_attention": "Query, key and value heads go together and as a whole.",
    "rotary_embedding": "It turns pairs inside a head, so heads go as a whole.",
    "normalization": "Channels stay apart, and each takes its scale, bias and statistics along.",
    "group_normalization": "Groups of channels share mean and variance, so a group goes as a whole.",
    "layer_normalization": (
        "Every channel takes part in mean and variance: removing one changes all others, so channels stop along the "
        "normalized axes and pass along the rest."
    ),
    "skip_layer_normalization": (
        "It adds two streams and normalizes the sum: channels stop along the normalized axes and pass along the rest."
    ),
    "elementwise": "Every position is computed on its own, so channels pass; tensors it joins then share theirs.",
    "pooling": "Every channel is pooled on its own, so channels pass.",
    "resampling": "Every channel is resampled on its own, so channels pass.",
    "reduction": "Channels pass if it reduces other axes; over channels it is a wall.",
    "mixing": "Channels pass if it works along other axes; along channels every result depends on all of them: a wall.",
    "movement": "It only moves values, and channels move with them; a channel that is torn apart is tied together.",
    "gather": "Picking by constant positions moves channels; the columns of a table that is looked up are channels.",
    "shape": "It reads a shape, no values: what depends on it is mended when channels go.",
}
"""Rule name -> what it does."""

WALL = "What leaves it depends on values in a way that removing a channel would change: channels stop here."
"""A row without a rule."""

UNKNOWN = (
    "edgepress has no row for it: channels stop here, and a model whose operators cannot all be run for refitting is "
    "quantized around it but loses no channels."
)
"""No row."""

FOREIGN = "Another package brought its rule; edgepress does not know in words what it does."
"""A rule that is a function of another package."""


def sentence(row: Op | None) -> str:
    """What edgepress does with channels at an operator."""
    if row is None:
        return UNKNOWN
    if row.couple is None:
        return WALL
    return SENTENCES.get(row.couple, WALL) if isinstance(row.couple, str) else FOREIGN


def short(row: Op | None) -> str:
    """The same in one word: the rule, ``wall``, ``other`` (a function) or ``unknown``."""
    if row is None:
        return "unknown"
    if row.couple is None:
        return "wall"
    return row.couple if isinstance(row.couple, str) else "other"
