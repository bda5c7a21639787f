"""Which values of a graph are known without looking at activations: the host values.

Shape and Size make host values, so do integer constants, and so does every node whose data are host values. Float
constants with at most one number per axis may take part in that arithmetic (``Shape -> Cast -> Mul by 0.5 -> Floor``)
but do not start it: a slice of a positional embedding at host positions, or an embedding added to zeros of a computed
shape, stays a tensor with a gradient, and a weight stays a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import numpy_helper

from edgepress.model import Node
from edgepress.ops.row import TRAINED, Input, Op

Known = Mapping[str, "np.dtype | None"]
"""What the host may read: None for a host value, the element type in the file for a small float constant."""

AXES = 8
"""Most elements of a float constant that counts as numbers of the shape arithmetic: one per axis."""

ASIDE = frozenset({Input.SHAPE, Input.INDEX, Input.BOUND})
"""Inputs that steer an operator; what comes out is made of the others."""

MEASURED = ("Shape", "Size")
"""Operators that look at the shape of their input alone."""


def of_constants(constants: Mapping[str, np.ndarray]) -> dict[str, np.dtype | None]:
    """How constants take part: whole numbers are host values, few floats may be read, many are tensors."""
    return {
        name: array.dtype if is_float(array.dtype) else None
        for name, array in constants.items()
        if array.size <= AXES or not is_float(array.dtype)
    }


def hosted(known: Known, name: str) -> bool:
    """Whether a tensor is a host value."""
    return name in known and known[name] is None


def is_float(dtype: np.dtype) -> bool:
    """A float type, bfloat16 and its kin included (to numpy those are structureless extension types)."""
    return bool(np.issubdtype(dtype, np.floating)) or dtype.name.startswith(("bfloat", "float"))


def stays_on_host(node: Node, row: Op, known: Known) -> bool:
    """Whether the outputs of a node are host values.

    Args:
        node: a node that is run by a kernel.
        row: its row of the operator table.
        known: what is known of the tensors before it.
    """
    if node.op in MEASURED and not node.domain:
        return True
    if node.op == "Constant" and not node.domain:
        return None in of_attributes(node.attributes, "").values()
    given = [(row.kind(slot), name) for slot, name in enumerate(node.inputs) if name]
    if not given or any(name not in known for _, name in given):
        return False
    if any(kind in TRAINED and known[name] is not None for kind, name in given):
        return False
    deciding = [name for kind, name in given if kind not in ASIDE] or [name for _, name in given]
    return any(hosted(known, name) for name in deciding)


def of_attributes(attributes: Mapping[str, Any], name: str) -> dict[str, np.dtype | None]:
    """As :func:`of_constants`, for what a Constant node of these attributes calls ``name``."""
    if "value_float" in attributes or "value_floats" in attributes:
        listed = attributes.get("value_floats", (0.0,))
        return of_constants({name: np.zeros(len(listed), np.float32)})
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(0, np.int64)
    return of_constants({name: value})
