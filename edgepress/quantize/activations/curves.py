"""What is read off a tensor: the functions of one value that stand between it and everything else.

The error that rounding makes in ``x`` matters only as far as its readers let it through. Where every reader of a tensor
is a known function of one value, clipping weighs the error behind it::

    Relu, LeakyRelu, Clip, Sigmoid, HardSigmoid, HardSwish       f(x)
    x * Sigmoid(x), x * HardSigmoid(x)                           gated: the exported forms of Swish and HardSwish

Data that is only moved about (Reshape, MaxPool, ...) keeps its grid, so its readers count as readers of where it comes
from: MaxPool picks values, and these functions act on each alike. Guarantee: a tensor is listed only if nothing else
reads it, neither a graph output nor a body of control flow.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from edgepress.model import Model, Node
from edgepress.normalize.graph import read_inside
from edgepress.ops.row import Role
from edgepress.ops.table import lookup

GATES = ("Sigmoid", "HardSigmoid")
"""Functions that exporters multiply by their own input."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A function of one value.

    Attributes:
        op: name of the operator.
        given: its two parameters: slope and offset of HardSigmoid, bounds of Clip, slope of LeakyRelu.
        gated: the result is multiplied by the value itself.
    """

    op: str
    given: tuple[float, float] = (0.0, 0.0)
    gated: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """The function of every value, float64."""
        result = self._plain(np.asarray(values, np.float64))
        return np.asarray(result * values if self.gated else result)

    def _plain(self, values: np.ndarray) -> np.ndarray:
        first, second = self.given
        if self.op == "LeakyRelu":
            return np.where(values < 0, values * first, values)
        if self.op == "Sigmoid":
            return 0.5 + 0.5 * np.tanh(values / 2)
        if self.op == "HardSigmoid":
            return np.clip(values * first + second, 0, 1)
        return np.asarray(np.clip(values, first, second))  # Relu, Clip


def curves(model: Model) -> dict[str, tuple[Curve, ...]]:
    """The functions behind every tensor that only such functions read, each once."""
    inside = read_inside(model.frame().graph) | set(model.outputs)
    tensors = dict.fromkeys([*model.inputs, *(name for node in model.nodes for name in node.outputs if name)])
    found = {tensor: _behind(model, tensor, inside) for tensor in tensors}
    return {tensor: tuple(dict.fromkeys(functions)) for tensor, functions in found.items() if functions}


def _behind(model: Model, tensor: str, others: Collection[str]) -> list[Curve] | None:
    """The functions behind a tensor; None if anything else reads it."""
    nodes, found = list(model.consumers(tensor)), list[Curve]()
    if not nodes or tensor in others:
        return None
    for node in nodes:
        if node.op == "Mul" and any(_is_gate(model, name, tensor) for name in node.inputs):
            continue  # its other reader is the gate itself
        functions = _read(model, node, tensor, others)
        if functions is None:
            return None
        found += functions
    return found


def _read(model: Model, node: Node, tensor: str, others: Collection[str]) -> list[Curve] | None:
    row = lookup(node.op, node.domain, model.opset)
    if row is not None and row.role is Role.ALIKE and node.inputs[0] == tensor:
        parts = [_behind(model, name, others) for name in node.outputs if name]
        return None if None in parts else [curve for part in parts for curve in part or ()]
    curve = _curve(model, node)
    if curve is None or node.inputs[0] != tensor:
        return None
    if node.op in GATES and _multiplied(model, node.output, tensor):
        return [Curve(curve.op, curve.given, gated=True)] if _is_gate(model, node.output, tensor) else None
    return [curve]


def _curve(model: Model, node: Node) -> Curve | None:
    if node.domain not in ("", "ai.onnx"):
        return None
    given = node.attributes
    if node.op in ("Relu", "Sigmoid"):
        return Curve(node.op, (0.0, np.inf))
    if node.op == "LeakyRelu":
        return Curve(node.op, (float(given.get("alpha", 0.01)), 0.0))
    if node.op == "HardSigmoid":
        return Curve(node.op, (float(given.get("alpha", 0.2)), float(given.get("beta", 0.5))))
    if node.op == "HardSwish":
        return Curve("HardSigmoid", (1 / 6, 0.5), gated=True)
    return _clip(model, node) if node.op == "Clip" else None


def _clip(model: Model, node: Node) -> Curve | None:
    """A Clip between constants; the bounds are attributes before operator set 11."""
    bounds = [float(node.attributes.get(name, missing)) for name, missing in (("min", -np.inf), ("max", np.inf))]
    for place, name in enumerate(node.inputs[1:3]):
        value = model.constants.get(name)
        if name and (value is None or value.size != 1):
            return None
        bounds[place] = float(value.reshape(())) if value is not None else bounds[place]
    return Curve("Clip", (bounds[0], bounds[1])) if bounds[0] <= bounds[1] else None


def _multiplied(model: Model, gate: str, tensor: str) -> bool:
    """Whether a gate is multiplied by what it was made from."""
    return any(node.op == "Mul" and tensor in node.inputs for node in model.consumers(gate))


def _is_gate(model: Model, name: str, tensor: str) -> bool:
    """Whether ``name`` is a gate of ``tensor`` that only the product of both reads."""
    maker = model.producer(name)
    if maker is None or maker.op not in GATES or maker.inputs != (tensor,) or name in model.outputs:
        return False
    return [node.op for node in model.consumers(name)] == ["Mul"] and _multiplied(model, name, tensor)
