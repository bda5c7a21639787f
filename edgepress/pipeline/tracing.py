"""Answers to one question about a model's channels, read off its grouping: about a tensor, or about an operator."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgepress.errors import Refusal
from edgepress.groups import Group, Site
from edgepress.model import Model, Node
from edgepress.ops.couple import words
from edgepress.ops.labels import core
from edgepress.ops.table import lookup
from edgepress.pipeline.ways import Traced, called, joins, operator_name, way_to_stopper
from edgepress.report.answers import AxisRow, Kind, NodeRow, OperatorAnswer, TensorAnswer


def tensor_names(model: Model) -> dict[str, None]:
    """Every tensor that can be asked about, in graph order."""
    made = (name for node in model.nodes for name in (*node.inputs, *node.outputs) if name)
    return dict.fromkeys((*model.inputs, *made, *model.outputs, *model.constants))


def about_tensor(traced: Traced, tensor: str) -> TensorAnswer:
    """What is known about the channels of a tensor."""
    model = traced.model
    rows = _site_rows(traced, tensor) if tensor in model.constants else _activation_rows(traced, tensor)
    axes = tuple(sorted(rows, key=lambda row: row.axis))
    producer = model.producer(tensor)
    return TensorAnswer(
        model=traced.path,
        tensor=tensor,
        kind=_kind(model, tensor),
        shape=_shape(traced, tensor),
        producer="" if producer is None else called(producer),
        consumers=tuple(map(called, model.consumers(tensor))),
        axes=axes,
        reasons=() if axes else tuple(_fixed(traced, tensor)),
        notes=traced.notes,
    )


def about_operator(original: Model, traced: Traced, operator: str) -> OperatorAnswer:
    """What happens to channels at the nodes of an operator; ``original`` is the model before it was cleaned."""
    nodes = [node for node in traced.model.nodes if operator_name(node) == operator]
    before = [node for node in original.nodes if operator_name(node) == operator]
    side = (nodes[0], traced.model) if nodes else (before[0], original)
    row = lookup(side[0].op, side[0].domain, side[1].opsets.get(side[0].domain, 1))
    gone = f"{len(before)} of them are in the file; cleaning merges them into others or removes them, so none is left."
    rows = tuple(_node_row(traced, node) for node in nodes)
    return OperatorAnswer(
        model=traced.path,
        operator=operator,
        known=row is not None,
        rule=words.short(row),
        meaning=words.sentence(row),
        nodes=rows,
        held=tuple(_held(traced, {name for row in rows for name in row.stays})),
        notes=(*(() if nodes else (gone,)), *traced.notes),
    )


def _held(traced: Traced, names: set[str]) -> Iterator[Refusal]:
    """Why these groups must stay."""
    for group in traced.grouping.groups:
        if group.name in names and group.refusal is not None:
            yield Refusal(group.name, group.refusal.reason)


def _node_row(traced: Traced, node: Node) -> NodeRow:
    groups = [traced.grouping.group(name) for name in traced.at(node)]
    stops = [group for group in groups if group.stopper == node.name]
    walls = [refusal.reason for refusal in traced.grouping.refusals if refusal.what == node.name]
    reason = next((group.refusal.reason for group in stops if group.refusal is not None), "")
    return NodeRow(
        node=node.name,
        passes=tuple(group.name for group in groups if group.refusal is None),
        stays=tuple(group.name for group in groups if group.refusal is not None and group not in stops),
        stops=tuple(group.name for group in stops),
        reason=reason.removeprefix(f"stopped by {node.name!r}: ") or next(iter(walls), ""),
    )


def _kind(model: Model, tensor: str) -> Kind:
    if tensor in model.constants:
        return "weight"
    return "input" if tensor in model.inputs else "output" if tensor in model.outputs else "activation"


def _shape(traced: Traced, tensor: str) -> tuple[int, ...] | None:
    if tensor in traced.grouping.channels:
        return traced.grouping.channels[tensor].shape
    known = traced.model.types.get(tensor)
    shape = () if known is None or known.shape is None else known.shape
    numbers = tuple(size for size in shape if isinstance(size, int))
    return numbers if known is not None and len(numbers) == len(known.shape or ()) else None


# --- rows -------------------------------------------------------------------------------------------------------------


def _site_rows(traced: Traced, tensor: str) -> Iterator[AxisRow]:
    """Channels of a weight: the axes that shrink with a group."""
    seen = set()
    for group in traced.grouping.groups:
        for site in group.sites:
            if site.tensor == tensor and (site.axis, group.name) not in seen:
                seen.add((site.axis, group.name))
                yield _row(traced, tensor, site.axis, group, site.index.size)


def _activation_rows(traced: Traced, tensor: str) -> Iterator[AxisRow]:
    """Channels of an activation: the axes along which channel numbers of a group vary."""
    grouping = traced.grouping
    numbers = core(grouping.channels[tensor]) if tensor in grouping.channels else np.zeros(0, np.int64)
    for group in grouping.groups:
        first = grouping.first[group.name]
        own = np.where((numbers >= first) & (numbers < first + group.size), numbers, 0)
        for axis in range(own.ndim) if own.any() else ():
            lines = np.moveaxis(own, axis, 0).reshape(own.shape[axis], -1)
            if (lines != lines[:1]).any() or own.size == 1:
                yield _row(traced, tensor, axis, group, int(lines.any(axis=1).sum()))


def _row(traced: Traced, tensor: str, axis: int, group: Group, positions: int) -> AxisRow:
    return AxisRow(
        axis=axis,
        group=group.name,
        channels=group.size,
        positions=positions,
        producers=group.producers,
        consumers=group.consumers,
        shrinks=tuple(dict.fromkeys(_site(site) for site in group.sites if (site.tensor, site.axis) != (tensor, axis))),
        refusal=None if group.refusal is None else str(group.refusal).removeprefix(f"{group.name}: "),
        stopper=group.stopper,
        way=way_to_stopper(traced, tensor, group),
        joins=() if group.refusal is None else tuple(joins(traced, group)),
    )


def _site(site: Site) -> str:
    return f"{site.tensor} (axis {site.axis})"


# --- tensors without groups -------------------------------------------------------------------------------------------


def _fixed(traced: Traced, tensor: str) -> Iterator[str]:
    """Why no channel of a tensor may go."""
    model = traced.model
    if tensor in model.constants:
        yield from _whole(traced, tensor)
        return
    if tensor not in traced.grouping.channels:
        yield from (str(refusal) for refusal in traced.grouping.refusals if not traced.grouping.groups)
        yield "it depends on shapes alone, or was not reached by the analysis: it holds no channels."
        return
    way: list[str] = []
    while (node := model.producer(tensor)) is not None:
        way.append(node.name)
        stops = _node_row(traced, node)
        if stops.reason or lookup(node.op, node.domain, model.opsets.get(node.domain, 1)) is None:
            reason = stops.reason or f"unknown operator {operator_name(node)}"
            yield f"channels stop at {called(node)}: {reason}; what leaves it stays whole{_behind(way)}."
            return
        before = [name for name in node.inputs if name in traced.grouping.channels]
        if not before or any(traced.carried.get(name) for name in before):
            yield f"{called(node)} leaves no channels in it that a layer made{_behind(way)}."
            return
        tensor = before[0]
    yield f"its channels come from the graph input {tensor!r}, which the caller hands over{_behind(way)}."


def _behind(way: list[str]) -> str:
    return "" if len(way) < 2 else f" (by way of {', '.join(reversed(way[:-1][:3]))})"


def _whole(traced: Traced, tensor: str) -> Iterator[str]:
    """Why no axis of a weight shrinks."""
    readers = traced.model.consumers(tensor)
    for node in readers:
        reason = _node_row(traced, node).reason
        yield f"{called(node)} reads all of it" + (f": {reason}." if reason else ": no axis of it belongs to channels.")
    if not readers:
        yield "no node of the main graph reads it."
