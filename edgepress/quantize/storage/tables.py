"""Tables: constants that a Gather reads rows of (embeddings), kept as integers with one scale for every row.

    only gathered   Gather(q8, i), Gather(s, i), then Cast and Mul      the table stays int8 in memory, too
    read by others  q8, Cast, Mul to the old name (see ``stored``)      multiplied out once, when the file is loaded

Either way a row has the very values ``float(q8) * s``. A table may also be the weight of an output layer, which its
file then keeps a second time, transposed: ``share_transposed`` keeps one of the two and lets a Transpose, which
onnxruntime computes when it loads the file, make the other. Rows of a table have the scales of the output channels of
that layer, so the integers of both are the same, whether the layer is stored, or quantized by ``dynamic``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import onnx

from edgepress import storage
from edgepress.errors import ModelError
from edgepress.model import Model, Node
from edgepress.quantize.forms.draft import FLOAT, INT8, Draft, node
from edgepress.quantize.storage.stored import LEAST_ELEMENTS, integers, storable, store


def table_candidates(model: Model, least: int = LEAST_ELEMENTS) -> dict[str, str]:
    """Every float32 constant that a Gather reads rows of, with the reason why it stays float; empty if it need not."""
    return {name: reason for name, reason in storable(model, least).items() if _gathers(model, name)}


def tables(model: Model, names: Collection[str], bits: int = 8) -> Model:
    """The model with tables of integers.

    Args:
        model: a float model.
        names: float32 initializers (see :func:`table_candidates`).
        bits: 8, or 4 (operator set 21, onnxruntime 1.24 or newer; int8 in memory).

    Raises:
        ModelError: a name is no float32 initializer that a Gather reads rows of, or 4 bits in an old operator set.
        InputError: another number of bits.
    """
    draft = Draft(model)
    elsewhere = _read_in_bodies(model) | set(model.outputs)
    for name in sorted(names):
        gathers = _gathers(model, name)
        if not gathers:
            raise ModelError(f"{name!r} is no table: no Gather reads its rows.")
        if name in elsewhere or len(gathers) < len(model.consumers(name)):
            store(draft, name, (0,), bits)
        else:
            _gather_integers(draft, name, gathers, bits)
    return draft.finish()


def _gathers(model: Model, name: str) -> list[Node]:
    """The nodes that read rows of a constant, and it as nothing else."""
    values = model.constants.get(name)
    if values is None or values.ndim < 2:
        return []
    return [
        each
        for each in model.consumers(name)
        if each.op == "Gather" and each.inputs[1] != name and each.attributes.get("axis", 0) % values.ndim == 0
    ]


def _read_in_bodies(model: Model) -> set[str]:
    bodies = (
        body
        for each in model.frame().graph.node
        for attribute in each.attribute
        for body in (attribute.g, *attribute.graphs)
    )
    return {name for body in bodies for name in storage.read_names(body)}


def _gather_integers(draft: Draft, name: str, gathers: Collection[Node], bits: int) -> None:
    values, scale = integers(draft.model, name, (0,), bits)
    if bits == 4:
        kept = draft.first("Cast", [draft.nibbles(f"{name}/q4", values)], draft.fresh(f"{name}/q"), to=INT8)
    else:
        kept = draft.constant(f"{name}/q", values)
    steps = draft.constant(f"{name}/s", scale)
    for each in gathers:
        draft.replace(each, _written(draft, each, kept, steps))


def _written(draft: Draft, old: Node, table: str, scale: str) -> list[onnx.NodeProto]:
    rows, real, steps = (draft.fresh(f"{old.output}/{part}") for part in ("q", "f", "s"))
    return [
        node("Gather", [table, old.inputs[1]], [rows], name=old.name, axis=0),
        node("Gather", [scale, old.inputs[1]], [steps], axis=0),
        node("Cast", [rows], [real], to=FLOAT),
        node("Mul", [real, steps], [old.output]),
    ]


def share_transposed(model: Model, least: int = LEAST_ELEMENTS) -> Model:
    """The model without the second of two matrices of which one is the other transposed.

    To be called last: the other rewrites take constants, and the shared one is none any more.
    """
    draft = Draft(model)
    large = {name: values for name, values in model.constants.items() if values.ndim == 2 and values.size >= least}
    seen: dict[tuple[object, ...], str] = {}
    for name, values in large.items():
        other = seen.get(_key(values.T))
        if other is None or values.shape[0] == 1 or values.shape[1] == 1:
            seen.setdefault(_key(values), name)
        else:
            draft.first("Transpose", [other], draft.vacate(name), perm=[1, 0])
    return draft.finish()


def _key(values: np.ndarray) -> tuple[object, ...]:
    return str(values.dtype), values.shape, hashlib.sha256(np.ascontiguousarray(values).data).digest()
