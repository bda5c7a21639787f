"""Inputs for comparing two graphs: made up from the declared types, or a sample resized along free axes.

Made-up values are seeded normal numbers (integers 0 or 1). They are good for one thing only: to see whether two
graphs compute the same function, or which shapes a graph works with. No statistics may be taken from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgepress.errors import ModelError
from edgepress.model import TensorType

Feed = Mapping[str, np.ndarray]
Sizes = Mapping[str, int]

FREE_SIZES = (1, 8, 32, 64, 224)
"""Sizes tried for free axes other than the first, in this order."""


def symbols(types: Mapping[str, TensorType]) -> dict[str, list[tuple[str, int]]]:
    """Free dimensions of the inputs: symbol -> the (input, axis) pairs it stands at.

    A dimension without a name gets one of its own, ``<input>:<axis>``.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for name, axis, dimension in _dimensions(types):
        if not isinstance(dimension, int):
            found.setdefault(dimension or f"{name}:{axis}", []).append((name, axis))
    return found


def batch_symbols(types: Mapping[str, TensorType]) -> set[str]:
    """The symbols that stand at the first axis of some input."""
    return {symbol for symbol, places in symbols(types).items() if any(axis == 0 for _, axis in places)}


def made_up(types: Mapping[str, TensorType], *, batch: int, free: int) -> dict[str, np.ndarray]:
    """One feed with ``batch`` rows and ``free`` at every other free axis; the same for the same arguments.

    Raises:
        ModelError: an input is of unknown shape or of a type that cannot be made up.
    """
    first = batch_symbols(types)
    sizes = {symbol: batch if symbol in first else free for symbol in symbols(types)}
    places = {place: sizes[symbol] for symbol, where in symbols(types).items() for place in where}
    source = np.random.default_rng(0)
    feed: dict[str, np.ndarray] = {}
    for name, stated in types.items():
        shape = [places.get((name, axis), size) for axis, size in enumerate(_shape(name, stated))]
        feed[name] = _values(name, stated.dtype, [int(size or 0) for size in shape], source)
    return feed


def resized(feed: Feed, types: Mapping[str, TensorType], sizes: Sizes) -> dict[str, np.ndarray]:
    """A feed with the axes of some symbols set to other sizes, by repeating or dropping rows."""
    changed = dict(feed)
    for symbol, size in sizes.items():
        for name, axis in symbols(types)[symbol]:
            array = changed[name]
            changed[name] = np.take(array, np.arange(size) % array.shape[axis], axis)
    return changed


def current_sizes(feed: Feed, types: Mapping[str, TensorType]) -> dict[str, int]:
    """What the free dimensions are in this feed."""
    return {symbol: feed[places[0][0]].shape[places[0][1]] for symbol, places in symbols(types).items()}


def _dimensions(types: Mapping[str, TensorType]) -> Iterator[tuple[str, int, int | str | None]]:
    for name, stated in types.items():
        for axis, dimension in enumerate(_shape(name, stated)):
            yield name, axis, dimension


def _shape(name: str, stated: TensorType) -> tuple[int | str | None, ...]:
    if stated.shape is None:
        raise ModelError(f"Input {name!r} states no shape: export the model with input shapes.")
    return stated.shape


def _values(name: str, dtype: str, shape: list[int], source: np.random.Generator) -> np.ndarray:
    if dtype in ("float16", "float32", "float64"):
        return source.standard_normal(shape).astype(dtype)
    if dtype == "bool" or dtype.startswith(("int", "uint")):
        return source.integers(0, 2, shape).astype(dtype)
    raise ModelError(f"Input {name!r} is of type {dtype}, which cannot be made up: give samples with --data.")
