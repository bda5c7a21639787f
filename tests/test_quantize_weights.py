"""Rounding of weights: limits, errors, dead channels, the mean that bias correction restores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from quantize_tools import answers, kernel, parse, samples, to_int8

from edgepress.plan import Quantization
from edgepress.quantize import bias_correction, round_weights
from edgepress.quantize.graph.mincut import INFINITE, source_side

WEIGHTS = arrays.arrays(
    np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-10, 10, width=32)
)


@settings(deadline=None, max_examples=60)
@given(WEIGHTS, st.sampled_from([0, 1, -1]), st.sampled_from([64, 127]))
def test_rounding_keeps_to_the_limit_and_within_half_a_step(weight: np.ndarray, axis: int, limit: int) -> None:
    found = round_weights(weight, axis, limit)
    shape = [1] * weight.ndim
    shape[axis] = -1
    assert found.values.dtype == np.int8
    assert found.scale.dtype == np.float32
    assert found.scale.shape == (weight.shape[axis],)
    assert np.abs(found.values.astype(int)).max() <= limit
    assert (np.abs(weight - found.weight) <= found.scale.reshape(shape) * 0.5001 + 1e-9).all()
    assert (found.scale > 0).all()


def test_a_channel_of_zeros_stays_zero_and_others_use_the_whole_range() -> None:
    weight = kernel(4, 8, 3, 3)
    weight[2] = 0
    found = round_weights(weight, 0, 127)
    assert not found.values[2].any()
    assert [int(np.abs(row.astype(int)).max()) for row in found.values] == [127, 127, 0, 127]


@pytest.mark.parametrize(
    ("shape", "groups", "axis"),
    [((8, 4, 3, 3), 1, 0), ((8, 1, 3, 3), 8, 0), ((8, 2, 1, 1), 2, 0), ((8, 4), 1, 0), ((4, 8), 1, 1)],
)
def test_bias_correction_restores_the_mean_of_every_channel(shape: tuple[int, ...], groups: int, axis: int) -> None:
    weight = kernel(*shape)
    found = round_weights(weight, axis, 3)  # coarse on purpose
    rows = weight if axis == 0 else weight.T
    inputs = rows.shape[1] * groups
    x = np.random.default_rng(0).standard_normal((50, inputs)) + np.linspace(-3, 3, inputs)
    correction = bias_correction(weight, found, x.mean(0))
    means = np.repeat(x.mean(0).reshape(groups, -1), len(rows) // groups, axis=0)
    exact, rounded = (
        (w.reshape(len(rows), rows.shape[1], -1).sum(-1) * means).sum(1)
        for w in (rows, found.weight if axis == 0 else found.weight.T)
    )
    assert np.abs(exact - rounded).max() > 0.01
    assert np.allclose(rounded + correction, exact, atol=1e-5)
    assert correction.dtype == np.float32


def test_bias_correction_in_a_whole_net_moves_the_mean_back() -> None:
    model = parse("h = Conv(x, w1, b1) r = Relu(h) y = Conv(r, w2, b2)", w1=kernel(16, 16, 1, 1), b1=kernel(16),
                  w2=kernel(16, 16, 1, 1, seed=1), b2=kernel(16))  # fmt: skip
    feed = samples(16, 14, 14)
    wanted = answers(model, feed)[0].mean((0, 2, 3))
    coarse = Quantization(weight_limit=8)
    off = [answers(to_int8(model, feed, coarse, correct=c), feed)[0].mean((0, 2, 3)) - wanted for c in (True, False)]
    assert np.abs(off[0]).mean() < 0.3 * np.abs(off[1]).mean()


def test_minimum_cut_of_a_known_graph() -> None:
    edges = [("s", "a", 3), ("s", "b", 2), ("a", "b", 1), ("a", "t", 2), ("b", "t", 3), ("c", "t", INFINITE)]
    assert source_side(edges, "s", "t") == {"s"}
    assert source_side([("s", "a", 5), ("a", "b", 2), ("b", "t", 5)], "s", "t") == {"s", "a"}
    assert source_side([("s", "a", 1), ("s", "a", 1), ("a", "t", 3)], "s", "t") == {"s"}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), max_size=16))
def test_minimum_cut_is_minimal(edges: list[tuple[int, int, int]]) -> None:
    found = source_side(edges, 0, 5)

    def cost(side: set[object]) -> int:
        return sum(c for a, b, c in edges if a in side and b not in side)

    every = [{0, *(i + 1 for i in range(4) if mask >> i & 1)} for mask in range(16)]
    assert 0 in found
    assert 5 not in found
    assert cost(found) == min(cost(set(side)) for side in every)
