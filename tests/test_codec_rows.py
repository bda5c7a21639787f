"""Rows at once against rows one by one: classes and symbols of the encoder are those that the decoder will expect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.codec import decoder, rows
from edgepress.codec.decoder import (
    ALIKE,
    BY_CROSS,
    BY_ROW,
    IN_KERNEL,
    LEVELS,
    MOST,
    Expectation,
    Layout,
    Tables,
    number,
)
from edgepress.codec.room import LARGE, PAGE, Pages, room
from edgepress.codec.symbols import Matrix

MODES = st.sampled_from([BY_ROW, BY_CROSS, IN_KERNEL])


def one_by_one(
    layout: Layout, mode: int, levels: np.ndarray, matrix: np.ndarray, floored: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Classes and coded numbers ``[rows, columns]`` as the decoder meets them."""
    expected = Expectation(mode, 0, levels, layout.columns, layout.kernel)
    classes, coded = np.empty(matrix.shape, np.int64), np.empty_like(matrix)
    for row, numbers in enumerate(matrix):
        classes[row] = expected.classes()
        coded[row] = numbers * expected.signs if mode == IN_KERNEL else numbers
        expected.learn(numbers, floored)
    return classes, coded


@settings(max_examples=80, deadline=None)
@given(
    mode=MODES,
    sizes=st.tuples(st.integers(1, 50), st.integers(1, 40), st.integers(1, 3), st.integers(1, 3)),
    turned=st.booleans(),
    floored=st.booleans(),
    at_once=st.sampled_from([1, 40, 1 << 16]),
    few=st.sampled_from([0, rows.FEW_COLUMNS, 100]),
    spread=st.sampled_from([0.3, 2.0, 20.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_at_once_are_those_of_the_decoder(
    mode: int, sizes: tuple[int, int, int, int], turned: bool, floored: bool, at_once: int, few: int, spread: float,
    seed: int,
) -> None:  # fmt: skip
    outer, inner, height, width = sizes
    random = np.random.default_rng(seed)
    numbers = np.rint(random.laplace(size=outer * inner * height * width) * spread).clip(-MOST, MOST).astype(np.int8)
    layout = Layout.of(mode, numbers.size, (inner * height * width, height * width, width), turned)
    levels = layout.each_row(random.integers(0, len(LEVELS), layout.levels))
    classes, coded = one_by_one(layout, mode, levels, layout.laid(numbers), floored)
    foreseen = rows.Foreseen(Expectation(mode, 0, levels, layout.columns, layout.kernel), floored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "AT_ONCE", at_once)
        patch.setattr(rows, "FEW_COLUMNS", few)
        found = [foreseen.block(block) for block in rows.laid_out(layout, numbers, 1)]
    assert np.array_equal(np.concatenate([np.broadcast_to(each, of.shape) for each, of in found]), classes)
    assert np.array_equal(np.concatenate([of for _, of in found]), coded)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 3000), lanes=st.sampled_from([1, 2, 7]), stride=st.integers(1, 9),
    at_once=st.sampled_from([1, 700, 1 << 16]),
)  # fmt: skip
def test_numbers_without_rows_are_cut_as_the_decoder_cuts_them(
    count: int, lanes: int, stride: int, at_once: int
) -> None:
    numbers = np.arange(count, dtype=np.int16)
    ends = np.cumsum(decoder.widths(count, lanes), dtype=np.int64)
    cut = np.split(numbers, ends[:-1]) if count else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "AT_ONCE", at_once)
        found = [row for block in rows.alike(numbers, lanes, stride) for row in block]
    wanted = cut[::stride]
    assert len(found) == len(wanted)
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 90)), kind=st.sampled_from(["one", "rows", "all"]),
    alone=st.booleans(), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_rows_handed_on_as_one_cost_what_they_cost_one_by_one(
    shape: tuple[int, int], kind: str, alone: bool, seed: int
) -> None:
    """No renewal of the tables may fall inside what is handed on, or the decoder would have other tables."""
    random = np.random.default_rng(seed)
    symbols = np.rint(random.laplace(size=shape)).clip(-5, 5).astype(np.int8) + np.int8(5)
    classes: Any = {
        "one": 3,
        "rows": random.integers(0, decoder.CLASSES, (shape[0], 1)),
        "all": random.integers(0, decoder.CLASSES, shape),
    }[kind]
    wanted, tables = [], Tables(decoder.FINE)
    tables.begin(5, None)
    for of, row in zip(np.broadcast_to(classes, shape), symbols, strict=True):
        wanted.append(tables.frequencies[of, row])
        tables.learn(of, row)
    found: list[np.ndarray] = []
    again = Tables(decoder.FINE)
    again.begin(5, None)

    def take(tables: Tables, of: Any, row: np.ndarray) -> None:
        found.append(tables.frequencies[of, row])
        assert not alone or len(row) == shape[1]
        tables.learn(of, row)

    cut = int(random.integers(0, shape[0] + 1))  # blocks begin anywhere between two renewals
    for part in (slice(cut), slice(cut, None)):
        rows.handed(again, classes if isinstance(classes, int) else classes[part], symbols[part], take, alone)
    assert np.array_equal(np.concatenate(found), np.concatenate(wanted))


