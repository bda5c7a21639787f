"""The ladder of widths: bounds, their names, and what the other modules take for granted of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.levels import INT8, LADDER, NAMED, bits, bounds, within
from edgepress.request import levels_of


@given(st.integers(2, 255))
def test_as_many_whole_numbers_as_levels_all_of_them_int8_and_zero_among_them(levels: int) -> None:
    low, high = bounds(levels)
    assert high - low + 1 == levels
    assert -128 < low <= 0 <= high < 128
    assert low in (-high, -high - 1)  # an even count has one more below zero


def test_powers_of_two_fit_the_integer_types_of_as_many_bits() -> None:
    assert [bounds(levels) for levels in (4, 16)] == [(-2, 1), (-8, 7)]
    assert bounds(INT8) == (-127, 127)


@given(st.integers(2, 255), st.integers(1, 127))
def test_no_number_is_beyond_the_limit(levels: int, limit: int) -> None:
    low, high = within(levels, limit)
    assert (low, high) == (max(bounds(levels)[0], -limit), min(bounds(levels)[1], limit))
    assert within(levels, 127) == bounds(levels)


def test_the_ladder_rises_in_small_steps_up_to_int8() -> None:
    assert list(LADDER) == sorted(set(LADDER)) and LADDER[-1] == INT8
    steps = [math.log2(b / a) for a, b in pairwise(LADDER)]
    assert max(steps) <= 1


@pytest.mark.parametrize("name", NAMED)
def test_widths_are_called_what_they_are(name: float) -> None:
    levels = levels_of(f"{name:g}")
    assert bits(levels) == name
    assert abs(name - math.log2(levels)) <= 0.05


def test_names_rise_with_the_levels() -> None:
    assert list(NAMED.values()) == sorted(NAMED.values()) and list(NAMED) == sorted(NAMED)
