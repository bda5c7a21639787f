"""From columns to runs: which rows make one sample, and which samples make one run of the model.

==================  =========================================  ==============================================
model               array of the input's rank ``[N, ...]``     array of one rank more ``[N, b, ...]``
==================  =========================================  ==============================================
batch axis free     a row is a sample; any number in one run   an entry is a sample and a run of its own
batch axis fixed b  a row is a sample; b of them in one run    the same
state, no batch     see below                                  the same
==================  =========================================  ==============================================

"State" means fixed first dimensions that differ between inputs, or fixed and free ones mixed: then
every sample is one complete input of each; an array of the input's own rank is cut into
complete inputs along its first axis (of one row where that dimension is free).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgepress.calibrate.columns import Column, Grouped
from edgepress.calibrate.inputs import Wanted, is_batched, is_float, show
from edgepress.calibrate.rows import raw
from edgepress.errors import DataError

DIGEST = 32
"""Bytes of a sample's hash (SHA-256)."""

_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True)
class Source:
    """Samples with random access.

    Attributes:
        where: what the user called it, for messages.
        inputs: the model's inputs.
        columns: values by input name; all have ``count`` rows.
        count: number of samples.
        complete: True: a sample is a complete input of the model; False: it is one row of the batch.
        step: rows that one run takes, or None for any number (always None for complete samples).
        batched: whether the model has a free batch axis.
        labels: int64 ``[count]``, or ``[count, b]`` for complete samples of b labelled rows; None without labels.
    """

    where: str
    inputs: tuple[Wanted, ...]
    columns: Mapping[str, Column]
    count: int
    complete: bool
    step: int | None
    batched: bool
    labels: np.ndarray | None

    def get(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Values at ``indices`` in the model's element types, stacked along a first axis."""
        return {item.name: item.cast(self.columns[item.name].read(indices), self.where) for item in self.inputs}

    def digests(self) -> np.ndarray:
        """Hash of every sample, uint8 ``[count, DIGEST]``, in one streamed pass that also finds bad values.

        Raises:
            DataError: NaN or infinite values (names the input and the first sample), numbers that do not fit,
                pictures or files that cannot be read.
        """
        found = np.empty((self.count, DIGEST), np.uint8)
        step = self._block()
        for start in range(0, self.count, step):
            indices = np.arange(start, min(start + step, self.count))
            values = self.get(indices)
            for item in self.inputs:
                _require_finite(values[item.name], item, start, self.where)
            for position, index in enumerate(indices):
                found[index] = np.frombuffer(self._digest(values, position), np.uint8)
        return found

    def _block(self) -> int:
        """Samples to look at in one go."""
        if self.complete:
            return 1
        sizes = [item.dtype.itemsize * _elements(self.columns[item.name].shape[1:]) for item in self.inputs]
        return max(1, min(256, _BLOCK_BYTES // max(1, sum(sizes))))

    def _digest(self, values: Mapping[str, np.ndarray], position: int) -> bytes:
        state = hashlib.sha256()
        for item in self.inputs:
            array = np.asarray(values[item.name][position])
            # A row hashes like the complete input of one row, so that different kinds of files can be compared.
            shape = array.shape if self.complete else (1, *array.shape)
            state.update(f"{item.name} {item.dtype} {shape}\n".encode())
            state.update(raw(array))
        return state.digest()


def arrange(columns: Mapping[str, Column], labels: np.ndarray | None, inputs: tuple[Wanted, ...], where: str) -> Source:
    """Decide what a sample and a run are, and check shapes, counts and labels.

    Raises:
        DataError: wrong rank or shape, no samples, different numbers of samples, labels that do not fit.
    """
    batched = is_batched(inputs)
    entries = {item.name: _is_entry(item, columns[item.name], where) for item in inputs}
    step = _step(inputs)
    complete = any(entries.values()) or (step is None and not batched)
    if batched and complete and not all(entries.values()):
        name = next(name for name, entry in entries.items() if not entry)
        raise DataError(
            f"{where}: {name!r} holds single samples, but another input holds complete batches (one rank more): "
            "give all inputs alike."
        )
    if complete:
        columns = {
            item.name: columns[item.name] if entries[item.name] else _grouped(columns[item.name], item, where)
            for item in inputs
        }
    count = _common_count(columns, inputs, where)
    if not complete and step is not None and count < step:
        raise DataError(f"{where} holds {count} samples, but one run of the model takes {step}: give at least {step}.")
    checked = None if labels is None else _labels(labels, count, columns if complete else None, where)
    return Source(where, inputs, columns, count, complete, None if complete else step, batched, checked)


def _is_entry(item: Wanted, column: Column, where: str) -> bool:
    """Whether each row of the column is a complete input; DataError if its shape fits neither way."""
    item.check_dtype(column.dtype, where)
    shape = column.shape
    if shape and 0 in shape:
        raise DataError(f"{where}: {item.name!r} is empty (shape {list(shape)}): give at least one sample.")
    if item.shape is None:
        if shape:
            return False
    elif len(shape) == len(item.shape) + 1:
        if not item.mismatch(shape[1:]):
            return True
    elif shape and item.shape and not item.mismatch((item.fixed_batch or 1, *shape[1:])):
        return False
    raise DataError(
        f"{where}: {item.name!r} has shape {list(shape)}, but the model takes {item.describe()}: give samples along "
        f"the first axis, as {_example(item)}."
    )


def _example(item: Wanted) -> str:
    if not item.shape:
        return "[samples]" if item.shape == () else "[samples, ...]"
    return f"{show(('samples', *item.shape[1:]))} or {show(('samples', *item.shape))}"


def _step(inputs: Sequence[Wanted]) -> int | None:
    """The one fixed batch that all inputs share; None if there is none."""
    sizes = {item.fixed_batch for item in inputs}
    return sizes.pop() if len(sizes) == 1 else None


def _grouped(column: Column, item: Wanted, where: str) -> Column:
    size = item.fixed_batch or 1
    if column.shape[0] % size:
        raise DataError(
            f"{where}: {item.name!r} has {column.shape[0]} rows, but one run of the model takes {size}: give a "
            f"multiple of {size}, or one complete input per entry, as {show(('samples', *(item.shape or ())))}."
        )
    return Grouped(column, size)


def _common_count(columns: Mapping[str, Column], inputs: Sequence[Wanted], where: str) -> int:
    counts = {item.name: columns[item.name].shape[0] for item in inputs}
    if len(set(counts.values())) > 1:
        listing = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(
            f"{where}: the inputs have different numbers of samples ({listing}): give the same number to all."
        )
    return next(iter(counts.values()))


def _labels(labels: np.ndarray, count: int, complete: Mapping[str, Column] | None, where: str) -> np.ndarray:
    """Labels as int64, one per sample (or one per row of every complete sample)."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {labels.dtype}, not integers: save class numbers as int64.")
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    rows = {column.shape[1] for column in (complete or {}).values() if len(column.shape) > 1}
    if labels.shape not in {(count,), *((count, size) for size in rows)}:
        raise DataError(
            f"{where}: labels have shape {list(labels.shape)}, but there are {count} samples: give one class number "
            f"per sample, shape [{count}]."
        )
    return labels.astype(np.int64)


def _require_finite(values: np.ndarray, item: Wanted, start: int, where: str) -> None:
    if not is_float(item.dtype):
        return
    good = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not good.all():
        sample = start + int(np.argmin(good))
        raise DataError(
            f"{where}: {item.name!r} holds NaN or infinite values, first in sample {sample}: mend or remove such "
            "samples."
        )


def _elements(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
