"""The weights that are coded as whole numbers times steps, which the coder recognizes (``quantize.weights.lattice``).

Rows are output channels, as the coder reads them (:mod:`edgepress.codec.decoder`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgepress.executor import Executor
from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.quantize.weights.lattice import LARGEST

FEWEST = 64
"""Weights of the smallest tensor that gets whole numbers of its own; smaller ones are treated as biases."""

REACH = 30
"""Largest number of a weight: what the coder's tables hold without an escape."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight tensor.

    Attributes:
        name: the initializer.
        node: the node that multiplies by it; "" for a tensor that is something else (a table, recurrent weights).
        axis: its axis of rows.
        shape: its shape.
    """

    name: str
    node: str
    axis: int
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.shape[self.axis]

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """A tensor as [rows, columns]."""
        return np.moveaxis(values, self.axis, 0).reshape(self.rows, -1)

    def tensor(self, matrix: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`matrix`."""
        moved = (self.rows, *(size for axis, size in enumerate(self.shape) if axis != self.axis))
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, self.axis))

    def broadcast(self) -> tuple[int, ...]:
        """Shape of one number for each row, against the tensor."""
        return tuple(size if axis == self.axis else 1 for axis, size in enumerate(self.shape))


def layers_of(model: Model, executor: Executor) -> tuple[Layer, ...]:
    """The weights of a model that get whole numbers, in the order of the graph."""
    axes: dict[str, tuple[str, int]] = {}
    for node in model.nodes:
        if node.op in WEIGHTED and len(node.inputs) > 1:
            axes.setdefault(node.inputs[1], (node.name, output_axis(node.op, node.attributes)))
    found = []
    for name in executor.trainable:
        array = model.constants[name]
        if array.ndim >= 2 and array.size >= FEWEST and array.dtype == np.float32:
            owner, axis = axes.get(name, ("", 0))
            found.append(Layer(name, owner, axis % array.ndim, array.shape))
    return tuple(found)


def weights_of(layer: Layer, whole: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Float weights of whole numbers [rows, columns] and steps [rows] on the grid."""
    return layer.tensor(whole.astype(np.float32) * steps.astype(np.float32)[:, None])


def steps_from(
    sensitivity: Mapping[str, float], layers: tuple[Layer, ...], model: Model, entropy: float
) -> dict[str, float]:
    """One step for each layer, so that rounding to the nearest leaves ``entropy`` bits a weight in the mean.

    Errors of a layer count by its sensitivity F (the mean square of its weights' gradients), and the least loss at
    equal length has steps in proportion to 1 / sqrt(F) (Gish & Pierce 1968); no step is below the largest weight / 127
    or above twice that weight.
    """
    largest = {layer.name: float(np.abs(model.constants[layer.name]).max()) or 1.0 for layer in layers}

    def steps(scale: float) -> dict[str, float]:
        wished = {name: scale / np.sqrt(max(sensitivity[name], 1e-30)) for name in largest}
        return {name: float(np.clip(wished[name], most / LARGEST, 2 * most)) for name, most in largest.items()}

    low, high = -40.0, 40.0
    for _ in range(50):
        middle = (low + high) / 2
        found = steps(2.0**middle)
        low, high = (low, middle) if _entropy(model, layers, found) < entropy else (middle, high)
    return steps(2.0**low)


def _entropy(model: Model, layers: tuple[Layer, ...], steps: Mapping[str, float]) -> float:
    """Bits of a weight, in the mean over all, each layer by its own probabilities."""
    bits, count = 0.0, 0
    for layer in layers:
        values = np.rint(model.constants[layer.name] / steps[layer.name])
        _, counts = np.unique(values, return_counts=True)
        bits += float((counts * np.log2(values.size / counts)).sum())
        count += values.size
    return bits / max(1, count)
