"""Samples in numpy's files: .npz, .npy, and folders of them.

An .npz has one array per input, under the input's name, and perhaps ``label`` (or ``labels``). A .npy holds the
one input of a model. A folder of .npz files is read as if they were one, in the order of their names;
a folder of .npy files either has one file per input (``x.npy``, ``mask.npy``, ``label.npy``) or,
for a model of one input, parts of it in the order of their names, with ``label.npy`` for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgepress.calibrate.columns import Column, concat
from edgepress.calibrate.inputs import LABELS, Wanted, check_names, label_names
from edgepress.calibrate.layout import Source, arrange
from edgepress.calibrate.rows import Spool, Table, open_npz, read_member, read_npy
from edgepress.errors import DataError


def from_npz(paths: Sequence[Path], inputs: tuple[Wanted, ...], where: str) -> Source:
    """Samples of one or several .npz files.

    Raises:
        DataError: damaged files, wrong names, types or shapes, files that do not fit each other.
    """
    spool = Spool()
    files = [_members(path, inputs, spool) for path in paths]
    names = [str(path) for path in paths]
    columns = {item.name: concat([file[item.name] for file in files], names, repr(item.name)) for item in inputs}
    labelled = [label_names(file, inputs) for file in files]
    if any(labelled) and not all(labelled):
        raise DataError(
            f"{names[labelled.index([])]} has no labels, but other files of {where} have: label all or none."
        )
    parts = [file[found[0]] for file, found in zip(files, labelled, strict=True) if found]
    labels = _whole(concat(parts, names, "the array of labels")) if parts else None
    return arrange(columns, labels, inputs, where)


def from_npy(path: Path, inputs: tuple[Wanted, ...]) -> Source:
    """Samples of a single .npy file, for a model of one input.

    Raises:
        DataError: a damaged file, a model of several inputs, wrong type or shape.
    """
    _require_one(inputs, str(path))
    return arrange({inputs[0].name: read_npy(path, Spool())}, None, inputs, str(path))


def from_npy_folder(paths: Sequence[Path], inputs: tuple[Wanted, ...], where: str) -> Source:
    """Samples of a folder of .npy files: one per input, or parts of the one input.

    Raises:
        DataError: as for :func:`from_npy`, or files that do not fit each other.
    """
    spool = Spool()
    by_name = {path.stem: path for path in paths}
    if len(inputs) > 1 or inputs[0].name in by_name:
        check_names(by_name, inputs, where)
        columns: Mapping[str, Column] = {item.name: read_npy(by_name[item.name], spool) for item in inputs}
    else:
        parts = [path for path in paths if path.stem not in LABELS]
        if not parts:
            check_names(by_name, inputs, where)
        tables = [read_npy(path, spool) for path in parts]
        columns = {inputs[0].name: concat(tables, [str(path) for path in parts], repr(inputs[0].name))}
    labelled = label_names(by_name, inputs)
    if len(labelled) > 1:
        raise DataError(f"{where}: both label.npy and labels.npy are there: keep one of them.")
    labels = _whole(read_npy(by_name[labelled[0]], spool)) if labelled else None
    return arrange(columns, labels, inputs, where)


def _members(path: Path, inputs: Sequence[Wanted], spool: Spool) -> dict[str, Table]:
    with open_npz(path) as members:
        if not members:
            raise DataError(f"{path} is empty: save one array per input of the model.")
        check_names(members, inputs, str(path))
        tables = {name: read_member(path, info, spool) for name, info in members.items()}
    for name, table in tables.items():
        if not table.shape:
            raise DataError(f"{path}: {name!r} is a single number: give samples along the first axis.")
    return tables


def _whole(column: Column) -> np.ndarray:
    return column.read(np.arange(column.shape[0])) if column.shape else np.empty((), column.dtype)


def _require_one(inputs: Sequence[Wanted], where: str) -> None:
    if len(inputs) > 1:
        names = ", ".join(item.name for item in inputs)
        raise DataError(f"{where} holds one array, but the model has the inputs {names}: save an .npz with those keys.")
