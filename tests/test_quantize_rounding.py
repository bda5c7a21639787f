"""Second-order rounding: laws on random Grams, GPTQ in its plainest form, brute force on the smallest layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.calibrate.statistics import Gram
from edgepress.levels import bounds
from edgepress.quantize.weights import obs as rounding
from edgepress.quantize.weights.obs import Factor, Grid, Inputs, error, obs
from edgepress.quantize.weights.scales import best_scales

LEVELS = st.sampled_from([3, 4, 5, 7, 16, 22, 255])
FEW = settings(max_examples=60, deadline=None)
BOOK = np.array([-100, -31, -9, 0, 4, 20, 127])


def gram(columns: int, rows: int, seed: int) -> np.ndarray:
    """Second moments of correlated inputs of very different sizes; singular where rows are few."""
    random = np.random.default_rng([seed, columns, rows])
    mixed = random.standard_normal((rows, columns)) @ random.standard_normal((columns, columns))
    x = mixed * np.exp(random.standard_normal(columns)) + random.standard_normal(columns)
    return np.asarray(x.T @ x / rows)


def layer(levels: int, columns: int, seed: int, rows: int = 6) -> tuple[np.ndarray, Grid]:
    weight = np.random.default_rng([seed, columns, 1]).standard_normal((rows, columns))
    low, high = (np.full(rows, bound) for bound in bounds(levels))
    scale = best_scales(weight, np.ones(columns), low, high)
    return weight, Grid(scale.astype(np.float64), low, high)


def plain_gptq(weight: np.ndarray, damped: np.ndarray, order: np.ndarray, grid: Grid) -> np.ndarray:
    """GPTQ as it is written down: the inverse of what is left, column by column, no factor, no blocks."""
    whole = np.zeros_like(weight)
    for row, values in enumerate(weight):
        left, free = values.copy(), list(order)
        while free:
            inverse = np.linalg.inv(damped[np.ix_(free, free)])
            first, scale = free[0], grid.scale[row]
            whole[row, first] = np.clip(np.rint(left[first] / scale), grid.low[row], grid.high[row])
            lost = left[first] - scale * whole[row, first]
            for place, column in enumerate(free):
                left[column] -= lost * inverse[0, place] / inverse[0, 0]
            free = free[1:]
    return whole


@FEW
@given(LEVELS, st.integers(1, 14), st.integers(1, 60), st.integers(0, 999))
def test_no_row_is_worse_than_rounded_to_the_nearest(levels: int, columns: int, rows: int, seed: int) -> None:
    factor = Factor.of(gram(columns, rows, seed))
    weight, grid = layer(levels, columns, seed)
    nearest = error(weight, grid.nearest(weight / grid.scale[:, None]), grid.scale, factor.gram)
    for passes in (0, 1, 2):
        found = error(weight, obs(weight, factor, grid, passes=passes), grid.scale, factor.gram)
        assert (found <= nearest * (1 + 1e-9) + 1e-12).all()


def test_on_the_whole_it_is_far_better_than_the_nearest() -> None:
    factor = Factor.of(gram(40, 200, 1))
    weight, grid = layer(16, 40, 1, rows=50)
    nearest = error(weight, grid.nearest(weight / grid.scale[:, None]), grid.scale, factor.gram)
    found = error(weight, obs(weight, factor, grid), grid.scale, factor.gram)
    assert found.sum() < 0.5 * nearest.sum()


@FEW
@given(LEVELS, st.integers(2, 12), st.integers(1, 40), st.integers(0, 999))
def test_descent_never_raises_the_objective(levels: int, columns: int, rows: int, seed: int) -> None:
    factor = Factor.of(gram(columns, rows, seed))
    weight, grid = layer(levels, columns, seed)
    errors = [error(weight, obs(weight, factor, grid, passes=n), grid.scale, factor.gram) for n in (0, 1, 2, 5)]
    for before, after in itertools.pairwise(errors):
        assert (after <= before * (1 + 1e-9) + 1e-12).all()


@FEW
@given(LEVELS, st.integers(1, 12), st.integers(1, 40), st.integers(0, 999))
def test_bounds_are_kept_and_every_row_has_its_own(levels: int, columns: int, rows: int, seed: int) -> None:
    factor = Factor.of(gram(columns, rows, seed))
    weight, grid = layer(levels, columns, seed)
    low, high = grid.low + np.arange(6) % 2, np.maximum(grid.high - np.arange(6) % 3, 1)
    whole = obs(10 * weight, factor, Grid(grid.scale, low, high))  # far out: clipped all over
    assert whole.dtype == np.int8
    assert (whole.min(1) >= low).all() and (whole.max(1) <= high).all()
    book = np.unique(obs(weight, factor, Grid(np.full(6, 0.02), np.full(6, -100), np.full(6, 127), BOOK)))
    assert set(book) <= set(BOOK.tolist())


@FEW
@given(LEVELS, st.integers(1, 12), st.integers(0, 999), st.permutations(range(6)))
def test_rows_are_independent(levels: int, columns: int, seed: int, order: list[int]) -> None:
    factor = Factor.of(gram(columns, 50, seed))
    weight, grid = layer(levels, columns, seed)
    turned = Grid(grid.scale[order], grid.low[order], grid.high[order])
    assert np.array_equal(obs(weight[order], factor, turned), obs(weight, factor, grid)[order])


@pytest.mark.parametrize("levels", [3, 4, 16, 255])
@pytest.mark.parametrize(("columns", "block"), [(7, 64), (9, 4), (8, 4), (6, 1)])
def test_without_descent_it_is_gptq(levels: int, columns: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "BLOCK", block)
    for seed in range(8):
        factor = Factor.of(gram(columns, 30, seed))
        weight, grid = layer(levels, columns, seed)
        wanted, nearest = (
            plain_gptq(weight, factor.gram, factor.order, grid),
            grid.nearest(weight / grid.scale[:, None]),
        )
        costs = [error(weight, whole, grid.scale, factor.gram) for whole in (wanted, nearest)]
        wanted[costs[1] < costs[0]] = nearest[costs[1] < costs[0]]
        assert np.array_equal(obs(weight, factor, grid, passes=0), wanted)


@pytest.mark.parametrize("levels", [3, 4, 16])
def test_one_column_and_columns_apart_are_solved_exactly(levels: int) -> None:
    weight, grid = layer(levels, 5, 3, rows=40)
    nearest = grid.nearest(weight / grid.scale[:, None])
    assert np.array_equal(obs(weight, Factor.of(np.diag([3.0, 1, 2, 0.1, 7])), grid), nearest)
    assert np.array_equal(obs(weight[:, :1], Factor.of(np.array([[0.3]])), grid), nearest[:, :1])


def test_two_columns_against_brute_force() -> None:
    """Coordinate descent may end in a valley; of these rows nearly all end in the deepest."""
    ratios = []
    for seed in range(20):
        factor = Factor.of(gram(2, 30, seed))
        weight, grid = layer(5, 2, seed)
        low, high = bounds(5)
        every = [np.tile(pair, (6, 1)) for pair in itertools.product(range(low, high + 1), repeat=2)]
        best = np.min([error(weight, whole, grid.scale, factor.gram) for whole in every], axis=0)
        found = error(weight, obs(weight, factor, grid), grid.scale, factor.gram)
        assert (found >= best * (1 - 1e-9) - 1e-15).all()
        ratios.extend(found <= best * (1 + 1e-9) + 1e-15)
    assert np.mean(ratios) > 0.9


def test_the_nearest_of_a_codebook_is_that_of_a_search() -> None:
    steps = np.random.default_rng(0).uniform(-150, 150, (6, 50))
    grid = Grid(np.ones(6), np.full(6, -100), np.full(6, 127), BOOK)
    wanted = BOOK[np.abs(steps[:, :, None] - BOOK).argmin(2)]
    assert np.array_equal(grid.nearest(steps), wanted)
    assert np.array_equal(grid.nearest(steps[:, 0]), wanted[:, 0])


# --- what inputs may look like ------------------------------------------------------------------------------


def moments(x: np.ndarray, bias: bool) -> Gram:
    rows = np.column_stack([x, np.ones(len(x))]) if bias else x
    return Gram.of(rows, x[:, :1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        np.full((500, 5), 1e3) + 1e-5 * np.random.default_rng(0).standard_normal((500, 5)),
        np.full((500, 5), 1234.5),
        np.zeros((10, 5)),
        np.random.default_rng(0).standard_normal((2, 5)),
        1e15 * np.random.default_rng(0).standard_normal((50, 5)),
        1e-15 * np.random.default_rng(0).standard_normal((50, 5)),
        np.random.default_rng(0).standard_normal((50, 5)) * np.array([1, 0, 1e8, 0, 1e-8]),
    ],
    ids=["nearly constant", "constant", "dead", "two rows", "huge", "tiny", "mixed"],
)
def test_any_inputs_give_weights_no_farther_than_the_grid_allows(x: np.ndarray, bias: bool) -> None:
    inputs = Inputs.of(moments(x, bias), int(bias))
    weight, grid = layer(16, 5, 0)
    factor = Factor.of(inputs.spread, inputs.size)
    whole = obs(weight, factor, grid)
    lost = weight - whole * grid.scale[:, None]
    nearest = weight - grid.nearest(weight / grid.scale[:, None]) * grid.scale[:, None]
    assert np.isfinite(lost).all()
    if not x.any() or (bias and (x == x[0]).all()):
        assert np.allclose(lost, nearest)  # nothing is known of these inputs
    # by what the inputs do, no worse than the nearest but for what the damping weighs
    floor = float((np.diag(factor.gram) - np.diag(inputs.spread)).max())
    allowed = np.einsum("ij,ij->i", nearest @ inputs.spread, nearest) + floor * np.square(nearest).sum(1)
    assert (error(weight, whole, grid.scale, inputs.spread) <= allowed * (1 + 1e-6)).all()


def test_several_biases_take_up_the_means_of_their_own_rows() -> None:
    """Two nodes share weights: one has a bias, the other another one, a third one none."""
    random = np.random.default_rng(0)
    parts = [random.standard_normal((count, 3)) + shift for count, shift in ((40, 2.0), (60, -5.0), (30, 0.5))]
    ones = [[1, 0], [0, 1], [0, 0]]
    rows = np.concatenate([np.column_stack([x, np.tile(one, (len(x), 1))]) for x, one in zip(parts, ones, strict=True)])
    found = Inputs.of(Gram.of(rows, rows[:, :2]), 2)
    assert np.allclose(found.means, [parts[0].mean(0), parts[1].mean(0)])
    centred = np.concatenate([parts[0] - parts[0].mean(0), parts[1] - parts[1].mean(0), parts[2]])
    assert np.allclose(found.spread, centred.T @ centred / 130)
