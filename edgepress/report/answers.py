"""Answers to one question about a model's channels: about a tensor, or about an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from edgepress.errors import Refusal
from edgepress.report import layout
from edgepress.report.result import dump, load

TENSOR_FORMAT = "edgepress-explain-tensor/1"
OPERATOR_FORMAT = "edgepress-explain-operator/1"
Kind = Literal["input", "output", "weight", "activation"]
FEW = 8
"""Weights shown of those that shrink with a group."""
ENDS = 3
"""Nodes shown of either end of a long way."""


@dataclass(frozen=True, slots=True)
class AxisRow:
    """Channels of one group along one axis of a tensor.

    Attributes:
        axis: the axis.
        group: name of the group.
        channels: how many channels the group has.
        positions: how many positions of the axis belong to them.
        producers: nodes that make them.
        consumers: nodes that sum over them.
        shrinks: every weight axis that shrinks with them, as ``weight (axis 0)``.
        refusal: why they must stay; None when they may go.
        stopper: the node, graph input or graph output that makes it impossible; "" where nothing does.
        way: nodes between this tensor and the stopper, the stopping one last; empty without a stopper.
        joins: nodes that join streams of these channels, which then live and die together.
    """

    axis: int
    group: str
    channels: int
    positions: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    shrinks: tuple[str, ...]
    refusal: str | None
    stopper: str
    way: tuple[str, ...]
    joins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TensorAnswer:
    """What is known about the channels of one tensor.

    Attributes:
        model: path.
        tensor: its name.
        kind: what it is.
        shape: as analysed, symbolic sizes bound; None when it is not known.
        producer: the node that makes it; "" for inputs and weights.
        consumers: nodes that read it.
        axes: its channels, by axis and group.
        reasons: why positions that belong to no group must stay.
        notes: what was assumed.
    """

    model: str
    tensor: str
    kind: Kind
    shape: tuple[int, ...] | None
    producer: str
    consumers: tuple[str, ...]
    axes: tuple[AxisRow, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The answer as indented JSON."""
        return dump(TENSOR_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> TensorAnswer:
        """Read an answer (InputError if it is none)."""
        return load(cls, TENSOR_FORMAT, text)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """What channels do at one node.

    Attributes:
        node: its name.
        passes: groups that reach it and may be cut.
        stays: groups that reach it and must stay for another reason, which came first (``OperatorAnswer.held``).
        stops: groups that this node stops.
        reason: why it stops them; "" if it stops none.
    """

    node: str
    passes: tuple[str, ...]
    stays: tuple[str, ...]
    stops: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class OperatorAnswer:
    """What edgepress does with channels at every node of one operator.

    Attributes:
        model: path.
        operator: with its domain.
        known: whether the operator table has a row for it.
        rule: name of its rule, ``wall``, ``other`` or ``unknown``.
        meaning: what that means, in a sentence.
        nodes: every node of it.
        held: why the groups among ``NodeRow.stays`` must stay.
        notes: what was assumed, or what became of nodes of the file.
    """

    model: str
    operator: str
    known: bool
    rule: str
    meaning: str
    nodes: tuple[NodeRow, ...]
    held: tuple[Refusal, ...]
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """The answer as indented JSON."""
        return dump(OPERATOR_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> OperatorAnswer:
        """Read an answer (InputError if it is none)."""
        return load(cls, OPERATOR_FORMAT, text)


def render(answer: TensorAnswer | OperatorAnswer, console: Console) -> None:
    """Print an answer as a page."""
    if isinstance(answer, TensorAnswer):
        _tensor(answer, console)
    else:
        _operator(answer, console)
    for note in answer.notes:
        layout.paragraph(console, "note", note)


def pairs(answer: TensorAnswer | OperatorAnswer) -> list[tuple[str, str]]:
    """An answer as keys and values for a pipe."""
    found = _tensor_pairs(answer) if isinstance(answer, TensorAnswer) else _operator_pairs(answer)
    return found + [("note", note) for note in answer.notes]


def _tensor(answer: TensorAnswer, console: Console) -> None:
    layout.sentence(console, _verdict(answer), "bold")
    console.print()
    shape = "unknown" if answer.shape is None else " × ".join(map(str, answer.shape)) or "one number"
    layout.paragraph(console, "shape", shape)
    layout.paragraph(console, "made by", answer.producer or {"weight": "the file", "input": "the caller"}[answer.kind])
    layout.items(console, "read by", answer.consumers or ["nobody"])
    for row in answer.axes:
        console.print()
        _axis(row, console)
    for reason in answer.reasons:
        layout.paragraph(console, "must stay", reason)


def _verdict(answer: TensorAnswer) -> str:
    what = f"{answer.tensor} ({answer.kind})"
    if answer.kind == "weight" and answer.axes:
        return f"{what}: {_weight_verdict(answer.axes)}."
    free = sum(row.positions for row in answer.axes if row.refusal is None)
    kept = sum(row.positions for row in answer.axes if row.refusal is not None)
    if free and kept:
        return f"{what}: {free} of its channels may go, {kept} must stay."
    if not free and not kept:
        return f"{what}: no channels of it may go."
    return f"{what}: its {free} channels may go." if free else f"{what}: its {kept} channels must stay."


def _weight_verdict(rows: Sequence[AxisRow]) -> str:
    """Which axes may shrink: a weight has channels of several layers, and several rows for one (gates)."""
    free = sorted({row.axis for row in rows if row.refusal is None})
    kept = sorted({row.axis for row in rows if row.refusal is not None})
    may = f"it may shrink along {_axes(free)}" + " in part" * any(axis in kept for axis in free)
    whole = [axis for axis in kept if axis not in free]
    must = f"{_axes(whole)} must stay whole"
    return f"{may}, {must}" if free and whole else may if free else must


def _axes(axes: Sequence[int]) -> str:
    return ("axes " if len(axes) > 1 else "axis ") + " and ".join(map(str, axes))


def _axis(row: AxisRow, console: Console) -> None:
    layout.paragraph(console, f"axis {row.axis}", f"{_plural(row.positions, 'position')} of group {_sized(row)}")
    layout.items(console, "made by", row.producers)
    layout.items(console, "used by", row.consumers or ["nobody"])
    layout.items(console, "shrinks", _few(row.shrinks))
    if row.refusal is None:
        layout.paragraph(console, "may go", "all of it but one channel", "green")
        return
    layout.paragraph(console, "must stay", row.refusal, "yellow")
    if len(row.way) > 1:
        layout.paragraph(console, "on the way", " → ".join(shortened(row.way)))
    if row.joins:
        layout.items(console, "joined at", row.joins)


def _few(texts: Sequence[str]) -> list[str]:
    """The first of many."""
    more = len(texts) - FEW
    return list(texts) if more <= 1 else [*texts[:FEW], f"{more} more (--json lists all)"]


def _sized(row: AxisRow) -> str:
    return f"{row.group} ({_plural(row.channels, 'channel')})"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


def shortened(way: Sequence[str]) -> list[str]:
    """A way with its middle left out if it is long."""
    left_out = len(way) - 2 * ENDS
    return list(way) if left_out <= 1 else [*way[:ENDS], f"{left_out} nodes", *way[-ENDS:]]


def _tensor_pairs(answer: TensorAnswer) -> list[tuple[str, str]]:
    shape = "" if answer.shape is None else ",".join(map(str, answer.shape))
    found = [("tensor", answer.tensor), ("kind", answer.kind), ("shape", shape)]
    found += [("producer", answer.producer), ("consumers", ",".join(answer.consumers))]
    for row in answer.axes:
        key = f"axis.{row.axis}.{row.group}"
        found += [(f"{key}.positions", str(row.positions)), (f"{key}.channels", str(row.channels))]
        found += [(f"{key}.producers", ",".join(row.producers)), (f"{key}.consumers", ",".join(row.consumers))]
        found += [(f"{key}.shrinks", text) for text in row.shrinks]
        found += [(f"{key}.refusal", row.refusal or ""), (f"{key}.stopper", row.stopper)]
        found += [(f"{key}.way", ",".join(row.way)), (f"{key}.joins", ",".join(row.joins))]
    return found + [("reason", reason) for reason in answer.reasons]


def _operator(answer: OperatorAnswer, console: Console) -> None:
    walls = sum(bool(node.stops) for node in answer.nodes)
    count = _plural(len(answer.nodes), "node")
    ending = f", {walls} of them stop channels" if walls else ", none of them stops channels" if answer.nodes else ""
    layout.sentence(console, f"{answer.operator}: {count}{ending}.", "bold")
    console.print()
    layout.paragraph(
        console, "rule" if answer.known else "unknown", answer.meaning, "dim" if answer.known else "yellow"
    )
    for node in answer.nodes:
        if node.passes:
            layout.items(console, "passes", [f"{node.node}: {', '.join(node.passes)}"])
        if node.stops:
            layout.paragraph(console, "stops", f"{node.node}: {', '.join(node.stops)} ({node.reason})", "yellow")
        elif node.reason:
            layout.paragraph(console, "wall", f"{node.node}: {node.reason}")
    for refusal in answer.held:
        reached = sum(refusal.what in node.stays for node in answer.nodes)
        layout.paragraph(console, "held", f"{refusal.what}, at {_plural(reached, 'node')}: {refusal.reason}")


def _operator_pairs(answer: OperatorAnswer) -> list[tuple[str, str]]:
    found = [("operator", answer.operator), ("rule", answer.rule), ("meaning", answer.meaning)]
    for node in answer.nodes:
        key = f"node.{node.node}"
        found += [(f"{key}.passes", ",".join(node.passes)), (f"{key}.stays", ",".join(node.stays))]
        found += [(f"{key}.stops", ",".join(node.stops)), (f"{key}.reason", node.reason)]
    return found + [("held", str(refusal)) for refusal in answer.held]
