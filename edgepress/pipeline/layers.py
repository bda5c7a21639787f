"""The layer table of the report: every node with weights, before and after: widths, arithmetic, bits, bytes, error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from edgepress.levels import INT8, bits, within
from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.context import Context
from edgepress.pipeline.layer_errors import layer_sqnr
from edgepress.pipeline.stored_weights import File, in_coded_file
from edgepress.plan import Cut, Quantization
from edgepress.planner.macs import work_of
from edgepress.quantize import stays_float
from edgepress.report.result import LayerRow

BLOCK_LEVELS = 16
"""Levels of weights in blocks."""

ASKED = "kept float by --keep-float"
FOR_QUALITY = "kept float for quality"
STORED = "weights stored as integers, arithmetic float"
NO_KERNEL = "there is no int8 kernel for it"


def layers(context: Context | None, model: Model, chosen: Candidate, asked: Collection[str] = ()) -> list[LayerRow]:
    """A row for every node that multiplies by a constant; groups say how wide the cut left them.

    Args:
        context: the compression; None without samples.
        model: the cleaned model.
        chosen: what became of it.
        asked: names of nodes that the user wants float.
    """
    removed = {cut.group: len(cut.removed) for cut in chosen.cuts}
    weights = {work.node: work.weight for work in reversed(work_of(model)) if work.weight is not None}
    after = _widths(context, model, weights, removed)
    ruled = context is not None and not (chosen.quantization is not None and chosen.quantization.whole)
    kept = stays_float(model, context.target) if context is not None and ruled else {}
    nodes = [node for node in model.nodes if node.name in weights]
    changed = context is not None and (chosen.cuts or chosen.quantization is not None or chosen.coding is not None)
    gone = _gone(context, chosen.cuts) if context is not None else {}
    errors = layer_sqnr(context, chosen.model, [node.name for node in nodes], gone) if context and changed else {}
    file, size = File(chosen.model), chosen.size
    made = {node.name: node for node in chosen.model.nodes}
    rows = []
    for node in nodes:
        width = _width(model, node, weights[node.name])
        reason = _reason(node, weights[node.name], chosen.quantization, kept, asked)
        stored = file.weights(_operands(node, weights[node.name], made.get(node.name)))
        if chosen.coding is not None:
            stored = in_coded_file(chosen.model, _operands(node, weights[node.name], made.get(node.name)), node)
        levels = _levels(node.name, chosen.quantization) if stored.integers and chosen.quantization else None
        low, high = stored.scales or (None, None)
        rows.append(
            LayerRow(
                node=node.name,
                op=node.op,
                width_before=width,
                width_after=after.get(node.name, width),
                runs_as=_runs_as(chosen.quantization, reason),
                reason=reason,
                bits=stored.bits if levels is None else bits(levels),
                levels=levels,
                weights=stored.count,
                file_bytes=stored.size,
                share=100 * stored.size / max(1, size),
                scale_low=low if levels is not None or stored.bits is not None else None,
                scale_high=high if levels is not None or stored.bits is not None else None,
                sqnr_db=errors.get(node.name),
            )
        )
    return rows


def integer_nodes(context: Context, model: Model, quantization: Quantization | None) -> frozenset[str]:
    """Names of the weighted nodes of the cleaned model that compute in integers."""
    if quantization is None:
        return frozenset()
    kept = {} if quantization.whole else stays_float(model, context.target)
    weights = {work.node: work.weight for work in reversed(work_of(model)) if work.weight is not None}
    return frozenset(name for name in weights if not _reason(model.node(name), weights[name], quantization, kept, ()))


def _runs_as(quantization: Quantization | None, reason: str) -> Literal["int8", "int16", "float32"]:
    if quantization is None or reason:
        return "float32"
    return "int16" if quantization.activation_bits == 16 else "int8"


def _operands(node: Node, weight: str, made: Node | None) -> tuple[str, ...]:
    """The inputs of a node of the result that hold its weights: all, where it is another operator or has several."""
    if made is None:
        return ()
    same = node.op == made.op and node.op in WEIGHTED
    return (made.inputs[node.inputs.index(weight)],) if same else made.inputs


def _levels(name: str, quantization: Quantization) -> int:
    """Values that an integer weight of a node may take."""
    if name in quantization.blocked:
        return BLOCK_LEVELS
    low, high = within(quantization.levels.get(name, INT8), quantization.weight_limit)
    return high - low + 1


def _gone(context: Context, cuts: Sequence[Cut]) -> dict[str, np.ndarray]:
    """Output channels that cuts take from nodes, by node."""
    removed = {cut.group: list(cut.removed) for cut in cuts}
    found: dict[str, np.ndarray] = {}
    for group in context.grouping.groups:
        for site in group.sites:
            node = context.model.node(site.node)
            if removed.get(group.name) and site.role != "in" and node.op in WEIGHTED and site.tensor == node.inputs[1]:
                taken = site.index[removed[group.name]].ravel()
                found[site.node] = np.union1d(found.get(site.node, taken), taken)
    return found


def _reason(
    node: Node, weight: str, quantization: Quantization | None, kept: Mapping[str, str], asked: Collection[str]
) -> str:
    """Why a node of an int8 model computes in float; empty where it does not, or where all is float."""
    if quantization is None or node.name in (*quantization.dynamic, *quantization.blocked, *quantization.recurrent):
        return ""
    if node.name in quantization.float_nodes:
        return ASKED if node.name in asked else FOR_QUALITY
    if quantization.compute == "float":
        return STORED
    if node.op not in WEIGHTED or weight != node.inputs[1]:
        return NO_KERNEL
    return kept.get(node.name, "")


def _axis(node: Node, weight: str, rank: int) -> int:
    """Axis of the weight that makes output channels."""
    if node.op in ("Conv", "LSTM", "GRU", "RNN"):
        return 0 if node.op == "Conv" else 1
    if node.op == "ConvTranspose":
        return 1
    if node.op == "Einsum":
        terms, _, makes = str(node.attributes["equation"]).replace(" ", "").partition("->")
        own = terms.split(",")[node.inputs.index(weight)]
        return next((axis for axis, letter in enumerate(own) if letter in makes), rank - 1)
    return 0 if node.attributes.get("transB", 0) or weight == node.inputs[0] else rank - 1


def _width(model: Model, node: Node, weight: str) -> int:
    """Output channels: of all groups of a ConvTranspose, hidden units of a recurrent node."""
    shape = model.constants[weight].shape
    width = shape[_axis(node, weight, len(shape))]
    gates = {"LSTM": 4, "GRU": 3}.get(node.op, 1)
    groups = int(node.attributes.get("group", 1)) if node.op == "ConvTranspose" else 1
    return int(width * groups // gates)


def _widths(
    context: Context | None, model: Model, weights: Mapping[str, str], removed: Mapping[str, int]
) -> dict[str, int]:
    """Output channels after the cut, of nodes whose output channels a shrunken group owns."""
    if context is None:
        return {}
    found: dict[str, int] = {}
    for group in context.grouping.groups:
        for site in group.sites:
            node = model.node(site.node)
            if removed.get(group.name) and weights.get(node.name) == site.tensor and site.role != "in":
                whole = _width(model, node, site.tensor)
                length = model.constants[site.tensor].shape[site.axis]
                gone = removed[group.name] * site.index.shape[1] * whole // length
                found[site.node] = found.get(site.node, whole) - gone
    return found
