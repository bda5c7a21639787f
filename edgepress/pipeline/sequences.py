"""Integer forms for transformers and recurrent networks: which nodes get which, combined; all are judged and timed.

    dynamic     products that round their input as it comes: many rows
    blocked     4-bit weights in blocks: few rows, where fetching the weights takes the time
    recurrent   LSTM with int8 products
    int8        convolutions with fixed ranges beside them, where there are any that pay

Beside them, and in all other integer forms, too, what no product reads is stored as integers: tables, weights of
recurrent layers, of transposed convolutions. Rows of a call are those of one sample. Rules of thumb of the forms keep
the list short; whether a form is taken is decided by hold-out samples and the clock. Blocks with a bias need
onnxruntime 1.19: they are left out if an older one is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from edgepress.model import Model
from edgepress.ops.row import Role
from edgepress.plan import Quantization
from edgepress.quantize import (
    blocked_candidates,
    dynamic_candidates,
    has_float32_weight,
    recurrent_candidates,
    stays_float,
    storable,
    table_candidates,
)
from edgepress.quantize.forms.products import rows
from edgepress.quantize.graph.lowered import CONTRIBUTED
from edgepress.quantize.graph.regions import typed, units
from edgepress.targets import Target
from edgepress.targets.releases import release

LEAST = 256
"""Elements of a constant from which integers take fewer bytes, nodes and scales included."""

SHARE = 0.02
"""Least share of a file of int8 weights that such constants would take as floats, for them to be stored as integers."""

LARGE = 1 << 18
"""Elements of a table from which it stays integers in memory, at the cost of three nodes for every Gather."""


def with_constants(model: Model, base: Quantization, target: Target) -> Quantization:
    """Settings that store tables and other large constants as integers, where these are a relevant share of the file.

    Args:
        model: the float model.
        base: other settings.
        target: a CPU; others have no use for it.
    """
    if target.artifact or base.scales == "power-of-two":
        return base
    tables = {name for name, reason in table_candidates(model, LEAST).items() if not reason}
    others = {name for name, reason in storable(model, LEAST).items() if not reason} - tables - _rounded(model, base)
    found = sorted(tables | others)
    if 4 * sum(model.constants[name].nbytes for name in found) < SHARE * model.size:
        return base
    kept = tuple(name for name in found if name in tables and _stays_small(model, name))
    return dataclasses.replace(base, tables=kept, stored=tuple(name for name in found if name not in kept))


def _rounded(model: Model, base: Quantization) -> set[str]:
    """Weights that are rounded or left float on other grounds."""
    weighted = {unit.name for unit in units(typed(model)) if unit.role is Role.WEIGHTED}
    return {node.inputs[1] for node in model.nodes if node.name in {*weighted, *base.float_nodes} and node.inputs[1:]}


def _stays_small(model: Model, name: str) -> bool:
    """Whether a table is large, and nothing but Gather reads it."""
    return model.constants[name].size >= LARGE and all(node.op == "Gather" for node in model.consumers(name))


def sequence_forms(
    model: Model, base: Quantization, sizes: Mapping[str, int], target: Target
) -> Iterator[Quantization]:
    """Settings of every form that may pay; none for a network without sequences.

    Args:
        model: the float model.
        base: settings that all of them share.
        sizes: sizes of free axes by their names.
        target: its rules say which convolutions pay.
    """
    if target.artifact or base.levels or base.scales == "power-of-two" or base.activation_bits != 8:
        return
    oldest = release(base.min_ort)
    layers = _able(recurrent_candidates(model), base) if oldest.version >= CONTRIBUTED["DynamicQuantizeLSTM"] else ()
    if not (layers or _has_sequences(model, sizes)):
        return
    many = _able(dynamic_candidates(model, sizes), base)
    few = _able(blocked_candidates(model, sizes), base) if oldest.biased4 or not base.min_ort else ()
    plain = dataclasses.replace(base, compute="float", recurrent=layers, stored=_without(model, base.stored, layers))
    found = [dataclasses.replace(plain, dynamic=many)] if many or layers else []
    if few:
        rest = tuple(name for name in many if name not in few)
        found.append(dataclasses.replace(plain, blocked=few, dynamic=rest))
    yield from found
    if found and _has_convolutions(model, base, target):
        yield dataclasses.replace(found[0], compute="int8")


def _able(reasons: Mapping[str, str], base: Quantization) -> tuple[str, ...]:
    """Nodes that nothing speaks against."""
    return tuple(name for name, reason in reasons.items() if not reason and name not in base.float_nodes)


def _has_sequences(model: Model, sizes: Mapping[str, int]) -> bool:
    """Whether a product has several rows in a call, or may have, or a table is read."""
    if table_candidates(model):
        return True
    stated = typed(model)
    found = [rows(stated, node, sizes) for node in stated.nodes if node.op in ("MatMul", "Gemm")]
    return any(count > 1 or not certain for count, certain in found)


def _without(model: Model, names: Collection[str], layers: Collection[str]) -> tuple[str, ...]:
    """Constants that other nodes than these layers read."""
    return tuple(name for name in names if any(node.name not in layers for node in model.consumers(name)))


def _has_convolutions(model: Model, base: Quantization, target: Target) -> bool:
    """Whether there is a convolution that pays in int8."""
    kept = {*base.float_nodes, *stays_float(model, target)}
    return any(node.op == "Conv" and node.name not in kept and has_float32_weight(model, node) for node in model.nodes)


def is_sequence_form(settings: Quantization) -> bool:
    """Whether settings have anything of the forms of this module."""
    return bool(settings.dynamic or settings.blocked or settings.recurrent)


def has_fixed_ranges(settings: Quantization) -> bool:
    """Whether every integer activation has the range that the samples showed."""
    return settings.compute == "int8" and not is_sequence_form(settings)


def only_stores(settings: Quantization) -> bool:
    """Whether what runs is the float model: all integers are multiplied out when the file is loaded."""
    return settings.compute == "float" and not settings.tables and not is_sequence_form(settings)


def form_name(settings: Quantization) -> tuple[str, str]:
    """Suffix of the name, and label, of one of these forms."""
    parts = [
        ("int8", "int8", settings.compute == "int8"),
        ("dynamic", "dynamic int8", bool(settings.dynamic)),
        ("blocked", "4-bit blocks", bool(settings.blocked)),
        ("lstm", "int8 LSTM", bool(settings.recurrent)),
    ]
    return (
        "".join(f"-{name}" for name, _, there in parts if there),
        " and ".join(label for _, label, there in parts if there),
    )
