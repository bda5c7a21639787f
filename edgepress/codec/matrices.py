"""How a matrix of whole numbers is best coded: what its recipe says, and what that costs.

    q = offset + symbol 2^shift + low bits       symbol in -limit .. limit, and an escape where that is not enough

Low bits of numbers that spread wide are as good as random, and go to the side section as they are. What a symbol costs
depends on its class (see ``decoder.Expectation``); rows are steps, columns lanes, and either axis may be the rows. All
ways are tried on what the tables have learned so far; of large matrices, on their first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgepress.codec import decoder
from edgepress.codec.coder import Coder, cost, twin
from edgepress.codec.decoder import ALIKE, BY_CROSS, BY_ROW, GAUSS, LAPLACE, LEVELS, MOST, Expectation, Tables, number

WIDE = 6.0
"""Mean magnitude from which numbers are shifted."""

ESCAPE_BITS = 12
"""What an escape costs, about."""

SAMPLE = 1 << 17
"""Symbols that the ways of coding are tried on."""

LARGEST = 1 << 40
"""Greater numbers are not coded as numbers."""

Row = Callable[[Tables, Any, np.ndarray], None]

FRESH = {None: 0, LAPLACE: decoder.FRESH_LAPLACE, GAUSS: decoder.FRESH_GAUSS}


@dataclass(frozen=True, slots=True)
class Way:
    """How a matrix is coded: mode, whether its columns are the rows, what is expected at first (None: as learned)."""

    mode: int
    turned: bool
    shape: int | None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Whole numbers, ready to be coded.

    Attributes:
        symbols: int8 ``[rows, columns]``, -limit .. limit.
        limit: the largest of them, or the escape.
        offset: what is added to all.
        shift: low bits that are kept apart.
        low: the low bits, as whole numbers ``[rows, columns]``; None without a shift.
        excess: by how much escaped numbers are beyond the limit, in order; None where nothing escapes.
        columns: columns of the tensor that holds the numbers.
    """

    symbols: np.ndarray
    limit: int
    offset: int
    shift: int
    low: np.ndarray | None
    excess: np.ndarray | None
    columns: int

    @classmethod
    def of(cls, values: np.ndarray, columns: int, precision: int) -> Matrix:
        """Symbols of whole numbers ``[rows, columns]`` under 2^40, of a tensor that has ``columns`` columns.

        Args:
            values: whole numbers, any integer type.
            columns: columns that the decoder assumes.
            precision: bits of a frequency; a wide alphabet costs more where they are few.
        """
        offset, shift = _placed(values)
        if offset or shift or values.dtype.itemsize > 2:
            wide = values.astype(np.int64) - offset
            high, low = wide >> shift, (wide & ((1 << shift) - 1) if shift else None)
        else:
            high, low = values, None
        limit, escapes = _limit(high, precision)
        clipped = high.clip(-limit, limit).astype(np.int8)
        excess = np.abs(high[np.abs(clipped) == limit]) - limit if escapes else None
        return cls(clipped, limit, offset, shift, low, excess, columns)

    @property
    def fixed_bits(self) -> float:
        """Bits of the side section."""
        escapes = 0 if self.excess is None else sum(8 * len(number(each)) for each in self.excess.tolist())
        return self.symbols.size * self.shift + escapes


