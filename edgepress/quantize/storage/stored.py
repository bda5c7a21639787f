"""Stored weights: constants of layers that stay float, kept in the file as integers.

    w = float(q) * s        one s for every output channel; onnxruntime multiplies it out once, when it loads the file

An int8 (or int4) initializer, a Cast and a Mul that makes a tensor of the old name: whoever read the constant, bodies
of control flow included, reads the product. Nothing of it is left in the graph that runs: time and memory are those
of float, the file is a quarter (an eighth). Guarantees: |w - w'| <= s / 2; equal rows stay equal, zero stays zero.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgepress.errors import InputError, ModelError
from edgepress.model import Model, Node
from edgepress.quantize.forms.draft import FLOAT, Draft
from edgepress.quantize.weights.nearest import round_weights

LIMITS = {8: 127, 4: 7}
"""Largest integer by bits."""

LEAST_ELEMENTS = 1024
"""Elements of a constant from which storing it as integers is worth two more nodes."""

RECURRENT = ("GRU", "LSTM", "RNN")


def storable(model: Model, least: int = LEAST_ELEMENTS) -> dict[str, str]:
    """Every float32 weight of a layer, with the reason why it is not stored as integers; empty if it can be."""
    weights = (name for name, values in model.constants.items() if values.dtype == np.float32)
    return {name: _reason(model, name, least) for name in weights if channel_axes(model, name) is not None}


def _reason(model: Model, name: str, least: int) -> str:
    values = model.constants[name]
    if values.size < least:
        return f"its {values.size} values are too few"
    return "" if np.isfinite(values).all() else "it has values that are not finite"


def channel_axes(model: Model, name: str) -> tuple[int, ...] | None:
    """Axes of a weight that have a scale for every index; None if no layer reads it as its weight."""
    found = (_axes(reader, name, model.constants[name].ndim) for reader in model.consumers(name))
    return next((axes for axes in found if axes is not None), None)


def _axes(reader: Node, name: str, rank: int) -> tuple[int, ...] | None:
    places = [place for place, tensor in enumerate(reader.inputs) if tensor == name]
    if reader.op == "Gather" and 0 in places and rank > 1 and reader.attributes.get("axis", 0) % rank == 0:
        return (0,)
    if reader.op in RECURRENT and {1, 2} & set(places):
        return (0, 1)
    if places != [1] or rank < 2:
        return None
    by_row = reader.op == "Conv" or (reader.op == "Gemm" and reader.attributes.get("transB", 0))
    if by_row:
        return (0,)
    return {"Gemm": (1,), "MatMul": (rank - 1,), "ConvTranspose": (1,)}.get(reader.op)


def stored(model: Model, names: Collection[str], bits: int = 8) -> Model:
    """The model with some of its weights kept as integers.

    Args:
        model: a float model.
        names: float32 initializers (see :func:`storable`).
        bits: 8, or 4 (operator set 21, onnxruntime 1.24 or newer).

    Raises:
        ModelError: a name is no finite float32 initializer that a layer reads, or 4 bits and an older operator set.
        InputError: another number of bits.
    """
    draft = Draft(model)
    for name in sorted(names):
        axes = channel_axes(model, name) if name in model.constants else None
        if axes is None:
            raise ModelError(f"{name!r} cannot be stored as integers: it is no weight of a layer.")
        store(draft, name, axes, bits)
    return draft.finish()


def store(draft: Draft, name: str, axes: Collection[int], bits: int) -> None:
    """Let a Cast and a Mul make the constant ``name`` of a graph under revision."""
    values, scale = integers(draft.model, name, axes, bits)
    kept = draft.nibbles(f"{name}/q", values) if bits == 4 else draft.constant(f"{name}/q", values)
    cast = draft.first("Cast", [kept], draft.fresh(f"{name}/f"), to=FLOAT)
    draft.first("Mul", [cast, draft.constant(f"{name}/s", scale)], draft.vacate(name))


def integers(model: Model, name: str, axes: Collection[int], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A constant as int8 of its shape, and float32 scales that it is multiplied by (as many axes, most of size 1).

    Raises:
        ModelError: it is not float32, or not finite.
        InputError: bits other than 8 and 4.
    """
    if bits not in LIMITS:
        raise InputError(f"Weights cannot be stored in {bits} bits: choose 8 or 4.")
    weight = model.constants[name]
    if weight.dtype != np.float32 or not np.isfinite(weight).all():
        raise ModelError(f"{name!r} cannot be stored as integers: it is {weight.dtype}, or not finite.")
    order = [*axes, *(axis for axis in range(weight.ndim) if axis not in axes)]
    moved = weight.transpose(order)
    rows = moved.reshape(int(np.prod(moved.shape[: len(axes)])), -1)
    made = round_weights(rows, 0, LIMITS[bits])
    back = np.argsort(order)
    shape = [size if axis in axes else 1 for axis, size in enumerate(weight.shape)]
    return made.values.reshape(moved.shape).transpose(back), made.scale.reshape(shape)
