"""Cross-layer equalization (Nagel et al. 2019, Data-Free Quantization, section 4.1), an exact rewrite of a float model.

Where a channel passes from one layer to the next through nothing but ``f(s x) = s f(x)``, s > 0, its scale is free:

    W1[o] := W1[o] / s_o     b1[o] := b1[o] / s_o     W2[:, o] := W2[:, o] s_o

With r1 = max |W1[o]| and r2 = max |W2[:, o]|, the choice ``s = sqrt(r1 / r2)`` gives the channel the same range on
either side. Layers are Conv (grouped and depthwise too) and Gemm; joined by one reader each and homogeneous functions
only: Relu, LeakyRelu, PRelu, pooling, Flatten. A Clip is none. Chains of layers are swept until nothing moves.

Guarantees: the outputs are equal up to float32 rounding. The spread of every chain, ``sum log(max r / r)`` over the
channels on both sides of its links, does not rise: for one pair that is a theorem (r1 r2 stays, max r1 max r2 becomes
max r1 r2), for longer chains the best sweep is taken, the model as it is among them. ``s`` stays within ``LIMITS``: a
channel next to dead would hand its bias on many thousandfold. Even weights need not mean better int8 (with one scale
per channel only columns gain), so this is an option that has to prove itself on held-out samples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.model import Model, Node
from edgepress.normalize.graph import read_inside
from edgepress.ops.weighted import output_axis
from edgepress.quantize.graph.regions import typed

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Identity", *POOLS)
LAYERS = ("Conv", "Gemm")
LIMITS = (1 / 64, 64.0)
"""Least and greatest factor of a channel."""
SWEEPS = 40
SETTLED = 1e-3
"""A sweep that moves no factor by more, in log, is the last."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of a chain.

    Attributes:
        node: the Conv or Gemm.
        sizes: largest |weight| from channel to channel, float64 ``[groups, outputs / groups, inputs / groups]``.
        repeats: how many neighbouring inputs belong to one channel (behind a Flatten).
    """

    node: Node
    sizes: np.ndarray
    repeats: int = 1


def equalize(model: Model) -> Model:
    """The same function with weights whose ranges are more even between channels."""
    arrays: dict[str, np.ndarray] = {}
    for chain in _chains(typed(model)):
        factors = _even([layer.sizes for layer in chain])
        ones = (None,)
        for layer, before, after in zip(chain, (*ones, *factors), (*factors, *ones), strict=True):
            arrays |= _scaled(model, layer, before, after)
    return model.with_constants(arrays) if arrays else model


def _scaled(
    model: Model, layer: _Layer, before: np.ndarray | None, after: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """The weight times the factors of its inputs, by those of its outputs, and the bias by these."""
    node, weight = layer.node, _rows_first(model, layer.node).astype(np.float64)
    rest = (1,) * (weight.ndim - 2)
    if after is not None:
        weight = weight / after.reshape(-1, 1, *rest)
        for name in node.inputs[2:3]:
            if name:
                yield name, (model.constants[name].astype(np.float64) / after).astype(np.float32)
    if before is not None:
        groups = layer.sizes.shape[0]
        factors = np.repeat(np.repeat(before, layer.repeats).reshape(groups, -1), len(weight) // groups, axis=0)
        weight = weight * factors.reshape(*factors.shape, *rest)
    stored = weight if output_axis(node.op, node.attributes) == 0 else weight.T
    yield node.inputs[1], np.ascontiguousarray(stored, np.float32)


def _even(sizes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The factor of every channel of every link: of the sweep with the least spread."""
    factors = [np.ones(each.shape[0] * each.shape[1]) for each in sizes[:-1]]
    best, least = list(factors), _spread(sizes, factors)
    for _ in range(SWEEPS):
        moved = 0.0
        for link in range(len(factors)):
            made, read = _ranges(sizes, factors, link)
            alive = (made > 0) & (read > 0)
            wanted = factors[link] * np.sqrt(np.where(alive, made, 1) / np.where(alive, read, 1))
            wanted = np.clip(wanted, *LIMITS)
            moved = max(moved, float(np.abs(np.log(wanted / factors[link])).max()))
            factors[link] = wanted
        found = _spread(sizes, factors)
        if found < least:
            best, least = list(factors), found
        if moved < SETTLED:
            break
    return best


def _ranges(sizes: Sequence[np.ndarray], factors: Sequence[np.ndarray], link: int) -> tuple[np.ndarray, np.ndarray]:
    """Range of the weights that make every channel of a link, and of those that read it."""
    made, read = _with_factors(sizes, factors, link), _with_factors(sizes, factors, link + 1)
    return made.max(axis=2).ravel(), read.max(axis=1).ravel()