def test_numbers_alike_are_one_class() -> None:
    made = Expectation(ALIKE, 300, np.zeros(0, np.int64), 0)
    assert isinstance(made.classes(), int)
    assert made.classes() == int(np.searchsorted(decoder.EDGES, 300, side="right"))


# --- numbers in full -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [1 << 15, 1 << 31, 1 << 39])
@pytest.mark.parametrize("offset", [0, 7, -300])
@pytest.mark.parametrize("shift", [0, 3])
def test_escapes_at_the_bounds_of_integers_come_back(bound: int, offset: int, shift: int) -> None:
    """Numbers right below, at and above what 16 and 32 bits hold, of both signs."""
    near = [sign * (bound + off) + move for sign in (1, -1) for off in (-2, -1, 0, 1) for move in (0, offset)]
    wanted = np.array([*near, 0, 1, -1, offset], np.int64)
    limit = 3
    high = (wanted - offset) >> shift
    small = high.clip(-limit, limit).astype(np.int8)
    side = b"".join(number(abs(int(each)) - limit) for each in high[np.abs(small) == limit])
    bits = (wanted - offset & ((1 << shift) - 1))[:, None] >> np.arange(shift)[::-1] & 1
    source = decoder.Bytes(side + np.packbits(bits.astype(np.uint8)).tobytes())
    assert np.array_equal(decoder._corrected(small, source, limit, shift, offset), wanted)
    source.finish()


@pytest.mark.parametrize("largest", [2**15 - 1, 2**15, 2**31 - 1, 2**31, 2**39])
def test_what_the_encoder_makes_of_the_bounds_comes_back(largest: int) -> None:
    values = np.zeros(3000, np.int64)
    values[5], values[77], values[2999] = largest, -largest, -largest - 1
    matrix = Matrix.of(values, values.shape, decoder.FINE)
    assert matrix.excess is not None
    side = decoder.Bytes(b"".join(number(each) for each in matrix.excess.tolist()) + matrix.low)
    back = decoder._corrected(matrix.symbols, side, matrix.limit, matrix.shift, matrix.offset)
    assert np.array_equal(back, values)
    assert back.dtype.itemsize <= (2 if largest < 1 << 14 else 4 if largest < 1 << 30 else 8)


# --- room ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 3, LARGE // 2, LARGE + 1])
@pytest.mark.parametrize("kind", [np.uint8, "<u2", np.float64])
def test_room_is_an_array_to_be_written(count: int, kind: Any) -> None:
    made = room(count, kind)
    made[:] = 7
    assert made.shape == (count,)
    assert made.dtype == np.dtype(kind)
    assert (made == 7).all()


def test_arrays_of_pages_share_nothing() -> None:
    one, other = room(LARGE, np.uint8), room(LARGE, np.uint8)
    one[:] = 1
    assert not other.any()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 1000, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE + 5]), max_size=5))
def test_pages_keep_bytes_in_order_until_they_are_drained(sizes: list[int]) -> None:
    pages, wanted = Pages(), b""
    for place, size in enumerate(sizes):
        part = np.full(size, place + 1, np.uint8).tobytes()
        pages += part
        wanted += part
    assert len(pages) == len(wanted)
    assert bytes(pages) == wanted
    assert b"".join(pages.drained()) == wanted
    assert len(pages) == 0
    assert bytes(pages) == b""


def test_pages_take_what_has_wider_items() -> None:
    pages = Pages()
    pages += np.array([1, 258], "<u2").data
    pages += np.empty(0, "<u2").data
    assert bytes(pages) == b"\x01\x00\x02\x01"
