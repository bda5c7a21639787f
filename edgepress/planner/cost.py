"""What a width costs: multiply-adds along the target's staircase, and weights.

A weighted node costs ``MACs * f(out) * f(in)`` where ``f`` is the share of the axis that is left; on the way to
latency the share follows the target's staircase (``Target.effective_width``), for weights it is linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.groups import Group
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED
from edgepress.targets import Target


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a weight: its length and what each group's channel takes away from it."""

    length: int
    groups: tuple[tuple[str, int], ...]

    def left(self, removed: Mapping[str, int]) -> int:
        return self.length - sum(each * removed.get(name, 0) for name, each in self.groups)


@dataclass(frozen=True, slots=True)
class _Layer:
    node: str
    macs: int
    weights: int
    axes: tuple[_Axis, ...]


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a model as functions of how many channels each group loses."""

    layers: tuple[_Layer, ...]
    target: Target

    @classmethod
    def of(cls, model: Model, groups: Sequence[Group], target: Target) -> Costs:
        """Tabulate a model. Needs static shapes but for the batch axis, which counts as 1."""
        macs = count_macs(model)
        layers = []
        for node in model.nodes:
            if node.name in macs:
                weight = node.inputs[1]
                shape = model.constants[weight].shape
                axes = tuple(_axis(weight, axis, length, groups) for axis, length in enumerate(shape[:2]))
                layers.append(_Layer(node.name, macs[node.name], int(np.prod(shape)), axes))
        return cls(tuple(layers), target)

    def macs(self, removed: Mapping[str, int]) -> float:
        """Multiply-adds of one sample."""
        return sum(_scaled(layer.macs, layer, removed) for layer in self.layers)

    def weights(self, removed: Mapping[str, int]) -> float:
        """Weights of Conv, Gemm and MatMul nodes."""
        return sum(_scaled(layer.weights, layer, removed) for layer in self.layers)

    def staircase(self, removed: Mapping[str, int]) -> float:
        """Multiply-adds with widths read along the target's staircase."""
        return sum(layer.macs * self._steps(layer, removed) for layer in self.layers)

    def _steps(self, layer: _Layer, removed: Mapping[str, int]) -> float:
        width = self.target.effective_width
        shares = [width(axis.left(removed)) / width(axis.length) for axis in layer.axes if axis.groups]
        return float(np.prod(shares))

    def blend(self, removed: Mapping[str, int]) -> float:
        """Half staircase, half weights, each as a share of the whole model: 1 for the model as it is.

        Time goes with multiply-adds where weights are reused (Conv) and with bytes where they are not (Gemm at
        batch 1); a file goes with weights: the mean of both serves every kind of network.
        """
        return 0.5 * self.staircase(removed) / self.staircase({}) + 0.5 * self.weights(removed) / self.weights({})


def count_macs(model: Model) -> dict[str, int]:
    """Multiply-adds of one sample per Conv, Gemm and MatMul with constant weights."""
    found = {}
    for node in model.nodes:
        if node.op in WEIGHTED and node.inputs[1] in model.constants:
            found[node.name] = int(np.prod(model.constants[node.inputs[1]].shape)) * _positions(model, node)
    return found


def _positions(model: Model, node: Node) -> int:
    """Output positions that share the weights: pixels for Conv, rows for Gemm and MatMul; batch counts as 1."""
    known = model.types.get(node.output)
    shape = known.shape if known is not None and known.shape is not None else ()
    spatial = shape[2:] if node.op == "Conv" else shape[1:-1]
    return int(np.prod([size if isinstance(size, int) else 1 for size in spatial], dtype=np.int64))


def _axis(tensor: str, axis: int, length: int, groups: Sequence[Group]) -> _Axis:
    touching = [
        (group.name, site.index.shape[1])
        for group in groups
        for site in group.sites
        if site.tensor == tensor and site.axis == axis
    ]
    return _Axis(length, tuple(dict.fromkeys(touching)))


def _scaled(amount: int, layer: _Layer, removed: Mapping[str, int]) -> float:
    share = 1.0
    for axis in layer.axes:
        share *= axis.left(removed) / axis.length
    return amount * share