def _with_factors(sizes: Sequence[np.ndarray], factors: Sequence[np.ndarray], place: int) -> np.ndarray:
    found = sizes[place]
    groups, rows, columns = found.shape
    if place < len(factors):
        found = found / factors[place].reshape(groups, rows, 1)
    return found * factors[place - 1].reshape(groups, 1, columns) if place > 0 else found


def _spread(sizes: Sequence[np.ndarray], factors: Sequence[np.ndarray]) -> float:
    """Sum of log(max r / r) over both sides of all links; channels without weights are left out."""
    total = 0.0
    for link in range(len(factors)):
        for side in _ranges(sizes, factors, link):
            alive = side[side > 0]
            total += float(np.log(alive.max() / alive).sum()) if alive.size else 0.0
    return total


def _chains(model: Model) -> Iterator[list[_Layer]]:
    """Layers that follow one another, each chain as long as it gets."""
    held = read_inside(model.frame().graph) | set(model.outputs)
    following = {node.name: after for node in model.nodes if (after := _after(model, node, held)) is not None}
    later = {layer.node.name for layer in following.values()}
    for node in model.nodes:
        if node.name in following and node.name not in later:
            chain = [_Layer(node, _sizes(model, node, 1))]
            while chain[-1].node.name in following:
                chain.append(following[chain[-1].node.name])
            yield chain


def _after(model: Model, node: Node, held: Collection[str]) -> _Layer | None:
    """The layer behind a layer, if each channel reaches it alone and scaled by whatever the weights are scaled by."""
    if not _is_layer(model, node, held) or not _has_own_bias(model, node, held):
        return None
    tensor, channels = node.output, len(_rows_first(model, node))
    while True:
        readers = model.consumers(tensor)
        if len(readers) != 1 or tensor in held or readers[0].inputs.count(tensor) != 1:
            return None
        reader = readers[0]
        if reader.inputs[0] != tensor or reader.domain not in ("", "ai.onnx"):
            return None
        if reader.op in LAYERS:
            return _joined(model, reader, channels, held)
        if not _passes(model, reader):
            return None
        tensor = reader.output


def _joined(model: Model, node: Node, channels: int, held: Collection[str]) -> _Layer | None:
    if not _is_layer(model, node, held) or node.attributes.get("transA", 0):
        return None
    inputs = _rows_first(model, node).shape[1] * int(node.attributes.get("group", 1))
    if inputs % channels:
        return None
    repeats = inputs // channels
    return _Layer(node, _sizes(model, node, repeats), repeats)


def _is_layer(model: Model, node: Node, held: Collection[str]) -> bool:
    """A Conv or Gemm whose weight is a float32 constant of its own."""
    return node.op in LAYERS and node.domain in ("", "ai.onnx") and _is_own(model, node.inputs[1], held)


def _is_own(model: Model, name: str, held: Collection[str]) -> bool:
    if name not in model.constants or name in held or model.types[name].dtype != "float32":
        return False
    return len(readers := model.consumers(name)) == 1 and readers[0].inputs.count(name) == 1


def _has_own_bias(model: Model, node: Node, held: Collection[str]) -> bool:
    """No bias, or one value for every output that nothing else reads."""
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    if not name:
        return True
    rows = len(_rows_first(model, node))
    return _is_own(model, name, held) and model.constants[name].shape in ((rows,), (1, rows))


def _passes(model: Model, node: Node) -> bool:
    """Whether a node keeps channels apart and commutes with positive factors."""
    if sum(bool(name) for name in node.outputs) != 1:
        return False
    if node.op == "PRelu":
        return node.inputs[1] in model.constants
    if node.op == "Flatten":
        return int(node.attributes.get("axis", 1)) == 1
    return node.op in HOMOGENEOUS or (node.op == "Reshape" and _flattens(model, node))


def _flattens(model: Model, node: Node) -> bool:
    """Whether a Reshape does what a Flatten does: ``[N, C, ...]`` to ``[N, C * ...]``."""
    shapes = [found.shape if (found := model.types.get(name)) else None for name in (node.inputs[0], node.output)]
    before, after = (shape or () for shape in shapes)
    sizes = [size for size in before[1:] if isinstance(size, int)]
    known = len(before) >= 2 and len(sizes) == len(before) - 1
    return known and len(after) == 2 and after[1] == math.prod(sizes)


def _rows_first(model: Model, node: Node) -> np.ndarray:
    """The weight as ``[outputs, inputs / groups, ...]``."""
    weight = model.constants[node.inputs[1]]
    return weight if output_axis(node.op, node.attributes) == 0 else weight.T


def _sizes(model: Model, node: Node, repeats: int) -> np.ndarray:
    weight = np.abs(_rows_first(model, node)).astype(np.float64)
    weight = weight.reshape(*weight.shape[:2], -1).max(axis=2)
    groups = int(node.attributes.get("group", 1))
    return np.asarray(weight.reshape(groups, len(weight) // groups, -1, repeats).max(axis=3))
