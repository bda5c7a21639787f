"""The largest eigenvalue without a unit is what numpy finds in the submatrix; also where eigenvalues are equal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.scores.spectrum import CLOSE, largest, largest_without, spectrum

few = settings(deadline=None, max_examples=150, derandomize=True)


def brute(matrix: np.ndarray, owner: np.ndarray, size: int) -> np.ndarray:
    """Delete rows and columns, ask numpy."""
    found = np.zeros(size)
    for unit in range(size):
        kept = np.flatnonzero(owner != unit)
        if kept.size:
            found[unit] = max(0.0, np.linalg.eigvalsh(matrix[np.ix_(kept, kept)])[-1])
    return found


def check(matrix: np.ndarray, owner: np.ndarray, size: int) -> None:
    values, vectors = spectrum(matrix)
    assert np.allclose((vectors * values) @ vectors.T, matrix, atol=1e-9 * max(1.0, values[0]))
    assert (np.diff(values) <= 0).all() and (values >= 0).all()
    assert largest(matrix) == pytest.approx(values[0], rel=1e-9, abs=1e-12)
    found, wanted = largest_without(values, vectors, owner, size), brute(matrix, owner, size)
    assert found.shape == (size,) and found.dtype == np.float64
    assert np.abs(found - wanted).max() <= 2 * CLOSE * values[0] + 1e-12
    assert (found >= wanted - 1e-9 * values[0] - 1e-12).all() and (found <= values[0]).all()


def rotated(values: np.ndarray, seed: int) -> np.ndarray:
    """A symmetric matrix with these eigenvalues."""
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    return np.asarray((basis * values) @ basis.T)


def owners(random: np.random.Generator, rows: int, size: int) -> np.ndarray:
    """Rows of units in any order, some of no unit."""
    return random.integers(-1, size, rows)


@few
@given(rows=st.integers(1, 24), size=st.integers(1, 9), rank=st.integers(0, 30), seed=st.integers(0, 10**6))
def test_random_matrices_of_any_rank(rows: int, size: int, rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = random.standard_normal((rows, rank)) * 10.0 ** random.uniform(-4, 4)
    check(half @ half.T, owners(random, rows, size), size)


@few
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.0, 2.0, 2.0 + 1e-9, 5.0]), min_size=1, max_size=16),
    size=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_equal_and_nearly_equal_eigenvalues(values: list[float], size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    check(rotated(np.array(values), seed), owners(random, len(values), size), size)


@few
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]), min_size=1, max_size=12),
    size=st.integers(1, 6),
    seed=st.integers(0, 10**6),
)
def test_diagonal_matrices_where_bisection_meets_eigenvalues(values: list[float], size: int, seed: int) -> None:
    check(np.diag(values), owners(np.random.default_rng(seed), len(values), size), size)


def test_what_takes_the_lead_may_be_orthogonal_to_what_led() -> None:
    """A power iteration started at the leading vector never finds the second block."""
    matrix = np.zeros((4, 4))
    matrix[:2, :2] = [[3, 3], [3, 3]]
    matrix[2:, 2:] = [[2, -2], [-2, 2]]
    values, vectors = spectrum(matrix)
    found = largest_without(values, vectors, np.array([0, 0, -1, -1]), 1)
    assert found == pytest.approx([4], abs=1e-5)


@pytest.mark.parametrize("gap", [0.3, 1e-2, 1e-4])
def test_eigenvalues_that_crowd_below_the_largest(gap: float) -> None:
    """Where a power iteration would need thousands of steps."""
    values = 1 - gap * np.sort(np.random.default_rng(0).random(60))
    check(rotated(values, 1), np.repeat(np.arange(20), 3), 20)


@pytest.mark.parametrize("size", [1, 3])
def test_nothing_is_left_of_nothing(size: int) -> None:
    check(np.zeros((6, 6)), np.arange(6) % size, size)


def test_a_unit_that_owns_all_or_nothing() -> None:
    values, vectors = spectrum(rotated(np.array([4.0, 3.0, 1.0]), 0))
    assert largest_without(values, vectors, np.zeros(3, int), 2).tolist() == [0, values[0]]


def test_a_unit_beside_what_leads_takes_nothing_along() -> None:
    values, vectors = spectrum(np.diag([4.0, 3.0, 1.0]))
    assert largest_without(values, vectors, np.array([-1, 0, 1]), 2).tolist() == [values[0], values[0]]


def test_deleting_never_raises_the_radius() -> None:
    random = np.random.default_rng(3)
    half = random.standard_normal((30, 40))
    values, vectors = spectrum(half @ half.T)
    assert (largest_without(values, vectors, np.arange(30), 30) <= values[0]).all()
