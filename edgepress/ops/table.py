"""The operator table: the only list of what edgepress understands, one row per operator and range of versions.

Rows are in :mod:`edgepress.ops.rows`, what a row says in :mod:`edgepress.ops.row`.
Versions are those of ``onnx.defs``: a row holds for the operator definitions ``since..until``, and :func:`lookup` asks
onnx which definition a model's operator set means, so a row stays right when a later operator set leaves the operator
alone, and ends where a later definition changes it. Two rows for one definition are an error. An operator without a
row is a wall, with the reason kept.

Other packages add rows by an entry point of the group ``edgepress.operators``: a sequence of :class:`Op` whose
``couple`` and ``kernel`` are a name of this package or a function (docs/operators.md has an example). What cannot be
used raises, for every command: a model must not be read differently because a plugin is half there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from types import MappingProxyType

from edgepress.errors import PluginError
from edgepress.ops.row import Input, Op
from edgepress.ops.rows import ROWS

NEWEST_OPSET = 26
"""Newest default operator set that onnxruntime 1.31 loads."""

ENTRY_POINT = "edgepress.operators"
"""Group of the entry points that add rows."""

_BROKEN = (
    ImportError,
    AttributeError,
    NameError,
    SyntaxError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    OSError,
)
"""What importing another package's module raises when it is broken."""


def lookup(op: str, domain: str, opset: int) -> Op | None:
    """The row for an operator as a model means it; None when edgepress does not know it.

    Args:
        op: operator type.
        domain: its domain.
        opset: version of that domain's operator set in the model. Outside the domains of ONNX, whose definitions
            ``onnx.defs`` does not know, the row alone decides.
    """
    known = table().get(("" if domain == "ai.onnx" else domain, op), ())
    version = _definition(op, domain, opset) if known else None
    return next((row for row in known if version is not None and row.since <= version <= row.until), None)


@cache
def table() -> Mapping[tuple[str, str], tuple[Op, ...]]:
    """All rows, ours and those of other packages, by (domain, operator), in the order of their versions.

    Raises:
        PluginError: an entry point cannot be loaded, does not hold rows, or repeats a row.
    """
    found = list(ROWS)
    for entry in sorted(metadata.entry_points(group=ENTRY_POINT), key=lambda entry: (entry.name, entry.value)):
        added = _loaded(entry)
        _check_new(added, index(found), entry)
        found += added
    return index(found)


def index(rows: Iterable[Op]) -> Mapping[tuple[str, str], tuple[Op, ...]]:
    """Rows by (domain, operator), in the order of their versions.

    Raises:
        PluginError: two rows hold for one definition of an operator.
    """
    found: dict[tuple[str, str], tuple[Op, ...]] = {}
    for row in rows:
        key = (row.domain, row.name)
        twin = _twin(row, found.get(key, ()))
        if twin is not None:
            version = max(row.since, twin.since)
            raise PluginError(f"Operator {row.name} has two rows for version {version}: remove one of them.")
        found[key] = tuple(sorted((*found.get(key, ()), row), key=lambda other: other.since))
    return MappingProxyType(found)


def _twin(row: Op, others: Iterable[Op]) -> Op | None:
    """A row that holds for a version that ``row`` holds for."""
    return next((other for other in others if row.since <= other.until and other.since <= row.until), None)


def _loaded(entry: metadata.EntryPoint) -> list[Op]:
    try:
        rows = list(entry.load())
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {error}"
        raise PluginError(f"{_origin(entry)} cannot be loaded ({reason}): mend or uninstall it.") from error
    if not all(isinstance(row, Op) for row in rows):
        raise PluginError(f"{_origin(entry)} must be a list of edgepress.ops.row.Op: mend or uninstall it.")
    return rows


def _check_new(rows: Iterable[Op], known: Mapping[tuple[str, str], tuple[Op, ...]], entry: metadata.EntryPoint) -> None:
    """Rows of another package must be new, and speak of rules, inputs and versions that there are."""
    from edgepress.ops.couple import RULES  # the rules are only needed to check names

    for row in rows:
        if _twin(row, known.get((row.domain, row.name), ())) is not None:
            problem = "that is in the table already"
        elif isinstance(row.couple, str) and row.couple not in RULES:
            problem = f"with couple={row.couple!r}, which is none of {', '.join(sorted(RULES))}"
        elif not row.inputs.split() or set(row.inputs.split()) - {kind.value for kind in Input}:
            problem = f"with inputs={row.inputs!r}, which may hold {', '.join(kind.value for kind in Input)}"
        elif row.since > row.until:
            problem = f"from version {row.since} until {row.until}, which holds for none"
        else:
            continue
        raise PluginError(f"{_origin(entry)} has a row for {row.name} {problem}: mend or uninstall it.")


def _origin(entry: metadata.EntryPoint) -> str:
    package = "" if entry.dist is None else f" of {entry.dist.name}"
    return f"The entry point {entry.value!r}{package} (group {ENTRY_POINT})"


@cache
def _definition(op: str, domain: str, opset: int) -> int | None:
    """Version of the definition that operator set ``opset`` means; None when onnx knows none that is in force.

    Of an operator that onnx does not know at all (other domains, additions of onnxruntime) the row alone decides.
    """
    from onnx import defs

    if not defs.has(op, "" if domain == "ai.onnx" else domain):
        return opset
    try:
        schema = defs.get_schema(op, opset, "" if domain == "ai.onnx" else domain)
    except defs.SchemaError:
        return None
    # a definition that was mended later is deprecated (GroupNormalization 18), but runtimes run it all the same
    gone = schema.deprecated and defs.get_schema(op, domain=schema.domain).deprecated
    return None if gone else int(schema.since_version)


def definitions(row: Op) -> tuple[int, ...]:
    """Versions of the definitions in ``onnx.defs`` that a row holds for, rising; empty outside ONNX's domains."""
    return tuple(v for v in _definitions().get((row.domain, row.name), ()) if row.since <= v <= row.until)


@cache
def _definitions() -> Mapping[tuple[str, str], tuple[int, ...]]:
    """Versions of every definition in force that onnx knows, by (domain, operator), rising."""
    from onnx import defs

    found: dict[tuple[str, str], list[int]] = {}
    for schema in defs.get_all_schemas_with_history():
        if not schema.deprecated:
            found.setdefault((schema.domain, schema.name), []).append(int(schema.since_version))
    return MappingProxyType({key: tuple(sorted(versions)) for key, versions in found.items()})
