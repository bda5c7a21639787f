"""Products: MatMul and Gemm as ``y = x W + b`` with a constant float32 ``W [K, N]``, and how many rows ``x`` has.

A Gemm is one if it neither scales nor transposes x (alpha = beta = 1, transA = 0); its ``b`` may be anything an Add
takes. The rows of a call are the product of all axes of x but the last. Free axes have the sizes the caller gives them;
without, the rows are unknown, and at least the product of the axes that are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgepress.model import Model, Node
from edgepress.quantize.graph.regions import MATRICES, typed


@dataclass(frozen=True, slots=True)
class Product:
    """One MatMul or Gemm.

    Attributes:
        node: the node.
        weight: float32 ``[K, N]``.
        bias: name of what is added, empty for nothing.
        transposed: whether the file keeps the weight as ``[N, K]``.
    """

    node: Node
    weight: np.ndarray
    bias: str
    transposed: bool


def judged(model: Model, why_not: Callable[[Model, Node], str]) -> dict[str, str]:
    """Every MatMul and Gemm of a model with the reason why a form is nothing for it; empty if it may pay.

    Args:
        model: a float model.
        why_not: the reason, of the typed model and a node.
    """
    model = typed(model)
    return {node.name: why_not(model, node) for node in model.nodes if node.op in MATRICES}


def product(model: Model, node: Node) -> Product | str:
    """The product a MatMul or Gemm computes, or the reason why it is none."""
    if node.domain not in ("", "ai.onnx") or node.op not in ("MatMul", "Gemm"):
        return "it is neither MatMul nor Gemm"
    weight = model.constants.get(node.inputs[1])
    if weight is None or node.inputs[0] in model.constants:
        return "its weight is computed, not constant" if weight is None else "it multiplies two constants"
    if weight.dtype != np.float32 or weight.ndim != 2:
        return f"its weight is {weight.dtype} of {weight.ndim} axes, not a float32 matrix"
    given = node.attributes
    if given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0 or given.get("transA", 0):
        return "it scales or transposes its input"
    if not np.isfinite(weight).all():
        return "its weight has values that are not finite"
    transposed = bool(given.get("transB", 0))
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    return Product(node, weight.T if transposed else weight, bias, transposed)


def channel_bias(model: Model, found: Product) -> np.ndarray | None:
    """The bias as float32 ``[N]``; None where it is computed, differs between rows, or is not there."""
    values = model.constants.get(found.bias)
    width = found.weight.shape[1]
    if values is None or values.size not in (1, width) or (values.ndim and values.shape[-1] != values.size):
        return None
    return np.array(np.broadcast_to(values.reshape(-1), width), np.float32)


def bias_behind(model: Model, found: Product) -> tuple[Node, str] | None:
    """The Add that alone reads a product and adds a row of constants to it, and the name of these."""
    output = found.node.output
    readers = model.consumers(output)
    if len(readers) != 1 or readers[0].op != "Add" or output in model.outputs:
        return None
    other = next((name for name in readers[0].inputs if name != output), output)
    values = model.constants.get(other)
    row = values is not None and values.ndim > 0 and values.size == values.shape[-1] > 1
    return (readers[0], other) if row else None


def fits(model: Model, found: Product, name: str) -> bool:
    """Whether a constant is a number for every output channel that leaves the result its shape.

    The types of ``model`` are stated, or only constants of one axis fit.
    """
    values, known = model.constants[name], model.types.get(found.node.inputs[0])
    rank = len(known.shape) if known is not None and known.shape is not None else 1
    return values.ndim <= rank and values.size == found.weight.shape[1]


def rows(model: Model, node: Node, sizes: Mapping[str, int]) -> tuple[int, bool]:
    """Rows of ``x`` in one call (at least), and whether that is all of them.

    Args:
        model: a model whose tensor types are stated.
        node: a MatMul or Gemm.
        sizes: sizes of free axes by their names.
    """
    known = model.types.get(node.inputs[0])
    if known is None or known.shape is None:
        return 1, False
    axes = [sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in known.shape[:-1]]
    whole = [axis for axis in axes if isinstance(axis, int)]
    return math.prod(whole), len(whole) == len(axes)
