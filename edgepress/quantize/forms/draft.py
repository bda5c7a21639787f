"""Draft: a private copy of a graph in which nodes are exchanged for others and constants for what makes them.

    replace(node, [...])   other nodes in the place of one; the last of them makes what it made
    first(...)             a node in front of all others: what onnxruntime computes once, when it loads the file
    constant(name, values) an initializer, with a name that is free

Guarantees: the graph's inputs and outputs stay, no tensor's name is used twice (bodies of control flow included),
constants that nobody reads any more are dropped, and only those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgepress import storage
from edgepress.errors import ModelError
from edgepress.model import Model, Node

CONTRIB = "com.microsoft"
FLOAT, INT8 = int(onnx.TensorProto.FLOAT), int(onnx.TensorProto.INT8)


class Draft:
    """A graph being rewritten; :meth:`finish` gives the model."""

    def __init__(self, model: Model, *, least_opset: int = 7) -> None:
        """Start from ``model``.

        Raises:
            ModelError: its operator set is older than ``least_opset``.
        """
        if model.opset < least_opset:
            raise ModelError(
                f"The model has operator set {model.opset}, and {least_opset} is needed: normalize the model first."
            )
        self.model = model
        self._proto = model.edit()
        self._read = storage.read_names(self._proto.graph)
        self._taken = set(_names(self._proto.graph))
        self._first: list[onnx.NodeProto] = []
        self._replaced: dict[tuple[str, ...], list[onnx.NodeProto]] = {}
        self._dropped: set[str] = set()

    def fresh(self, name: str) -> str:
        """``name``, or the first of ``name/2``, ``name/3``, ... that is free."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}/{count}"
        self._taken.add(found)
        return found

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add an initializer; returns its name."""
        return self._constant(name, numpy_helper.from_array(np.asarray(values, order="C")))

    def nibbles(self, name: str, values: np.ndarray) -> str:
        """Add integers within -8..7 as an int4 initializer: two to a byte, the first one in the low half."""
        if self.model.opset < 21:
            raise ModelError(f"4-bit storage needs operator set 21, and the model has {self.model.opset}.")
        self._proto.ir_version = max(self._proto.ir_version, 10)
        made = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=values.shape, raw_data=packed(values).tobytes())
        return self._constant(name, made)

    def _constant(self, name: str, made: onnx.TensorProto) -> str:
        made.name = self.fresh(name)
        self._proto.graph.initializer.append(made)
        return made.name

    def first(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Put a node in front of the graph; returns its output."""
        self._first.append(node(op, inputs, [output], **attributes))
        return output

    def replace(self, old: Node, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put ``nodes`` in the place of ``old``."""
        self._replaced[old.outputs] = list(nodes)

    def vacate(self, name: str) -> str:
        """Take an initializer out, so that a node can make a tensor of that name."""
        self._dropped.add(name)
        return name

    def finish(self) -> Model:
        """The rewritten model."""
        graph = self._proto.graph
        originals = list(graph.node)
        del graph.node[:]
        graph.node.extend(self._first)
        for known, original in zip(self.model.nodes, originals, strict=True):
            graph.node.extend(self._replaced.get(known.outputs, [original]))
        self._drop_constants(graph)
        self._state_operator_set()
        return Model.of(self._proto)

    def _drop_constants(self, graph: onnx.GraphProto) -> None:
        unread = self._read - storage.read_names(graph)
        gone = {item.name for item in graph.initializer if item.name in unread | self._dropped}
        kept = [item for item in graph.initializer if item.name not in gone]
        inputs = [value for value in graph.input if value.name not in gone]  # old files list weights there too
        del graph.initializer[:], graph.input[:]
        graph.initializer.extend(kept)
        graph.input.extend(inputs)

    def _state_operator_set(self) -> None:
        stated = {entry.domain for entry in self._proto.opset_import}
        if CONTRIB not in stated and any(each.domain == CONTRIB for each in self._proto.graph.node):
            self._proto.opset_import.append(helper.make_opsetid(CONTRIB, 1))


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str], *, name: str = "", domain: str = "", **attributes: Any
) -> onnx.NodeProto:
    """A node; it has a name only where it stands for one of the model's own."""
    made = onnx.NodeProto(op_type=op, input=inputs, output=outputs, name=name, domain=domain)
    made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return made


def packed(values: np.ndarray) -> np.ndarray:
    """Integers of 4 bits along the last axis of the flat array, two to a byte, the first one in the low half: uint8."""
    flat = values.reshape(-1).astype(np.int16) & 15
    pairs = np.append(flat, np.zeros(flat.size % 2, np.int16)).reshape(-1, 2)
    return np.asarray(pairs[:, 0] | pairs[:, 1] << 4, np.uint8)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor name of a graph and of the bodies inside it."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer))
    for each in graph.node:
        yield from (*each.input, *each.output)
        for attribute in each.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _names(body)
