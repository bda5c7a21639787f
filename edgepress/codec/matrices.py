"""How a matrix of whole numbers is best coded: what its recipe says, and what that costs.

What a symbol (``symbols.Matrix``) costs depends on its class (see ``decoder.Expectation``); rows are steps, columns
lanes, and either axis may be the rows. All ways are tried on what the tables have learned so far; of large matrices, on
rows here and there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgepress.codec import decoder, rows
from edgepress.codec.coder import Coder, Learned, cost
from edgepress.codec.decoder import (
    ALIKE,
    BY_CROSS,
    BY_ROW,
    GAUSS,
    IN_KERNEL,
    LAPLACE,
    LEVELS,
    MOST,
    Expectation,
    Layout,
    Tables,
    number,
)
from edgepress.codec.room import Pages
from edgepress.codec.rows import Row
from edgepress.codec.symbols import Matrix, Shape

WIDE_ROWS = 1 << 10
"""Columns that keep many lanes busy: in large files rows of kernels are worth their time from here on."""

PICTURES = 1 << 20
"""Numbers of a matrix whose columns are tried as pixels, at the most."""

SAMPLE = 1 << 17
"""Symbols that the ways of coding are tried on."""

FRESH = {None: 0, LAPLACE: decoder.FRESH_LAPLACE, GAUSS: decoder.FRESH_GAUSS}


@dataclass(frozen=True, slots=True)
class Way:
    """How a matrix is coded: mode, what its rows are, what is expected at first.

    Attributes:
        mode: of ``decoder.Expectation``.
        turned: whether inner indices are the rows.
        shape: columns and kernel.
        prior: the shape of the distribution; None: as learned.
    """

    mode: int
    turned: bool
    shape: Shape
    prior: int | None = None

    def layout(self, count: int) -> Layout:
        """How ``count`` numbers are laid out."""
        return Layout.of(self.mode, count, self.shape, self.turned)

    def possible(self, count: int) -> bool:
        """Whether the decoder would take it."""
        try:
            self.layout(count)
        except decoder.CodedFileError:
            return False
        return True


def best(matrix: Matrix, tables: Learned, lanes: int) -> tuple[float, Way]:
    """The cheapest way to code a matrix after what was coded before, and its bits (estimated from some rows)."""
    tried = {way: trial(matrix, way, tables, lanes) for way in _ways(matrix, lanes)}
    if (
        lanes == 1 and matrix.symbols.size <= PICTURES and min(tried, key=lambda way: tried[way]).mode != ALIKE
    ):  # columns differ
        tried.update({way: trial(matrix, way, tables, lanes) for way in _pictures(matrix)})
    kinds = sorted(tried, key=lambda way: tried[way])[:2]
    for way in kinds:
        for prior in (LAPLACE, GAUSS):
            fresh = replace(way, prior=prior)
            tried[fresh] = trial(matrix, fresh, tables, lanes)
    chosen = min(tried, key=lambda way: tried[way])
    return tried[chosen] + matrix.fixed_bits + 8 * len(recipe(matrix, chosen)), chosen


def _ways(matrix: Matrix, lanes: int) -> Iterator[Way]:
    count = matrix.symbols.size
    yield Way(ALIKE, False, matrix.shape)
    for turned in (False, True):
        plain = Way(BY_ROW, turned, matrix.shape)
        if plain.possible(count) and min(plain.layout(count).rows, plain.layout(count).columns) > 1:
            yield plain
            yield replace(plain, mode=BY_CROSS)
        kernel = replace(plain, mode=IN_KERNEL)
        if matrix.shape[1] > 1 and kernel.possible(count) and (lanes == 1 or _is_wide(kernel, count)):
            yield kernel


def _is_wide(way: Way, count: int) -> bool:
    return way.layout(count).columns >= WIDE_ROWS


def _pictures(matrix: Matrix) -> Iterator[Way]:
    """Ways for a matrix whose columns may be the pixels of pictures: neighbouring weights are as if in a kernel."""
    columns, places, _ = matrix.shape
    if places > 1 or matrix.symbols.size == columns:
        return
    sides = [side for side in range(32, 2, -1) if columns % side**2 == 0][:2]
    for side in sides:
        for turned in (False, True):
            way = Way(IN_KERNEL, turned, (columns, side * side, side))
            if way.possible(matrix.symbols.size):
                yield way


def trial(matrix: Matrix, way: Way, tables: Learned, lanes: int) -> float:
    """Bits of the codes of a matrix, about, without coding it."""
    spent = 0.0

    def row(which: Tables, classes: Any, symbols: np.ndarray) -> None:
        nonlocal spent
        spent += cost(which, classes, symbols)

    seen = walk(matrix, way, tables.twin(), lanes, row, SAMPLE)
    return spent * matrix.symbols.size / max(1, seen)


def write(matrix: Matrix, way: Way, coder: Coder, side: Pages) -> bytes:
    """Code a matrix; returns its recipe."""
    walk(matrix, way, coder.learned, coder.lanes, coder.row, alone=coder.lanes > 1)
    if matrix.excess is not None:
        side += b"".join(number(each) for each in matrix.excess.tolist())
    side += matrix.low
    return recipe(matrix, way)


def walk(
    matrix: Matrix, way: Way, learned: Learned, lanes: int, row: Row, most: int | None = None, alone: bool = False
) -> int:
    """Hand rows of symbols to ``row``, with the tables they belong to and their classes; ``row`` must learn them.

    Args:
        matrix: the numbers.
        way: how they are coded.
        learned: the tables.
        lanes: of the file.
        row: what takes the rows, several as one (``rows.handed``).
        most: hand on about so many numbers only, of rows here and there.
        alone: hand on every row by itself.

    Returns:
        how many numbers that were: all, or of rows here and there about ``most``.
    """
    tables = learned.kernels if way.mode == IN_KERNEL else learned.tables
    tables.begin(matrix.limit, way.prior)
    layout = way.layout(matrix.symbols.size)
    stride = 1 if most is None else max(1, matrix.symbols.size // most)
    if way.mode == ALIKE:
        alike = Expectation(way.mode, mean_of(matrix.symbols), np.zeros(0, np.int64), 0).classes()
        blocks = ((alike, block) for block in rows.alike(matrix.symbols, lanes, stride))
    else:
        levels = _levels(matrix, layout)
        base, limit = _level_range(levels)
        learned.levels.begin(limit, None)
        row(learned.levels, decoder.LEVEL_CLASS, levels - base + limit)
        told = layout.each_row(levels).reshape(-1, layout.kernel[0])[::stride].ravel()
        foreseen = rows.Foreseen(Expectation(way.mode, 0, told, layout.columns, layout.kernel), matrix.shift > 0)
        blocks = (foreseen.block(block) for block in rows.laid_out(layout, matrix.symbols, stride))
    seen = 0
    for classes, numbers in blocks:
        rows.handed(tables, classes, numbers + np.int8(matrix.limit), row, alone)
        seen += numbers.size
    return seen


def mean_of(symbols: np.ndarray) -> int:
    """Mean magnitude in units of an expected magnitude."""
    return int(np.abs(symbols).sum(dtype=np.int64)) * decoder.UNIT // max(1, symbols.size)


def _levels(matrix: Matrix, layout: Layout) -> np.ndarray:
    """The level of the mean magnitude of every first index: int64 ``[levels]``."""
    sizes = np.abs(matrix.symbols).reshape(layout.shape)
    first = layout.levels != layout.rows or layout.kernel[0] == 1
    axes = ((0, 2) if layout.turned else (1, 2)) if first else (0, 1)
    means = sizes.sum(axes, dtype=np.int64) * 256 // max(1, sizes.size // max(1, layout.levels))
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
    flags = way.mode | FRESH[way.prior] | decoder.TURNED * way.turned | decoder.ESCAPES * (matrix.excess is not None)
    moved = bool(matrix.offset or matrix.shift)
    other = way.shape != matrix.implied and way.mode != ALIKE
    made = bytearray([flags | decoder.SHIFTED * moved | decoder.COLUMNS * other, matrix.limit])
    for size in way.shape if other else ():
        made += number(size)
    if moved:
        made += number(matrix.offset << 1 if matrix.offset >= 0 else (-matrix.offset << 1) - 1) + bytes([matrix.shift])
    if way.mode == ALIKE:
        return bytes(made + number(mean_of(matrix.symbols)))
    return bytes(made + bytes(_level_range(_levels(matrix, way.layout(matrix.symbols.size)))))
