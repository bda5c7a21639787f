"""Shortcuts that only move channels (strided Slice, then Pad of the channel axis) as one int8 convolution.

onnxruntime has no int8 Pad: left alone, the shortcut of an option-A ResNet costs DQ -> Pad -> Q and a change of layout
on both sides. As a 1x1 convolution with the weights of an identity, stride and all, it stays in the int8 graph.
It is exact: weight 1, scale 1, same grid on both sides, so every code maps to itself and a padded channel to zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepress.model import Model, Node
from edgepress.quantize.graph.regions import int8_units, operands, units
from edgepress.quantize.weights.nearest import Rounded

LARGEST = 1 << 15
"""Most weights an identity may have: above, the bytes are worth more than the time."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A Pad that can be a convolution: the nodes it replaces, what it reads, its strides and channels."""

    pad: Node
    slices: tuple[Node, ...]
    source: str
    strides: tuple[int, ...]
    channels: int
    before: int
    after: int

    @property
    def weight(self) -> np.ndarray:
        """Identity from the channels to their places among the padded ones, int8 ``[O, I, 1, ...]``."""
        values = np.zeros((self.before + self.channels + self.after, self.channels), np.int8)
        values[self.before + np.arange(self.channels), np.arange(self.channels)] = 1
        return values.reshape(*values.shape, *(1 for _ in self.strides))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A model whose shortcuts are convolutions.

    Attributes:
        model: the graph.
        rounded: int8 weights of the new convolutions by node name (the name of the Pad).
        same: output of a new convolution -> the tensor whose grid it has.
    """

    model: Model
    rounded: Mapping[str, Rounded]
    same: Mapping[str, str]


def as_convolutions(model: Model, weighted: Collection[str]) -> Rewritten:
    """Rewrite the shortcuts of a typed model that lie between int8 nodes, given the names of int8 weighted nodes."""
    found = [item for node in model.nodes if (item := _shortcut(model, node)) is not None]
    wanted = _between_int8(_rewrite(model, found), found, weighted) if found else []
    return Rewritten(
        _rewrite(model, wanted) if wanted else model,
        {item.pad.name: _rounded(item) for item in wanted},
        {item.pad.output: item.source for item in wanted},
    )


def _rounded(item: Shortcut) -> Rounded:
    return Rounded(item.weight, np.ones(len(item.weight), np.float32), 0)


def _between_int8(model: Model, found: list[Shortcut], weighted: Collection[str]) -> list[Shortcut]:
    """Those whose source is made, and whose result is read, in int8 alone."""
    inside = int8_units(model, {*weighted, *(item.pad.name for item in found)})
    made = {tensor for unit in units(model) if unit.name in inside for tensor in unit.outputs}
    outside = {tensor for unit in units(model) if unit.name not in inside for tensor in operands(model, unit)}
    outside |= set(model.outputs)
    return [item for item in found if item.source in made and item.pad.output not in outside]


def _shortcut(model: Model, pad: Node) -> Shortcut | None:
    """What a Pad and the Slices before it do, if a 1x1 convolution can do it."""
    known = model.types.get(pad.inputs[0]) if pad.op == "Pad" else None
    shape = known.shape if known is not None else None
    if known is None or known.dtype != "float32" or shape is None or len(shape) < 3 or not isinstance(shape[1], int):
        return None
    amounts = _padding(model, pad, len(shape))
    if amounts is None or shape[1] * (shape[1] + sum(amounts)) > LARGEST:
        return None
    slices, source, strides = _strided(model, pad.inputs[0], len(shape) - 2)
    return Shortcut(pad, slices, source, strides, shape[1], *amounts)


def _padding(model: Model, pad: Node, rank: int) -> tuple[int, int] | None:
    """Channels of zeros before and after; None if the Pad does anything else."""
    if pad.attributes.get("mode", "constant") != "constant" or any(pad.inputs[3:]):
        return None
    amounts = model.constants.get(pad.inputs[1])
    value = model.constants.get(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(1)
    if amounts is None or value is None or value.any() or amounts.size != 2 * rank:
        return None
    before, after = int(amounts[1]), int(amounts[rank + 1])
    only_channels = np.count_nonzero(amounts) == np.count_nonzero([before, after])
    return (before, after) if only_channels and min(before, after) >= 0 else None


def _strided(model: Model, tensor: str, spatial: int) -> tuple[tuple[Node, ...], str, tuple[int, ...]]:
    """The Slices that only leave out positions and that nothing else reads: nodes, their source, their strides."""
    strides, nodes = np.ones(spatial, np.int64), []
    while (node := model.producer(tensor)) is not None and len(model.consumers(tensor)) == 1:
        steps = _steps(model, node, spatial)
        if steps is None or tensor in model.outputs:
            break
        strides, tensor = strides * steps, node.inputs[0]
        nodes.append(node)
    return tuple(nodes), tensor, tuple(int(step) for step in strides)


def _steps(model: Model, node: Node, spatial: int) -> np.ndarray | None:
    """Steps along the spatial axes of a Slice that starts at the first position and runs to the end."""
    known = model.types.get(node.inputs[0])
    if node.op != "Slice" or known is None or not known.shape or any(n not in model.constants for n in node.inputs[1:]):
        return None
    starts, ends, *rest = (model.constants[name].tolist() for name in node.inputs[1:])
    axes = rest[0] if rest else list(range(len(starts)))
    steps = np.ones(spatial, np.int64)
    strides = rest[1] if len(rest) > 1 else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, strides, strict=True):
        axis %= spatial + 2
        size = known.shape[axis]
        if axis < 2 or start != 0 or step < 1 or end < (size if isinstance(size, int) else 1 << 30):
            return None
        steps[axis - 2] *= step
    return steps


def _rewrite(model: Model, found: list[Shortcut]) -> Model:
    proto = model.edit()
    pads = {item.pad.name: item for item in found}
    gone = {node.name for item in found for node in item.slices}
    kept: list[onnx.NodeProto] = []
    for node, original in zip(model.nodes, model.edit().graph.node, strict=True):
        if node.name in pads:
            kept.append(_convolution(pads[node.name]))
        elif node.name not in gone:
            kept.append(original)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    weights = [numpy_helper.from_array(i.weight.astype(np.float32), f"{i.pad.name}/identity") for i in found]
    proto.graph.initializer.extend(weights)
    return Model.of(proto)


def _convolution(item: Shortcut) -> onnx.NodeProto:
    shape = [1] * len(item.strides)
    inputs = [item.source, f"{item.pad.name}/identity"]
    return helper.make_node(
        "Conv", inputs, [item.pad.output], name=item.pad.name, kernel_shape=shape, strides=item.strides
    )
