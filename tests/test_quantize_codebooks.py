"""Uneven levels: nearer to heavy-tailed weights than even ones, as many as asked for, zero among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.levels import bounds
from edgepress.quantize.weights.codebooks import codebook, on_codebook
from edgepress.quantize.weights.obs import Grid
from edgepress.quantize.weights.scales import best_scales, is_half

FEW = settings(max_examples=60, deadline=None)


def weights(kind: str, rows: int = 24, columns: int = 200, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng([seed, rows, columns])
    made = {
        "normal": random.standard_normal((rows, columns)),
        "laplace": random.laplace(size=(rows, columns)),
        "heavy": random.standard_t(3, (rows, columns)),
        "sparse": random.standard_normal((rows, columns)) * (random.random((rows, columns)) < 0.1),
        "two sizes": random.standard_normal((rows, columns)) * random.choice([0.05, 1.0], (rows, columns)),
    }[kind]
    return np.asarray(made * np.exp(random.standard_normal((rows, 1))))


def cost(weight: np.ndarray, importance: np.ndarray, grid: Grid) -> float:
    whole = grid.nearest(weight / grid.scale[:, None])
    return float((np.square(weight - whole * grid.scale[:, None]) @ importance).sum())


def even(weight: np.ndarray, importance: np.ndarray, levels: int) -> Grid:
    low, high = (np.full(len(weight), bound) for bound in bounds(levels))
    return Grid(best_scales(weight, importance, low, high).astype(np.float64), low, high)


@pytest.mark.parametrize(("kind", "levels", "gain"), [
    ("heavy", 16, 0.7), ("heavy", 9, 0.8), ("laplace", 16, 0.9), ("sparse", 16, 0.7), ("two sizes", 16, 0.95),
])  # fmt: skip
def test_heavy_tails_are_met_better_than_by_even_levels(kind: str, levels: int, gain: float) -> None:
    weight, importance = weights(kind), np.exp(np.random.default_rng(1).standard_normal(200))
    uneven = on_codebook(weight, importance, codebook(weight, importance, levels, 127))
    assert cost(weight, importance, uneven) < gain * cost(weight, importance, even(weight, importance, levels))


@FEW
@given(
    st.sampled_from(["normal", "heavy", "sparse", "two sizes"]),
    st.integers(3, 32),
    st.sampled_from([1, 7, 64, 127]),
    st.integers(1, 20),
    st.integers(0, 99),
)
def test_no_more_levels_than_asked_for_within_the_limit_and_zero_is_one(
    kind: str, levels: int, limit: int, columns: int, seed: int
) -> None:
    weight = weights(kind, 5, columns, seed)
    book = codebook(weight, np.ones(columns), levels, limit)
    assert len(book) <= levels and 0 in book
    assert np.array_equal(book, np.unique(book)) and np.abs(book).max() <= limit <= 127
    grid = on_codebook(weight, np.ones(weight.shape[1]), book)
    assert (grid.scale > 0).all() and is_half(grid.scale[grid.scale > 1e-4].astype(np.float32))
    assert np.array_equal(np.stack([grid.low, grid.high]), [[book[0]] * 5, [book[-1]] * 5])
    zeros = weight == 0
    assert (grid.nearest(weight / grid.scale[:, None])[zeros] == 0).all()


@pytest.mark.parametrize("levels", [3, 4, 16])
@pytest.mark.parametrize("limit", [64, 127])
def test_weights_of_nothing_and_of_one_value(levels: int, limit: int) -> None:
    for weight in (np.zeros((4, 6)), np.full((4, 6), 0.7), np.eye(4, 6), np.full((1, 1), -2.0)):
        book = codebook(weight, np.ones(weight.shape[1]), levels, limit)
        grid = on_codebook(weight, np.ones(weight.shape[1]), book)
        made = grid.nearest(weight / grid.scale[:, None]) * grid.scale[:, None]
        assert np.abs(made - weight).max() <= 0.02 * np.abs(weight).max()


@pytest.mark.parametrize("levels", [3, 4, 5, 7, 9, 16, 32])
@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "sparse", "two sizes"])
def test_never_noticeably_worse_than_even_levels(kind: str, levels: int) -> None:
    """But for their places, which are whole numbers within the limit."""
    weight, importance = weights(kind, seed=levels), np.exp(np.random.default_rng(1).standard_normal(200))
    uneven = on_codebook(weight, importance, codebook(weight, importance, levels, 127))
    assert cost(weight, importance, uneven) < 1.02 * cost(weight, importance, even(weight, importance, levels))


def test_more_levels_are_better_and_kmeans_moves_the_centres() -> None:
    weight, importance = weights("heavy"), np.ones(200)
    costs = [
        cost(weight, importance, on_codebook(weight, importance, codebook(weight, importance, n, 127)))
        for n in (4, 8, 16)
    ]
    assert costs[2] < 0.5 * costs[1] < 0.25 * costs[0]


def test_what_matters_more_is_met_better() -> None:
    weight = weights("heavy", 40, 100)
    weight[:, :50] *= 0.2  # small weights
    costly = np.where(np.arange(100) < 50, 100.0, 1.0)
    heeded, equal = (on_codebook(weight, given_, codebook(weight, given_, 8, 127)) for given_ in (costly, np.ones(100)))
    assert cost(weight, costly, heeded) < 0.9 * cost(weight, costly, equal)


def test_scales_are_powers_of_two_where_these_are_asked_for() -> None:
    weight = weights("normal")
    book = codebook(weight, np.ones(200), 16, 127)
    grid = on_codebook(weight, np.ones(200), book, power_of_two=True)
    assert (np.frexp(grid.scale)[0] == 0.5).all()
    assert (np.abs(weight).max(1) <= 127.1 * grid.scale).all()
