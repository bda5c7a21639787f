"""How the values of a tensor are best coded: every method that gives them back to the bit is priced.

    whole numbers   as a matrix (``matrices``); packed ones as their digits
    floats          multiples of steps (``grids``); a codebook and places in it; halves; exponents apart from mantissas
    anything        as plain bytes, compressed or not

A method is tried without leaving a trace: what it would write, and what that costs after all that was coded before.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from edgepress.codec import decoder, grids, matrices, symbols
from edgepress.codec.coder import Coder
from edgepress.codec.decoder import KINDS, MANTISSAS, SIGNED, Hole, number
from edgepress.codec.room import Pages, room
from edgepress.codec.squeezed import squeezed
from edgepress.codec.symbols import Matrix

Shapes = Collection[tuple[int, ...]]

BOOK = 256
"""Distinct values of a codebook, at the most."""

GLANCE = 1 << 12
"""Values that show whether there may be few distinct ones."""

DIGIT_BASES = 64
"""Bases of packed words that are looked for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to code a tensor.

    Attributes:
        name: of the method.
        recipe: bytes before the recipes of the matrices.
        parts: matrices, coded in this order.
        side: bytes of the side section, before and after those of the matrices.
    """

    name: str
    recipe: bytes
    parts: tuple[Matrix, ...] = ()
    side: tuple[bytes, bytes] = (b"", b"")

    def priced(self, coder: Coder) -> tuple[float, tuple[matrices.Way, ...]]:
        """Bits, and the ways of the matrices."""
        found = [matrices.best(each, coder.learned, coder.lanes) for each in self.parts]
        fixed = 8 * (len(self.recipe) + sum(map(len, self.side)))
        return fixed + sum(bits for bits, _ in found), tuple(way for _, way in found)

    def write(self, ways: tuple[matrices.Way, ...], coder: Coder, side: Pages) -> bytes:
        """Code it; returns the recipe."""
        recipe = bytearray(self.recipe)
        side += self.side[0]
        for each, way in zip(self.parts, ways, strict=True):
            recipe += matrices.write(each, way, coder, side)
        side += self.side[1]
        return bytes(recipe)


def cheapest(hole: Hole, data: memoryview, coder: Coder, shapes: Shapes) -> tuple[Candidate, tuple[matrices.Way, ...]]:
    """The cheapest candidate for a tensor, with the ways of its matrices.

    Args:
        hole: type and dimensions.
        data: the values.
        coder: what was coded before.
        shapes: shapes that packed weights of the graph may have.
    """
    found: tuple[float, Candidate, tuple[matrices.Way, ...]] | None = None
    for candidate in _for_numbers(hole, data, coder.learned.precision, shapes):
        bits, ways = candidate.priced(coder)
        if found is None or bits < found[0]:
            found = bits, candidate, ways
    if found is None or _may_be_less(data, found[0]):
        stored = _stored(data)
        if found is None or 8 * len(b"".join(stored.side)) + 8 < found[0]:
            return stored, ()
    return found[1], found[2]


def _may_be_less(data: memoryview, bits: float) -> bool:
    """Whether general compression may need fewer bits; of large tensors a sample tells."""
    if len(data) <= SHORT:
        return True
    middle = len(data) // 2
    return 8 * len(squeezed(data[middle : middle + SHORT])) * (len(data) / SHORT) < bits * CLEARLY


def _for_numbers(hole: Hole, data: memoryview, precision: int, shapes: Shapes) -> Iterator[Candidate]:
    if not hole.count or hole.kind not in KINDS | NARROW or hole.kind == decoder.DOUBLE:
        return
    if hole.kind == decoder.FLOAT:
        steps = list(_steps(hole, np.frombuffer(data, "<f4"), precision))
        yield from steps
        if steps:
            return
    if hole.kind in MANTISSAS:
        yield from _of_floats(hole, data, precision)
    else:
        yield from _of_integers(hole, data, precision, shapes)
    if hole.bits >= 8:
        yield from _codebook(hole, np.frombuffer(data, KINDS[hole.kind]), precision)


NARROW = {21: "", 22: "", 25: "", 26: ""}
"""Types of 4 and 2 bits."""

SHORT = 1 << 16
CLEARLY = 0.95


def _blob(data: bytes | memoryview) -> bytes:
    packed = squeezed(data)
    return number(len(packed)) + packed


def _stored(data: memoryview) -> Candidate:
    return Candidate("stored", bytes([decoder.STORED]), side=(b"", _blob(bytes(data))))


def _whole(hole: Hole, data: memoryview) -> np.ndarray:
    """The integers of a tensor, those of 4 and 2 bits one by one."""
    if hole.bits >= 8:
        return np.frombuffer(data, KINDS[hole.kind])
    each, mask = 8 // hole.bits, (1 << hole.bits) - 1
    packed = np.frombuffer(data, np.uint8)
    whole = np.stack([packed >> (hole.bits * place) & mask for place in range(each)], 1).ravel()[: hole.count]
    return whole.astype(np.int8) - (whole >> (hole.bits - 1) << hole.bits).astype(np.int8) * (hole.kind in SIGNED)


def _of_integers(hole: Hole, data: memoryview, precision: int, shapes: Shapes) -> Iterator[Candidate]:
    whole = _whole(hole, data)
    if hole.bits < 8 and decoder._packed(whole, hole.bits).tobytes() != bytes(data):
        return  # something stands in the bits that fill up the last byte
    if int(np.abs(whole[:: max(1, len(whole) // GLANCE)].astype(np.float64)).max()) > symbols.LARGEST:
        return
    if whole.dtype.itemsize > 4 and np.abs(whole.astype(np.float64)).max() > symbols.LARGEST:
        yield from _digits(hole, whole, precision, shapes)
        return
    matrix = Matrix.of(whole, hole.dims, precision)
    yield Candidate("integers", bytes([decoder.INTEGERS]), (matrix,))
    if hole.kind == decoder.BYTE:
        yield from _digits(hole, whole, precision, shapes)


def _of_floats(hole: Hole, data: memoryview, precision: int) -> Iterator[Candidate]:
    if hole.kind == decoder.FLOAT:
        values = np.frombuffer(data, "<f4")
        if _are_halves(values[:GLANCE]) and _are_halves(values):
            halves = values.astype("<f2")
            inner = Hole(decoder.FLOAT16, hole.dims)
            for each in _of_floats(inner, memoryview(halves.tobytes()), precision):
                yield _wrapped(each)
            return
    yield _split(hole, data, precision)


def _are_halves(values: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array_equal(values.astype("<f2").astype("<f4").view("<u4"), values.view("<u4"))


def _wrapped(inner: Candidate) -> Candidate:
    return Candidate(inner.name, bytes([decoder.HALVES]) + inner.recipe, inner.parts, inner.side)


def _steps(hole: Hole, values: np.ndarray, precision: int) -> Iterator[Candidate]:
    """Multiples of one step, of a step for each index of the first axis, or of the last."""
    single = grids.one_step(values)
    if single is not None:
        yield _of_multiples(hole, values, single, 0, precision)
        return
    if len(hole.dims) < 2:
        return
    rows = grids.step_each(values.reshape(hole.dims[0], -1))
    if rows is not None:
        yield _of_multiples(hole, values, rows, 0, precision)
        return
    columns = grids.step_each(values.reshape(-1, hole.dims[-1]).T)
    if columns is not None:
        turned = grids.Multiples(np.ascontiguousarray(columns.whole.T), columns.steps)
        yield _of_multiples(hole, values, turned, decoder.LAST_AXIS, precision)


def _of_multiples(hole: Hole, values: np.ndarray, found: grids.Multiples, axis: int, precision: int) -> Candidate:
    zeros = np.flatnonzero(values == 0)
    signs = np.signbit(values[zeros])
    flags = axis | decoder.ZERO_SIGNS * bool(signs.any())
    after = np.packbits(signs).tobytes() if signs.any() else b""
    matrix = Matrix.of(found.whole, hole.dims, precision)
    head = bytes([decoder.STEPS])
    if len(found.steps) == 1:
        recipe = head + bytes([flags | decoder.ONE_STEP]) + found.steps.astype("<f4").tobytes()
        return Candidate("steps", recipe, (matrix,), (b"", after))
    grid = grids.on_grid(found.steps)
    if grid is not None:
        codes = Matrix.of(grid[1], (), precision)
        recipe = head + bytes([flags | decoder.STEP_GRID]) + struct.pack("<d", grid[0])
        return Candidate("steps", recipe, (codes, matrix), (b"", after))
    steps = _blob(found.steps.astype("<f4").tobytes())
    return Candidate("steps", head + bytes([flags | decoder.STEP_EACH]), (matrix,), (steps, after))


def _codebook(hole: Hole, values: np.ndarray, precision: int) -> Iterator[Candidate]:
    """Few distinct values, by their bits."""
    bits = values.view(f"<u{values.dtype.itemsize}")
    book = np.unique(bits[:: max(1, len(bits) // GLANCE)])
    if len(book) > BOOK or _dense(book.view(values.dtype)):
        return
    if len(bits) > GLANCE:
        missed = bits[book[np.minimum(np.searchsorted(book, bits), len(book) - 1)] != bits]
        book = np.union1d(book, missed)
    real = book.view(values.dtype)
    if len(book) > min(BOOK, max(1, len(bits) // 2)):
        return
    order = np.argsort(real, kind="stable")
    ranks = np.empty(len(book), np.int16)
    ranks[order] = np.arange(len(book))
    places = np.searchsorted(book, bits)
    matrix = Matrix.of(ranks[places], hole.dims, precision)
    stored = _blob(book[order].tobytes())
    yield Candidate("codebook", bytes([decoder.BOOK]) + number(len(book)), (matrix,), (stored, b""))


def _dense(book: np.ndarray) -> bool:
    """Whether whole numbers leave no gaps that a codebook could close."""
    return book.dtype.kind in "iu" and int(book.max()) - int(book.min()) < 2 * len(book)


def _split(hole: Hole, data: memoryview, precision: int) -> Candidate:
    """Exponents as a matrix, signs and mantissas as planes of bytes."""
    mantissa = MANTISSAS[hole.kind]
    whole = np.frombuffer(data, f"<u{hole.bits // 8}")
    one = whole.dtype.type
    exponents = room(len(whole), np.uint8)
    planes = [room(len(whole), np.uint8) for _ in range(mantissa // 8 + 1)]
    for start in range(0, len(whole), decoder.BLOCK):
        bits = whole[start : start + decoder.BLOCK]
        exponents[start : start + decoder.BLOCK] = bits >> one(mantissa) & one((1 << hole.bits - 1 - mantissa) - 1)
        rest = (bits & one((1 << mantissa) - 1)) | bits >> one(hole.bits - 1) << one(mantissa)
        for plane, place in zip(planes, range(mantissa // 8, -1, -1), strict=True):
            plane[start : start + decoder.BLOCK] = rest >> one(8 * place) & one(255)
    matrix = Matrix.of(exponents, hole.dims, precision)
    after = bytearray()
    while planes:  # one goes as another comes
        after += _blob(planes.pop(0).data)
    return Candidate("floats", bytes([decoder.SPLIT]), (matrix,), (b"", bytes(after)))


def _digits(hole: Hole, words: np.ndarray, precision: int, shapes: Shapes) -> Iterator[Candidate]:
    """Words of several digits (``quantize.storage.packing``): the base whose digits are the cheapest."""
    room = {decoder.BYTE: 8, 7: 63}.get(hole.kind)
    if room is None or not len(words) or int(words.min()) < 0:
        return
    best = min(_bases(words, room), default=None)
    if best is None:
        return
    _, base, each = best
    digits = _taken_apart(words, base, each)
    least = len(digits) - (each - 1 if not digits[-each:].any() else int(np.argmax(digits[::-1] != 0)))
    shape = min((each for each in shapes if least <= math.prod(each) <= len(digits) and min(each) > 0), default=None)
    kept = digits[: least if shape is None else math.prod(shape)]
    missing = len(digits) - len(kept)
    matrix = Matrix.of(kept, (), precision, thought=shape)
    recipe = bytes([decoder.DIGITS]) + number(base) + bytes([each, missing])
    yield Candidate("digits", recipe, (matrix,))


def _bases(words: np.ndarray, room: int) -> Iterator[tuple[float, int, int]]:
    """Entropy of the digits, base and digits in a word, of every base that the words may have."""
    sample = words[:: max(1, len(words) // GLANCE)]
    largest = int(words.max())
    for base in range(2, DIGIT_BASES):
        each = int(room / math.log2(base))
        if each < 2 or largest >= base**each:
            continue
        counts = np.bincount(_taken_apart(sample, base, each), minlength=base)
        shares = counts[counts > 0] / counts.sum()
        yield float(-(shares * np.log2(shares)).sum()) * each, base, each


def _taken_apart(words: np.ndarray, base: int, each: int) -> np.ndarray:
    powers = np.array([base**place for place in range(each)], np.int64)
    return np.asarray((words.astype(np.int64)[:, None] // powers % base).ravel())
