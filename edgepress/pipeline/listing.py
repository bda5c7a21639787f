"""operators(): the operator table, or what it says about the operators of some models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from onnx import defs

from edgepress.executor.control import CONTROL
from edgepress.model import Model
from edgepress.normalize.graph import DEFAULT_DOMAIN, every_node
from edgepress.ops.couple import words
from edgepress.ops.kernels import kernel_of
from edgepress.ops.row import NEWEST_DEFINITION, Op, Role
from edgepress.ops.table import NEWEST_OPSET, definitions, lookup, table
from edgepress.report.operators import OperatorRow, Operators
from edgepress.request import check_input

Kind = tuple[str, str]
"""Domain and operator."""


def operators(models: Sequence[Path] = (), *, unknown: bool = False) -> Operators:
    """The operator table, rows of other packages included.

    Args:
        models: only the operators of these models, with counts; bodies of If, Loop, Scan and local functions count.
        unknown: only those that the table does not know.

    Raises:
        ModelError: a file that cannot be read.
        PluginError: another package's rows cannot be used.
    """
    for path in models:
        check_input(path)
    rows = _of_models(models) if models else [described(row) for rows in table().values() for row in rows]
    ordered = sorted(rows, key=lambda row: (row.operator.lower(), row.domain, row.since))
    return Operators(tuple(str(path) for path in models), tuple(row for row in ordered if not (unknown and row.known)))


def known(op: str, domain: str, opsets: Mapping[str, int]) -> Op | None:
    """The row for an operator in a model; one of an operator set that normalization converts to counts, too."""
    domain = "" if domain in DEFAULT_DOMAIN else domain
    row = lookup(op, domain, opsets.get(domain, 1))
    return row if row is not None or domain else lookup(op, domain, NEWEST_OPSET)


def _of_models(models: Sequence[Path]) -> list[OperatorRow]:
    """One row per operator that the models hold, as the last of them means it."""
    counts: dict[Kind, dict[str, int]] = {}
    rows: dict[Kind, OperatorRow] = {}
    for path in models:
        model = Model.load(path)
        for (domain, op), number in _kinds(model).items():
            held = counts.setdefault((domain, op), {})
            held[str(path)] = number
            rows[domain, op] = _described(op, domain, known(op, domain, model.opsets), model.opsets, held)
    return list(rows.values())


def _kinds(model: Model) -> Counter[Kind]:
    """How many nodes there are of every operator; calls of local functions count as what they call."""
    proto = model.outline()
    local = {(function.domain, function.name) for function in proto.functions}
    kinds = (("" if node.domain in DEFAULT_DOMAIN else node.domain, node.op_type) for node in every_node(proto))
    return Counter(kind for kind in kinds if kind not in local)


def described(row: Op) -> OperatorRow:
    """A row of the table in words."""
    return _described(row.name, row.domain, row, {"": NEWEST_DEFINITION}, {})


def _described(
    op: str, domain: str, row: Op | None, opsets: Mapping[str, int], counts: Mapping[str, int]
) -> OperatorRow:
    since, until = (0, None) if row is None else _range(row)
    return OperatorRow(
        operator=op,
        domain=domain,
        since=since,
        until=until,
        channels=words.short(row),
        torch=_torch(op, domain, row, opsets),
        role=(Role.FLOAT if row is None else row.role).value,
        meaning=words.sentence(row),
        counts=counts,
    )


def _range(row: Op) -> tuple[int, int | None]:
    """The first and the last version of the definitions a row holds for; None: the newest."""
    real = definitions(row)
    return (real[0] if real else row.since), (None if row.until >= NEWEST_DEFINITION else row.until)


def _torch(op: str, domain: str, row: Op | None, opsets: Mapping[str, int]) -> Literal["yes", "body", "no"]:
    if row is not None and (kernel_of(row) is not None or (not domain and op in CONTROL)):
        return "yes"
    try:
        schema: Any = defs.get_schema(op, opsets.get(domain, 1), domain)
    except defs.SchemaError:
        return "no"
    return "body" if schema.has_function or schema.has_context_dependent_function else "no"
