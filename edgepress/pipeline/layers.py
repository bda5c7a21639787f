"""The layer table of the report: width and arithmetic of every node with weights, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgepress.model import Model, Node
from edgepress.ops.weighted import WEIGHTED
from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.context import Context
from edgepress.plan import Quantization
from edgepress.planner.macs import work_of
from edgepress.quantize import stays_float
from edgepress.report.result import LayerRow

STORED = "weights stored as int8, arithmetic float"
NO_KERNEL = "there is no int8 kernel for it"


def layers(context: Context | None, model: Model, chosen: Candidate) -> list[LayerRow]:
    """Widths and bits of every node that multiplies by a constant; groups say how wide the cut left them."""
    removed = {cut.group: len(cut.removed) for cut in chosen.cuts}
    weights = {work.node: work.weight for work in reversed(work_of(model)) if work.weight is not None}
    after = _widths(context, model, weights, removed)
    kept = {} if context is None else stays_float(model, context.target)
    rows = []
    for node in model.nodes:
        if node.name in weights:
            width = _width(model, node, weights[node.name])
            reason = _reason(node, weights[node.name], chosen.quantization, kept)
            bits: Literal["int8", "float32"] = "float32" if chosen.quantization is None or reason else "int8"
            rows.append(LayerRow(node.name, node.op, width, after.get(node.name, width), bits, reason))
    return rows


def _reason(node: Node, weight: str, quantization: Quantization | None, kept: Mapping[str, str]) -> str:
    """Why a node of an int8 model computes in float; empty where it does not, or where all is float."""
    if quantization is None:
        return ""
    if quantization.compute == "float":
        return STORED
    if node.op not in WEIGHTED or weight != node.inputs[1]:
        return NO_KERNEL
    return kept.get(node.name, "kept float for quality" if node.name in quantization.float_nodes else "")


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
