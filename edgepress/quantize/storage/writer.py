"""Adds constants and nodes to a graph that is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass(frozen=True, slots=True)
class Writer:
    """Appends to ``proto``; what it makes is named by the caller, nodes need no names."""

    proto: onnx.ModelProto

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add an initializer; returns its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output."""
        made = onnx.NodeProto(op_type=op, input=inputs, output=[output], domain=domain)
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.proto.graph.node.append(made)
        return output

    def dequantized(self, inputs: list[str], output: str, axis: int | None) -> str:
        """Add a DequantizeLinear; ``axis`` counts the scales, None where there is one only."""
        return self.node("DequantizeLinear", inputs, output, **({} if axis is None else {"axis": axis}))  # type: ignore[arg-type]
