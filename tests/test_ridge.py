"""The refit: least squares at one end, the given weights at the other, and the choice between them on held-out rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numeric_tools import relative, split_of

from edgepress.calibrate.ridge import FIXED, GRID, refit, solve
from edgepress.calibrate.statistics import Gram, SplitGram

few = settings(deadline=None, max_examples=20, derandomize=True)


def problem(rows: int, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, targets, and given weights that are somewhat off the truth."""
    random = np.random.default_rng([seed, rows])
    x = random.standard_normal((rows, 5)) @ random.standard_normal((5, 5)) + 0.5
    truth = random.standard_normal((3, 6))
    y = np.column_stack([x, np.ones(rows)]) @ truth.T + noise * random.standard_normal((rows, 3))
    return x, y, truth + 0.3 * random.standard_normal(truth.shape)


def whole(x: np.ndarray, y: np.ndarray) -> Gram:
    return split_of(x, y).whole


def ones(x: np.ndarray) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


@few
@given(st.integers(0, 10_000))
def test_no_ridge_is_least_squares(seed: int) -> None:
    x, y, given_ = problem(60, seed)
    oracle = np.linalg.lstsq(ones(x), y, rcond=None)[0].T
    assert relative(solve(whole(x, y), given_, 1e-12), oracle) < 1e-6


@few
@given(st.integers(0, 10_000))
def test_a_strong_ridge_leaves_the_weights_and_fits_the_bias(seed: int) -> None:
    x, y, given_ = problem(60, seed)
    found = solve(whole(x, y), given_, 1e12)
    assert relative(found[:, :-1], given_[:, :-1]) < 1e-6
    assert np.allclose(found[:, -1], (y - x @ given_[:, :-1].T).mean(0), atol=1e-5)


@few
@given(st.integers(0, 10_000), st.sampled_from(GRID))
def test_ridge_is_least_squares_with_extra_rows_that_ask_for_the_given_weights(seed: int, ridge: float) -> None:
    x, y, given_ = problem(60, seed)
    pull = np.sqrt(60 * np.append(np.full(5, ridge * (x**2).mean()), 1e-9))
    rows = np.concatenate([ones(x), np.diag(pull)])
    targets = np.concatenate([y, (given_ * pull).T])
    oracle = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    assert relative(solve(whole(x, y), given_, ridge), oracle) < 1e-6


def test_without_a_bias_column() -> None:
    x, y, given_ = problem(60)
    found = refit(split_of(x, y), given_, np.arange(5), biases=0)
    assert found.matrix.shape == (3, 5)
    pull = np.sqrt(60 * FIXED * (x**2).mean()) * np.eye(5)
    oracle = np.linalg.lstsq(np.concatenate([x, pull]), np.concatenate([y, (given_[:, :5] @ pull).T]), rcond=None)[0].T
    assert relative(found.matrix, oracle) < 1e-8


def test_several_biases_are_all_free() -> None:
    """Two sets of rows, each with an intercept of its own: both come out right under a strong ridge."""
    x, _, given_ = problem(60)
    side = np.arange(60) < 25
    rows = np.column_stack([x, side, ~side]).astype(float)
    offset = np.where(side[:, None], [1.0, 2.0, 3.0], [-4.0, 0.0, 7.0])
    wanted = x @ given_[:, :5].T + offset
    start = np.column_stack([given_[:, :5], np.zeros((3, 2))])
    found = solve(Gram.of(rows, wanted), start, 10.0, biases=2)
    assert np.allclose(found[:, 5:].T, [[1, 2, 3], [-4, 0, 7]], atol=1e-5)


@pytest.mark.parametrize("biases", [0, 1])
def test_nothing_held_out_takes_the_fixed_ridge(biases: int) -> None:
    x, y, given_ = problem(60)
    split = split_of(x, y)
    columns = np.arange(5 + biases)
    found = refit(split, given_, columns, biases=biases)
    assert found.ridge == FIXED
    other = SplitGram(None, split.fit)
    assert refit(other, given_, columns, biases=biases).ridge == FIXED
    if biases:
        assert np.array_equal(found.matrix, solve(split.whole, given_, FIXED))


@few
@given(st.integers(0, 10_000), st.sampled_from([(60, 0.0), (60, 3.0), (30, 1.0), (12, 3.0)]))
def test_the_choice_is_the_least_error_on_held_out_rows(seed: int, kind: tuple[int, float]) -> None:
    rows, noise = kind
    x, y, given_ = problem(rows + 20, seed, noise)
    split = split_of(x, y, held=20)
    found = refit(split, given_, np.arange(6))
    errors = {}
    for ridge in GRID:
        if ridge >= 1e-4 or rows > 4 * 6:
            matrix = solve(whole(x[:rows], y[:rows]), given_, ridge)
            errors[ridge] = float(((y[rows:] - ones(x[rows:]) @ matrix.T) ** 2).sum(1).mean())
    assert errors[found.ridge] <= min(errors.values()) * (1 + 1e-9) + 1e-12
    assert relative(found.matrix, solve(whole(x, y), given_, found.ridge)) < 1e-9


def test_noise_asks_for_a_stronger_ridge_than_none() -> None:
    random = np.random.default_rng(0)
    x, truth = random.standard_normal((60, 5)), random.standard_normal((3, 6))
    y = ones(x) @ truth.T
    assert refit(split_of(x, y, 20), truth + 1, np.arange(6)).ridge == GRID[0]
    noisy = y + 30 * random.standard_normal(y.shape)
    assert refit(split_of(x, noisy, 20), truth, np.arange(6)).ridge >= 1.0


def test_on_some_columns_only() -> None:
    x, y, given_ = problem(80)
    columns = np.array([0, 2, 3, 5])
    found = refit(split_of(x, y, 20), given_, columns)
    alone = refit(split_of(x[:, columns[:-1]], y, 20), given_[:, columns], np.arange(4))
    assert found.ridge == alone.ridge
    assert relative(found.matrix, alone.matrix) < 1e-10


@pytest.mark.parametrize("held", [0, 10])
@pytest.mark.parametrize("kind", ["duplicate", "dead", "constant", "few rows", "all dead"])
def test_singular_moments_are_no_obstacle(kind: str, held: int) -> None:
    x, y, given_ = problem(40)
    if kind == "duplicate":
        x[:, 1] = x[:, 0]
    elif kind == "dead":
        x[:, 1] = 0
    elif kind == "constant":
        x[:, 1] = 2
    elif kind == "few rows":
        x, y = x[: 3 + held], y[: 3 + held]
    else:
        x[:] = 0
    found = refit(split_of(x, y, held), given_, np.arange(6)).matrix
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 100
    if "dead" in kind:  # nothing is known about them: they stay as given
        assert np.allclose(found[:, 1], given_[:, 1])


def test_the_refit_is_never_far_worse_than_the_given_weights() -> None:
    for seed in range(20):
        x, y, given_ = problem(120, seed, noise=3.0)
        fresh = whole(x[20:], y[20:])
        found = refit(split_of(x[:20], y[:20], 6), given_, np.arange(6)).matrix
        assert fresh.error(found) <= 1.5 * fresh.error(given_)
