"""Rows on disk: random access to the first axis of .npy files and .npz members with flat memory.

The .npy header is parsed with numpy's own reader (never with pickles allowed) and rows are read straight
from the file. Memory maps are not used: their pages count as resident memory. A member that is compressed,
or stored in Fortran order, is first written once, streamed, into a temporary file without a name (in the
system's temporary folder, see TMPDIR), which is gone when the feed or the process ends.

Format: numpy.lib.format ("NPY format"), and APPNOTE.TXT section 4.3.7 for the local header of a zip member.
"""

from __future__ import annotations

import math
import struct
import tempfile
import threading
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from edgepress.errors import DataError

BLOCK = 1 << 18
"""Bytes moved at a time."""

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, struct.error)


class Bytes(Protocol):
    """Something bytes can be read from at any place, from any thread."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill ``into`` with the bytes at ``offset``."""


@dataclass(frozen=True, slots=True)
class FileBytes:
    """The bytes of a file of the user."""

    path: Path

    def read(self, offset: int, into: memoryview) -> None:
        """Fill ``into``; DataError if the file is not there any more or is shorter than when it was opened."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                _fill(file, into)
        except (OSError, EOFError) as error:
            raise DataError(f"{self.path} changed or went away while it was read: start again.") from error


class Spool:
    """A temporary file that only grows; deleted when the last reader is gone."""

    def __init__(self) -> None:
        """Make an empty one (it has no name on POSIX systems)."""
        self._file = tempfile.TemporaryFile(prefix="edgepress-")  # noqa: SIM115 - closed by the finalizer below
        self._lock = threading.Lock()
        self.size = 0
        weakref.finalize(self, self._file.close)

    def append(self, parts: Iterable[bytes | memoryview]) -> int:
        """Write ``parts`` one after the other at the end; returns the offset of the first byte.

        Raises:
            DataError: the temporary folder is full.
        """
        start = self.size
        for part in parts:
            with self._lock:
                try:
                    self._file.seek(self.size)
                    self._file.write(part)
                    self._file.flush()
                except OSError as error:
                    folder = tempfile.gettempdir()
                    raise DataError(f"No room for the samples in {folder}: set TMPDIR to a larger disk.") from error
                self.size += len(part)
        return start

    def read(self, offset: int, into: memoryview) -> None:
        """Fill ``into`` with the bytes at ``offset``."""
        with self._lock:
            self._file.seek(offset)
            _fill(self._file, into)


@dataclass(frozen=True, slots=True)
class Table:
    """An array on disk in C order, read by rows.

    Attributes:
        shape: the whole array, samples first.
        dtype: element type as stored.
        store: where the bytes are.
        offset: place of the first element in ``store``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    store: Bytes
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, indices: np.ndarray) -> np.ndarray:
        """The rows at ``indices``, stacked: ``[len(indices), *shape[1:]]``; neighbours are read in one go."""
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        flat = raw(rows)
        for start, stop in runs(indices):
            into = flat[start * self.row_bytes : stop * self.row_bytes]
            self.store.read(self.offset + int(indices[start]) * self.row_bytes, into)
        return rows


def runs(indices: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges ``start, stop`` of positions in ``indices`` that hold consecutive numbers."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    if not len(indices):
        return iter(())
    edges = [0, *breaks.tolist(), len(indices)]
    return pairwise(edges)


def raw(array: np.ndarray) -> memoryview:
    """The bytes of an array in C order: its own memory if it is in that order already, else a copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_npy(path: Path, spool: Spool) -> Table:
    """A .npy file as a table.

    Raises:
        DataError: not a .npy file, truncated, or holding anything but numbers.
    """
    try:
        with path.open("rb") as file:
            header = _header(file, str(path))
            length = path.stat().st_size - file.tell()
            table = Table(header.shape, header.dtype, FileBytes(path), file.tell())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the file and its permissions.") from error
    if length < header.bytes:
        raise DataError(f"{path} is truncated ({length} of {header.bytes} bytes): copy or save it again.")
    return _by_rows(table, spool) if header.fortran else table


@contextmanager
def open_npz(path: Path) -> Iterator[dict[str, zipfile.ZipInfo]]:
    """The members of an .npz file by array name; whatever is wrong with the archive becomes a DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
    except _ZIP_ERRORS as error:
        raise DataError(f"{path} is not an .npz file, or it is truncated or damaged: copy or save it again.") from error


def read_member(path: Path, info: zipfile.ZipInfo, spool: Spool) -> Table:
    """One member of an .npz file as a table; read to its end once, so that damage is found by its checksum.

    Raises:
        DataError: as for :func:`read_npy`.
    """
    where = f"{path} ({info.filename})"
    if info.flag_bits & 1:
        raise DataError(f"{where} is encrypted: save it without a password.")
    with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
        header = _header(stream, where)
        start = stream.tell()
        if info.file_size - start < header.bytes:
            raise DataError(f"{where} is truncated: copy or save it again.")
        if info.compress_type == zipfile.ZIP_STORED:
            for _ in _blocks(stream):
                pass
            table = Table(header.shape, header.dtype, FileBytes(path), _member_offset(path, info) + start)
        else:
            table = Table(header.shape, header.dtype, spool, spool.append(_blocks(stream)))
    return _by_rows(table, spool) if header.fortran else table


@dataclass(frozen=True, slots=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _header(stream: IO[bytes], where: str) -> _Header:
    """Parse a .npy header; the stream then stands at the first element."""
    layout = np.lib.format
    try:
        version = layout.read_magic(stream)
        read = layout.read_array_header_1_0 if version == (1, 0) else layout.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise DataError(f"{where} is not a .npy array or is truncated: save it with numpy.save.") from error
    if any(size < 0 for size in shape):
        raise DataError(f"{where} has a negative size in its header: save it again.")
    if dtype.hasobject:
        raise DataError(f"{where} holds Python objects (a pickle), which are never loaded: save plain numbers.")
    if dtype.kind not in "biuf":
        raise DataError(f"{where} holds {dtype}, not numbers: save an array of numbers.")
    return _Header(tuple(int(size) for size in shape), dtype, bool(fortran) and len(shape) > 1)


def _by_rows(table: Table, spool: Spool) -> Table:
    """Rewrite a table stored in Fortran order (last axis slowest) by rows, a block of rows at a time."""
    count, columns, size = table.shape[0], math.prod(table.shape[1:]), table.dtype.itemsize
    step = max(1, 4 * BLOCK // max(1, table.row_bytes))  # every column is a read of its own: fewer, larger blocks
    offset = spool.size
    for start in range(0, count, step):
        stop = min(count, start + step)
        block = np.empty((columns, stop - start), table.dtype)
        for column in range(columns):
            place = table.offset + (column * count + start) * size
            table.store.read(place, raw(block[column]))
        rows = block.reshape(*table.shape[:0:-1], stop - start).T
        spool.append([raw(rows)])
    return Table(table.shape, table.dtype, spool, offset)


def _member_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Place of a stored member's first byte: its local header has its own name and extra lengths."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        name, extra = struct.unpack("<26xHH", file.read(30))
    return int(info.header_offset + 30 + name + extra)


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


def _fill(file: Any, into: memoryview) -> None:
    """Read exactly ``len(into)`` bytes (one call may return fewer)."""
    done = 0
    while done < len(into):
        got = file.readinto(into[done:])
        if not got:
            raise EOFError("the file is shorter than its header says")
        done += got
