"""Scales of weights: never worse than clipping nothing, exact in float16, powers of two where these are asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.levels import LADDER, bounds, within
from edgepress.quantize.weights.nearest import SMALLEST_SCALE, Rounded, on_levels
from edgepress.quantize.weights.scales import best_scales, half, is_half, power_of_two, settled

FEW = settings(max_examples=80, deadline=None)
SIZES = st.floats(-7, 7)


def rows(count: int, columns: int, seed: int, size: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Heavy-tailed weights and what an error of each column costs."""
    random = np.random.default_rng([seed, count, columns])
    weight = random.standard_t(3, (count, columns)) * np.exp(random.standard_normal((count, 1)))
    return weight * 10.0**size, np.exp(random.standard_normal(columns))


def cost(weight: np.ndarray, importance: np.ndarray, scale: np.ndarray, low: int, high: int) -> np.ndarray:
    whole = np.clip(np.rint(weight / scale[:, None]), low, high)
    return np.asarray(np.square(weight - whole * scale[:, None]) @ importance)


def found(weight: np.ndarray, importance: np.ndarray, low: int, high: int, *, power: bool = False) -> np.ndarray:
    count = len(weight)
    scale = best_scales(weight, importance, np.full(count, low), np.full(count, high), power_of_two=power)
    assert scale.dtype == np.float32 and np.isfinite(scale).all() and (scale > 0).all()
    return scale.astype(np.float64)


@FEW
@given(st.sampled_from(LADDER), st.sampled_from([64, 127]), st.integers(1, 30), st.integers(0, 999), SIZES)
def test_never_worse_than_scales_that_clip_nothing(
    levels: int, limit: int, columns: int, seed: int, size: float
) -> None:
    weight, importance = rows(5, columns, seed, size)
    low, high = within(levels, limit)
    chosen = cost(weight, importance, found(weight, importance, low, high), low, high)
    for reach in (high, max(-low, high)):
        plain = half(np.maximum(np.abs(weight).max(1) / reach, SMALLEST_SCALE)).astype(np.float64)
        assert (chosen <= cost(weight, importance, plain, low, high) * (1 + 1e-9)).all()


def test_with_few_levels_clipping_pays() -> None:
    weight, importance = rows(50, 300, 0)
    for levels, gain in ((3, 0.6), (4, 0.6), (16, 0.8)):
        low, high = bounds(levels)
        plain = np.abs(weight).max(1) / high
        chosen = cost(weight, importance, found(weight, importance, low, high), low, high)
        assert chosen.sum() < gain * cost(weight, importance, plain, low, high).sum()


def test_importance_counts() -> None:
    weight, importance = rows(20, 30, 0)
    importance = importance**4
    low, high = bounds(4)
    heeded, equal = found(weight, importance, low, high), found(weight, np.ones(30), low, high)
    assert cost(weight, importance, heeded, low, high).sum() < 0.9 * cost(weight, importance, equal, low, high).sum()


@FEW
@given(st.sampled_from(LADDER), st.integers(1, 30), st.integers(0, 999), SIZES)
def test_powers_of_two_are_powers_of_two_and_the_best_of_them(
    levels: int, columns: int, seed: int, size: float
) -> None:
    weight, importance = rows(5, columns, seed, size)
    low, high = bounds(levels)
    scale = found(weight, importance, low, high, power=True)
    assert (np.frexp(scale)[0] == 0.5).all()
    chosen = cost(weight, importance, scale, low, high)
    top = np.ceil(np.log2(np.maximum(np.abs(weight).max(1) / max(-low, high), SMALLEST_SCALE)))
    for more in (-3, -2, -1, 0, 1):
        assert (chosen <= cost(weight, importance, np.exp2(top + more), low, high) * (1 + 1e-9)).all()


@pytest.mark.parametrize("levels", [3, 4, 16, 255])
def test_channels_of_zeros_and_of_next_to_nothing(levels: int) -> None:
    weight = np.array([[0, 0, 0], [1e-12, 0, -1e-12], [1, 2, -3], [0, 0, 1e-30]])
    low, high = bounds(levels)
    scale = found(weight, np.ones(3), low, high)
    assert scale[[0, 1, 3]] == pytest.approx(SMALLEST_SCALE)
    power = found(weight, np.ones(3), low, high, power=True)
    assert power[0] == 2.0 ** np.ceil(np.log2(SMALLEST_SCALE))


@pytest.mark.parametrize("size", [1e-30, 1e-7, 1e-3, 1.0, 6e4, 1e6, 1e30])
def test_scales_of_any_size(size: float) -> None:
    """Those that float16 cannot hold stay float32."""
    weight, importance = rows(30, 20, 0)
    low, high = bounds(16)
    scale = found(size * weight, importance, low, high)
    held = scale[(scale >= np.finfo(np.float16).tiny) & (scale <= np.finfo(np.float16).max)]
    assert is_half(held.astype(np.float32)) and (len(held) > 0 or not 1e-3 <= size <= 6e4)
    if size > 1e-7:
        assert np.abs(scale / (size * found(weight, importance, low, high)) - 1).max() < 2e-3


@FEW
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_half_is_float16_where_that_is_normal_and_nothing_else_elsewhere(values: list[float]) -> None:
    given_, made = np.array(values, np.float32), half(np.array(values))
    normal = (given_ >= np.finfo(np.float16).tiny) & (given_ <= np.finfo(np.float16).max)
    assert made.dtype == np.float32
    assert is_half(made[normal])
    assert np.array_equal(made[~normal], given_[~normal])
    assert (np.abs(made / given_ - 1) <= 2.0**-11).all()
    assert np.array_equal(half(made), made)


@FEW
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_the_nearest_power_of_two(values: list[float]) -> None:
    made = power_of_two(np.array(values))
    assert (np.frexp(made)[0] == 0.5).all()
    assert (np.abs(np.log2(made.astype(np.float64) / np.array(values))) <= 0.5 + 1e-9).all()
    assert np.array_equal(settled(np.array(values), in_powers=True), made)
    assert np.array_equal(settled(made, in_powers=True), made)
    assert np.array_equal(settled(np.array(values), in_powers=False), half(np.array(values)))


@FEW
@given(st.sampled_from(LADDER), st.integers(0, 99), st.booleans())
def test_coarser_weights_stay_on_their_levels(levels: int, seed: int, uneven: bool) -> None:
    random = np.random.default_rng(seed)
    low, high = bounds(levels)
    book = np.unique(np.append(random.integers(-127, 128, min(levels, 16)), 0)).astype(np.int8) if uneven else None
    values = random.choice(np.arange(low, high + 1) if book is None else book, (4, 9)).astype(np.int8)
    item = Rounded(values, np.exp(random.standard_normal(4)).astype(np.float32), 0, levels=levels, codebook=book)
    assert np.array_equal(on_levels(item, item.scale).values, values)
    wider = np.asarray(item.scale * random.uniform(1, 9, 4), np.float32)
    made = on_levels(item, wider)
    allowed = np.arange(low, high + 1) if book is None else book
    assert set(np.unique(made.values)) <= set(allowed.tolist())
    steps = item.weight.astype(np.float64) / wider[:, None].astype(np.float64)
    best = np.abs(steps[:, :, None] - allowed).min(2)
    assert (np.abs(steps - made.values) <= best + 1e-4).all()
