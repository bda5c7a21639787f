"""Step: write automatic padding (``auto_pad``) out as numbers.

SAME_UPPER and SAME_LOWER pad so that ``out = ceil(in / stride)``, with ``(out - 1) stride + k - in`` zeros in
all, the odd one at the end (UPPER) or the beginning (LOWER); VALID pads nothing (ONNX operator Conv).
A node whose spatial input size is free keeps SAME, because there the numbers depend on the input. So does a dilated
one: onnxruntime refuses it (Conv) or computes another size (MaxPool), so there is no answer to agree with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import shape_inference

from edgepress import storage
from edgepress.model import Dimension, Model
from edgepress.normalize.graph import DEFAULT_DOMAIN, attributes, drop_attribute, initializers, set_attribute

WINDOWED = ("Conv", "MaxPool", "AveragePool")


def write_padding(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace ``auto_pad`` of Conv, MaxPool and AveragePool by ``pads`` where the input size is known."""
    nodes = [node for node in proto.graph.node if node.op_type in WINDOWED and node.domain in DEFAULT_DOMAIN]
    automatic = {id(node): attributes(node).get("auto_pad", b"NOTSET").decode() for node in nodes}
    if all(mode == "NOTSET" for mode in automatic.values()):
        return proto
    types = Model.of(shape_inference.infer_shapes(storage.outline(proto), data_prop=True)).types
    weights = {name: tuple(item.dims) for name, item in initializers(proto.graph).items()}
    for node in nodes:
        mode = automatic[id(node)]
        stated = types.get(node.input[0])
        if mode == "NOTSET" or stated is None or stated.shape is None or attributes(node).get("ceil_mode", 0):
            continue
        pads = _pads(node, mode, stated.shape[2:], weights)
        if pads is not None:
            drop_attribute(node, "auto_pad")
            set_attribute(node, "pads", pads)
    return proto


def _pads(
    node: onnx.NodeProto, mode: str, sizes: Sequence[Dimension], weights: Mapping[str, tuple[int, ...]]
) -> list[int] | None:
    if mode == "VALID":
        return [0] * (2 * len(sizes))
    values = attributes(node)
    kernel = values.get("kernel_shape") or (weights.get(node.input[1], ())[2:] if node.op_type == "Conv" else ())
    if len(kernel) != len(sizes):
        return None
    ones = [1] * len(sizes)
    if list(values.get("dilations", ones)) != ones:
        return None
    begins: list[int] = []
    ends: list[int] = []
    for size, taps, stride in zip(sizes, kernel, values.get("strides", ones), strict=True):
        if not isinstance(size, int):
            return None
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        ends.append(total - begins[-1])
    return begins + ends
