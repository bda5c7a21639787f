"""The operator table, whole or as far as some models use it: data, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console

from edgepress.report import layout
from edgepress.report.result import dump, load

OPERATORS_FORMAT = "edgepress-ops/1"
NEWEST = "newest"


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One row of the operator table, or an operator of a model that has none.

    Attributes:
        operator: its type.
        domain: "" for the default domain.
        since: first version of its definition the row holds for; 0 without a row.
        until: last one; None if it holds for the newest, too.
        channels: the rule (docs/operators.md), ``wall``, ``other`` (a function of another package) or ``unknown``.
        torch: how the torch executor runs it: ``yes``, by its function ``body`` in the ONNX specification, or ``no``.
        role: what it does in an int8 graph.
        meaning: what it does with channels, in one sentence.
        counts: how many nodes of it every model has, by path; empty where no models were asked about.
    """

    operator: str
    domain: str
    since: int
    until: int | None
    channels: str
    torch: Literal["yes", "body", "no"]
    role: str
    meaning: str
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        """The operator with its domain."""
        return f"{self.domain}.{self.operator}" if self.domain else self.operator

    @property
    def known(self) -> bool:
        """Whether the table has a row for it."""
        return self.channels != "unknown"

    @property
    def versions(self) -> str:
        """The versions it holds for, as text."""
        if not self.known:
            return ""
        last = NEWEST if self.until is None else str(self.until)
        return str(self.since) if last == str(self.since) else f"{self.since}–{last}"


@dataclass(frozen=True, slots=True)
class Operators:
    """The operator table, or the operators of some models."""

    models: tuple[str, ...]
    rows: tuple[OperatorRow, ...]

    def to_json(self) -> str:
        """The table as indented JSON."""
        return dump(OPERATORS_FORMAT, self)

    @classmethod
    def from_json(cls, text: str) -> Operators:
        """Read a table (InputError if it is none)."""
        return load(cls, OPERATORS_FORMAT, text)


def render(found: Operators, console: Console) -> None:
    """Print a sentence, the table, and what unknown operators mean."""
    layout.sentence(console, _sentence(found), "bold")
    console.print()
    if found.rows:
        layout.show(console, layout.table(console, _headings(found), [_cells(found, row) for row in found.rows]))
    for row in found.rows:
        if not row.known:
            layout.paragraph(console, "unknown", f"{row.name}: {row.meaning}", "yellow")
            break  # they mean the same, all of them


def _sentence(found: Operators) -> str:
    unknown = sum(not row.known for row in found.rows)
    if not found.models:
        return f"edgepress knows {len({row.name for row in found.rows})} operators."
    where = ", ".join(found.models)
    if not found.rows:
        return f"{where}: no unknown operators."
    rest = f"{unknown} of them unknown" if unknown else "all known"
    return f"{where}: {len(found.rows)} kind{'s' * (len(found.rows) > 1)} of operators, {rest}."


def _headings(found: Operators) -> list[str]:
    return ["operator", *(["nodes"] if found.models else ["versions"]), "channels", "torch", "int8"]


def _cells(found: Operators, row: OperatorRow) -> list[str]:
    second = str(sum(row.counts.values())) if found.models else row.versions
    return [row.name, second, row.channels, row.torch, row.role]


def lines(found: Operators) -> Sequence[tuple[str, ...]]:
    """The table for a pipe: operator, domain, since, until, channels, torch, role, and nodes where models are given."""
    return [
        (
            row.operator,
            row.domain or "-",
            str(row.since) if row.known else "-",
            (NEWEST if row.until is None else str(row.until)) if row.known else "-",
            row.channels,
            row.torch,
            row.role,
            *([str(sum(row.counts.values()))] if found.models else []),
        )
        for row in found.rows
    ]
