"""The layer table of the report: width and arithmetic of every weighted node, before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgepress.model import Model
from edgepress.ops.weighted import WEIGHTED, output_axis
from edgepress.pipeline.candidates import Candidate
from edgepress.pipeline.context import Context
from edgepress.planner import count_macs
from edgepress.quantize import stays_float
from edgepress.report.result import LayerRow

STORED = "weights stored as int8, arithmetic float"


def layers(context: Context | None, model: Model, chosen: Candidate) -> list[LayerRow]:
    """Widths and bits of every weighted node; groups say how wide the cut left them."""
    removed = {cut.group: len(cut.removed) for cut in chosen.cuts}
    after = _widths(context, model, removed)
    kept = {} if context is None else stays_float(model, context.target)
    quantization = chosen.quantization
    float_nodes = () if quantization is None else quantization.float_nodes
    weighted = count_macs(model)
    rows = []
    for node in model.nodes:
        if node.name in weighted:
            width = _width(model, node.name)
            reason = kept.get(node.name, "kept float for quality" if node.name in float_nodes else "")
            reason = STORED if quantization and quantization.compute == "float" else reason
            bits: Literal["int8", "float32"] = "int8" if quantization is not None and not reason else "float32"
            rows.append(
                LayerRow(node.name, node.op, width, after.get(node.name, width), bits, reason if quantization else "")
            )
    return rows


def _width(model: Model, name: str) -> int:
    node = model.node(name)
    return int(model.constants[node.inputs[1]].shape[output_axis(node.op, node.attributes)])


def _widths(context: Context | None, model: Model, removed: Mapping[str, int]) -> dict[str, int]:
    """Output channels after the cut, of nodes whose output channels a shrunken group owns."""
    if context is None:
        return {}
    found: dict[str, int] = {}
    for group in context.grouping.groups:
        for site in group.sites:
            node = model.node(site.node)
            if removed.get(group.name) and node.op in WEIGHTED and site.tensor == node.inputs[1] and site.role != "in":
                before = found.get(site.node, _width(model, site.node))
                found[site.node] = before - removed[group.name] * site.index.shape[1]
    return found