def _placed(values: np.ndarray) -> tuple[int, int]:
    """Offset and shift that bring the numbers near zero."""
    if not values.size:
        return 0, 0
    middle = int(np.median(values[:: max(1, len(values) * values.shape[1] // SAMPLE)]))
    magnitude = float(np.abs(values, dtype=np.float64).mean()) if values.dtype.kind == "u" else _magnitude(values)
    offset = middle if abs(middle) > magnitude / 2 else 0
    spread = float(np.abs(values - float(offset)).mean()) if offset else magnitude
    shift = 0
    while spread > WIDE * 2**shift:
        shift += 1
    return offset, shift


def _magnitude(values: np.ndarray) -> float:
    return float(np.abs(values.astype(np.int64, copy=False)).mean())


def _limit(high: np.ndarray, precision: int) -> tuple[int, bool]:
    """The largest symbol, and whether it is an escape: a wide alphabet takes probability from all its symbols."""
    if not high.size:
        return 0, False
    largest = max(int(high.max()), -int(high.min()))
    counts = np.bincount(np.minimum(np.abs(high.astype(np.int64, copy=False)).ravel(), MOST + 1), minlength=MOST + 2)
    beyond = counts[::-1].cumsum()[::-1]  # numbers of at least this magnitude
    wide = high.size * 2 / 2.0**precision * 1.44
    costs = {limit: wide * limit + ESCAPE_BITS * int(beyond[limit]) for limit in range(1, MOST + 1)}
    best = min(costs, key=lambda limit: (costs[limit], limit))
    if largest <= MOST and wide * largest <= costs[best]:
        return largest, False
    return best, True


def best(matrix: Matrix, tables: Tables, levels: Tables, lanes: int) -> tuple[float, Way]:
    """The cheapest way to code a matrix after what was coded before, and its bits (estimated from the first rows)."""
    tried = {way: trial(matrix, way, tables, levels, lanes) for way in _axes(matrix)}
    kinds = sorted(tried, key=lambda way: tried[way])[:2]
    for way in kinds:
        for shape in (LAPLACE, GAUSS):
            fresh = replace(way, shape=shape)
            tried[fresh] = trial(matrix, fresh, tables, levels, lanes)
    chosen = min(tried, key=lambda way: tried[way])
    return tried[chosen] + matrix.fixed_bits + 8 * len(recipe(matrix, chosen)), chosen


def _axes(matrix: Matrix) -> Iterator[Way]:
    yield Way(ALIKE, False, None)
    rows, columns = matrix.symbols.shape
    for turned, each, across in ((False, rows, columns), (True, columns, rows)):
        if each > 1 and across > 1 and (each <= 1 << 16 or each < across):
            yield Way(BY_ROW, turned, None)
            yield Way(BY_CROSS, turned, None)


def trial(matrix: Matrix, way: Way, tables: Tables, levels: Tables, lanes: int) -> float:
    """Bits of the codes of a matrix, about, without coding it."""
    spent = 0.0

    def row(which: Tables, classes: Any, symbols: np.ndarray) -> None:
        nonlocal spent
        spent += cost(which, classes, symbols)

    size = matrix.symbols.size
    rows = len(_laid_out(matrix, way))
    part = matrix
    if size > SAMPLE:
        kept = max(1, rows * SAMPLE // size)
        symbols = matrix.symbols[:, :kept] if way.turned else matrix.symbols[:kept]
        part = replace(matrix, symbols=symbols)
    walk(part, way, twin(tables), twin(levels), lanes, row)
    return spent * size / max(1, part.symbols.size)


def write(matrix: Matrix, way: Way, coder: Coder, side: bytearray) -> bytes:
    """Code a matrix; returns its recipe."""
    walk(matrix, way, coder.tables, coder.levels, coder.lanes, coder.row)
    if matrix.excess is not None:
        for each in matrix.excess.tolist():
            side += number(each)
    if matrix.low is not None:
        side += _low_bits(matrix.low.ravel(), matrix.shift)
    return recipe(matrix, way)


def walk(matrix: Matrix, way: Way, tables: Tables, levels: Tables, lanes: int, row: Row) -> None:
    """Hand every row of symbols to ``row``, with the tables it belongs to and its classes; ``row`` must learn it."""
    tables.begin(matrix.limit, way.shape)
    laid = _laid_out(matrix, way)
    level = row_levels(laid) if way.mode != ALIKE else np.zeros(0, np.int64)
    if way.mode == ALIKE:
        flat = laid.ravel()
        lengths = decoder.widths(len(flat), lanes)
        pieces = np.split(flat, np.cumsum(lengths)[:-1]) if lengths else []
    else:
        base, limit = _level_range(level)
        levels.begin(limit, None)
        if len(level):
            row(levels, decoder.LEVEL_CLASS, level - base + limit)
        pieces = list(laid) if laid.size else []
    expected = Expectation(way.mode, mean_of(laid), level, laid.shape[1] if way.mode != ALIKE else 0)
    for piece in pieces:
        row(tables, expected.classes(), piece + matrix.limit)
        expected.learn(piece, matrix.shift > 0)


def _laid_out(matrix: Matrix, way: Way) -> np.ndarray:
    return np.ascontiguousarray(matrix.symbols.T) if way.turned else matrix.symbols


def mean_of(symbols: np.ndarray) -> int:
    """Mean magnitude in units of an expected magnitude."""
    return int(np.abs(symbols).sum(dtype=np.int64)) * decoder.UNIT // max(1, symbols.size)


def row_levels(symbols: np.ndarray) -> np.ndarray:
    """The level of the mean magnitude of every row: int64 ``[rows]``."""
    means = np.abs(symbols).sum(1, dtype=np.int64) * 256 // max(1, symbols.shape[1])
    return np.asarray(np.maximum(0, np.searchsorted(np.array(LEVELS), means, side="right") - 1))


def _level_range(level: np.ndarray) -> tuple[int, int]:
    """Base and largest distance from it."""
    if not len(level):
        return 0, 0
    base = int(np.median(level))
    base = max(base, int(level.max()) - MOST)
    return base, max(int(level.max()) - base, base - int(level.min()))


def recipe(matrix: Matrix, way: Way) -> bytes:
    """What the decoder is told."""
    flags = way.mode | FRESH[way.shape] | decoder.TURNED * way.turned | decoder.ESCAPES * (matrix.excess is not None)
    moved = bool(matrix.offset or matrix.shift)
    other = matrix.columns != matrix.symbols.shape[1] and way.mode != ALIKE
    made = bytearray([flags | decoder.SHIFTED * moved | decoder.COLUMNS * other, matrix.limit])
    if other:
        made += number(matrix.symbols.shape[1])
    if moved:
        made += number(matrix.offset << 1 if matrix.offset >= 0 else (-matrix.offset << 1) - 1) + bytes([matrix.shift])
    if way.mode == ALIKE:
        return bytes(made + number(mean_of(matrix.symbols)))
    return bytes(made + bytes(_level_range(row_levels(_laid_out(matrix, way)))))


def _low_bits(low: np.ndarray, shift: int) -> bytes:
    """The low bits of numbers, the highest first, in blocks that end with a whole byte."""
    made = bytearray()
    places = np.arange(shift - 1, -1, -1)
    for start in range(0, len(low), decoder.BLOCK):
        part = low[start : start + decoder.BLOCK]
        made += np.packbits((part[:, None] >> places & 1).astype(np.uint8)).tobytes()
    return bytes(made)
