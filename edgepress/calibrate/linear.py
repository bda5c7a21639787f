"""A weighted operator seen as linear regression: rows of inputs times a matrix gives rows of outputs.

    Y = [X, 1] [W, b]^T      X: rows x columns (im2col patches for Conv), W: outputs x columns

Zero padding is part of the patches, so borders are exact; the column of ones carries the bias.
This is the view in which statistics are gathered and weights are refitted (Gram matrices, ridge, OBS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED, output_axis


@dataclass(frozen=True, slots=True)
class Linear:
    """One dense Conv, Gemm or MatMul with constant weights.

    Attributes:
        node: the node.
        weight: name of its weight initializer.
        bias: name of its bias initializer, None when it has none.
        shape: shape of the weight.
    """

    node: Node
    weight: str
    bias: str | None
    shape: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[self.output_axis]

    @property
    def columns(self) -> int:
        """Number of columns of the matrix, without the bias."""
        return int(np.prod(self.shape)) // self.outputs

    @property
    def output_axis(self) -> int:
        """Axis of the weight that makes output channels."""
        return output_axis(self.node.op, self.node.attributes) % len(self.shape)

    @property
    def input_axis(self) -> int:
        """Axis of the weight that is contracted with input channels."""
        return 1 if self.node.op == "Conv" else 1 - self.output_axis

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """Weight as float64 [outputs, columns]."""
        rows = weight if self.output_axis == 0 else weight.T
        return np.asarray(rows, np.float64).reshape(rows.shape[0], -1)

    def weight_of(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`matrix`, in the shape and type of ``like``."""
        rows = matrix.reshape(like.shape) if self.output_axis == 0 else matrix.T
        return np.ascontiguousarray(rows, dtype=like.dtype)

    def augmented(self, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
        """Weight and bias as one float64 matrix [outputs, columns + 1]; no bias counts as zeros."""
        last = np.zeros(self.outputs) if bias is None else bias.astype(np.float64).ravel()
        return np.column_stack([self.matrix(weight), last])

    def parameters_of(self, matrix: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> dict[str, np.ndarray]:
        """Inverse of :meth:`augmented`: the initializers by name, in the shapes and types of the given ones."""
        found = {self.weight: self.weight_of(matrix[:, :-1], weight)}
        if self.bias is not None and bias is not None:
            found[self.bias] = matrix[:, -1].astype(bias.dtype).reshape(bias.shape)
        return found

    def columns_of(self, positions: np.ndarray) -> np.ndarray:
        """Matrix columns that belong to positions of the weight's input axis: int64 [..., taps]."""
        taps = int(np.prod(self.shape[2:])) if self.node.op == "Conv" else 1
        return np.asarray(positions)[..., None] * taps + np.arange(taps)

    def rows(self, inputs: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
        """Input activations as float64 rows [samples * positions, columns + 1], last column ones."""
        patches = _conv_patches(self, inputs, positions) if self.node.op == "Conv" else inputs
        flat = patches.reshape(-1, patches.shape[-1])
        rows = np.empty((flat.shape[0], flat.shape[1] + 1), np.float64)
        rows[:, :-1] = flat
        rows[:, -1] = 1.0
        return rows

    def targets(self, outputs: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
        """Output activations as float64 rows [samples * positions, outputs], aligned with :meth:`rows`."""
        if self.node.op != "Conv":
            return outputs.reshape(-1, outputs.shape[-1]).astype(np.float64)
        flat = outputs.reshape(*outputs.shape[:2], -1)
        chosen = flat if positions is None else flat[:, :, positions]
        return chosen.transpose(0, 2, 1).reshape(-1, flat.shape[1]).astype(np.float64)

    def choose(self, outputs: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray | None:
        """Output positions to observe in each sample: ``count`` of them, rising; None means all."""
        available = int(np.prod(outputs.shape[2:])) if self.node.op == "Conv" else 1
        if count >= available:
            return None
        return np.sort(generator.choice(available, count, replace=False))


def linear(model: Model, node: Node) -> Linear | None:
    """The linear view of a node; None where there is none.

    There is one for a dense Conv, a Gemm or a MatMul with constant weights (2-D ones for MatMul), and no bias or a
    constant one of one value per output.
    """
    if node.op not in WEIGHTED or node.inputs[1] not in model.constants:
        return None
    shape = model.constants[node.inputs[1]].shape
    attributes = node.attributes
    if node.op == "Conv" and (attributes.get("group", 1) != 1 or attributes.get("auto_pad", "NOTSET") != "NOTSET"):
        return None
    if node.op == "Gemm" and (attributes.get("transA", 0) or _scaled(attributes)):
        return None
    if node.op == "MatMul" and len(shape) != 2:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
    view = Linear(node, node.inputs[1], bias, shape)
    return view if bias is None or _per_output(model.constants.get(bias), view.outputs) else None


def _scaled(attributes: Mapping[str, Any]) -> bool:
    return bool(attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0)


def _per_output(bias: np.ndarray | None, outputs: int) -> bool:
    """Gemm also takes one value for all outputs, or one per row: neither is a column of the matrix."""
    return bias is not None and bias.size == outputs and bias.shape[-1:] == (outputs,)


def _conv_patches(view: Linear, inputs: np.ndarray, positions: np.ndarray | None) -> np.ndarray:
    """im2col at the chosen output positions: [samples, positions, channels * taps]."""
    kernel = view.shape[2:]
    rank = len(kernel)
    attributes = view.node.attributes
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    pads = attributes.get("pads") or [0] * (2 * rank)
    padded = np.pad(inputs, [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))])
    extents = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(padded, extents, axis=tuple(range(2, 2 + rank)))
    windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
    every = slice(None)
    windows = windows[(every,) * (2 + rank) + tuple(slice(None, None, d) for d in dilations)]
    spatial = windows.shape[2 : 2 + rank]
    chosen = np.arange(int(np.prod(spatial))) if positions is None else positions
    picked = np.asarray(windows[(every, every, *np.unravel_index(chosen, spatial))])  # type: ignore[arg-type]
    return np.moveaxis(picked, 1, 2).reshape(inputs.shape[0], len(chosen), -1)
