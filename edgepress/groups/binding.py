"""Sizes for symbolic dimensions: what the analysis binds them to. The result of any cut keeps them symbolic.

A dimension is called by its symbol, one without a name ``<input>:<axis>``. The first axis of an input is the batch and
bound to 1, or to 2 where that does not go through or a Squeeze without axes would take it away. Sizes that the caller
knows (from samples) are taken as they are; others are assumed, several in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np

from edgepress.errors import Refusal
from edgepress.model import Dimension, Model, Node, TensorType

ASSUMED = (8, 32, 64, 224, 16, 128, 1, 512)
"""Sizes assumed for dimensions other than the batch, in this order."""

BATCHES = (1, 2)
"""Sizes tried for the batch."""

Sizes = Mapping[str, int]


def symbol_of(name: str, axis: int, dimension: Dimension) -> str:
    """What a symbolic dimension of an input is called."""
    return dimension if isinstance(dimension, str) else f"{name}:{axis}"


def symbols(types: Mapping[str, TensorType]) -> dict[str, tuple[str, int]]:
    """Every symbolic dimension of the inputs, with the first place it stands at."""
    found: dict[str, tuple[str, int]] = {}
    for name, type_ in types.items():
        for axis, dimension in enumerate(type_.shape or ()):
            if not isinstance(dimension, int):
                found.setdefault(symbol_of(name, axis, dimension), (name, axis))
    return found


def batches(types: Mapping[str, TensorType]) -> set[str]:
    """The symbols that stand at the first axis of some input."""
    return {
        symbol_of(name, 0, type_.shape[0])
        for name, type_ in types.items()
        if type_.shape and not isinstance(type_.shape[0], int)
    }


def sizes_of(types: Mapping[str, TensorType], feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """What the symbolic dimensions are in a sample, but for the batch, which the analysis chooses."""
    first = batches(types)
    places = ((symbol, place) for symbol, place in symbols(types).items() if symbol not in first)
    return {symbol: int(feed[name].shape[axis]) for symbol, (name, axis) in places if name in feed}


def bindings(model: Model, known: Sizes) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Sizes to try: all of them, and the part that is assumed.

    Args:
        model: the model.
        known: sizes the caller knows.
    """
    every, first = symbols(model.inputs), batches(model.inputs)
    sums = {symbol: parts for symbol in every if symbol not in known and (parts := _sum(symbol, every))}
    batch = [symbol for symbol in every if symbol in first and symbol not in known]
    free = [symbol for symbol in every if symbol not in {*known, *batch, *sums}]
    rows_tried = reversed(BATCHES) if any(takes_away_ones(node) for node in model.nodes) else BATCHES
    for rows, size in product(rows_tried if batch else (1,), ASSUMED if free else (1,)):
        sizes = {**{s: n for s, n in known.items() if s in every}, **dict.fromkeys(batch, rows)}
        sizes |= dict.fromkeys(free, size)
        sizes |= {symbol: sum(sizes.get(part, size) for part in parts) for symbol, parts in sums.items()}
        yield sizes, {symbol: sizes[symbol] for symbol in (*free, *sums)}


def takes_away_ones(node: Node) -> bool:
    """Whether a node removes whichever axes happen to be 1."""
    return node.op == "Squeeze" and not any(node.inputs[1:]) and "axes" not in node.attributes


def _sum(symbol: str, others: Mapping[str, object]) -> list[str]:
    """The parts of a symbol like ``past + length``, as exporters of caches write it."""
    parts = [part.strip() for part in symbol.split("+")]
    return parts if len(parts) > 1 and all(part in others for part in parts) else []


def unstated(model: Model) -> Refusal | None:
    """The first input that cannot be bound, because its rank is not known."""
    for name, type_ in model.inputs.items():
        if type_.shape is None:
            return Refusal("model", f"the shape of its input {name!r} is not stated", "state it in the model")
    return None


def notes(assumed: Sizes) -> tuple[Refusal, ...]:
    """What is to be said about sizes that nobody stated."""
    return tuple(
        Refusal(symbol, f"its size is not known without samples: the analysis assumes {size}, the result keeps it free")
        for symbol, size in assumed.items()
    )
