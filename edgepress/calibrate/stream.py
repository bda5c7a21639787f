"""Samples that come one dictionary at a time: readers, generators, ONNX test sets.

What comes is checked and written at once to a temporary file per input, so memory stays flat and the samples can
be read several times. Each dictionary holds every input in its full rank. With a model whose batch axis is free
its rows become samples; where the rows of different dictionaries differ in shape (pictures of many sizes),
and with every other model, each dictionary is one sample and one run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepress.calibrate.columns import Column, Ragged
from edgepress.calibrate.inputs import Wanted, check_names, is_batched, label_names
from edgepress.calibrate.layout import Source, arrange
from edgepress.calibrate.rows import Spool, Table, raw
from edgepress.errors import DataError


@dataclass
class _Written:
    """One input so far: where each dictionary's array begins, and its shape."""

    spool: Spool = field(default_factory=Spool)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def add(self, array: np.ndarray) -> None:
        self.offsets.append(self.spool.append([raw(array)]))
        self.shapes.append(array.shape)

    def alike(self) -> bool:
        return len({shape[1:] for shape in self.shapes}) == 1

    def rows(self, dtype: np.dtype[Any]) -> Table:
        count = sum(shape[0] for shape in self.shapes)
        return Table((count, *self.shapes[0][1:]), dtype, self.spool, 0)

    def complete(self, dtype: np.dtype[Any]) -> Column:
        return Ragged(self.shapes, self.offsets, dtype, self.spool)


def from_stream(items: Iterable[tuple[str, Mapping[str, Any]]], inputs: tuple[Wanted, ...], where: str) -> Source:
    """Take in all dictionaries.

    Args:
        items: (name for messages, values by input name), as many as there are; it must come to an end.
        inputs: what the model wants.
        where: name of the whole, for messages.

    Raises:
        DataError: a dictionary with wrong names, types or shapes, or none at all.
    """
    written = {item.name: _Written() for item in inputs}
    labels: list[np.ndarray] = []
    count = 0
    for count, (name, values) in enumerate(items, start=1):
        check_names(values, inputs, name)
        rows = {item.name: _add(values[item.name], item, written[item.name], name) for item in inputs}
        if is_batched(inputs) and len(set(rows.values())) > 1:
            listing = ", ".join(f"{key} {size}" for key, size in rows.items())
            raise DataError(
                f"{name}: the inputs have different numbers of samples ({listing}): give the same number to all."
            )
        labels.extend(np.asarray(values[key]) for key in label_names(values, inputs))
        if labels and len(labels) != count:
            raise DataError(f"{name}: labels come with some samples only: label all or none.")
    if not count:
        raise DataError(f"{where} gives no samples: give at least one.")
    by_rows = is_batched(inputs) and all(item.alike() for item in written.values())
    columns = {
        item.name: written[item.name].rows(item.dtype) if by_rows else written[item.name].complete(item.dtype)
        for item in inputs
    }
    sizes = [shape[0] if shape else 1 for shape in written[inputs[0].name].shapes]
    joined = _joined(labels, sizes, where, by_rows=by_rows) if labels else None
    return arrange(columns, joined, inputs, where)


def _add(value: Any, item: Wanted, written: _Written, where: str) -> int:
    """Check and write one array; returns its number of rows."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise DataError(f"{where}: {item.name!r} is of type {type(value).__name__}: give numpy arrays.")
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype != item.dtype:
        raise DataError(f"{where}: {item.name!r} holds {array.dtype}, not numbers: give an array of numbers.")
    item.check_dtype(array.dtype, where)
    unknown_rank = item.shape is None and not array.ndim
    if item.mismatch(array.shape) or unknown_rank:
        raise DataError(
            f"{where}: {item.name!r} has shape {list(array.shape)}, but one run of the model takes {item.describe()}: "
            "give every input in its full shape, batch axis included."
        )
    if not array.size:
        raise DataError(f"{where}: {item.name!r} is empty (shape {list(array.shape)}): give at least one sample.")
    written.add(item.cast(array, where))
    return array.shape[0] if array.ndim else 1


def _joined(labels: Sequence[np.ndarray], sizes: Sequence[int], where: str, *, by_rows: bool) -> np.ndarray:
    """Labels of all dictionaries: one per row ``[rows]``, or per dictionary ``[n]`` or ``[n, b]``."""
    flat = [label.reshape(-1) for label in labels]
    for position, (label, size) in enumerate(zip(flat, sizes, strict=True)):
        allowed = {size} if by_rows else {1, size}
        if len(label) not in allowed:
            raise DataError(f"{where}, item {position}: {len(label)} labels for {size} samples: give one per sample.")
    if by_rows:
        return np.concatenate(flat)
    if len({len(label) for label in flat}) > 1:
        raise DataError(f"{where}: the items have different numbers of labels: give one label to each item.")
    return np.stack(flat)
