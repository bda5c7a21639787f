"""Mutual information: closed forms against entropies, trees against Kruskal, what the paper's estimator should find."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree as scipy_tree  # type: ignore[import-untyped]
from scipy.spatial.distance import cdist  # type: ignore[import-untyped]

from edgepress.errors import DataError
from edgepress.scores import mutual

SEEDS = st.integers(0, 2**32 - 1)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def spd(size: int, seed: int = 0) -> np.ndarray:
    """A covariance with correlations of all sizes."""
    root = draw(size, size, seed=seed)
    return np.asarray(root @ root.T + 0.1 * np.eye(size))


def with_covariance(covariance: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Samples whose empirical covariance is exactly the given one."""
    white = draw(count, len(covariance), seed=seed)
    white -= white.mean(0)
    white = np.linalg.qr(white)[0] * np.sqrt(count)
    return np.asarray(white @ np.linalg.cholesky(covariance).T)


def entropy(covariance: np.ndarray, variables: list[int]) -> float:
    """Of normal variables, in nats: 1/2 log((2 pi e)^k det S)."""
    chosen = covariance[np.ix_(variables, variables)]
    return 0.5 * float(len(variables) * np.log(2 * np.pi * np.e) + np.log(np.linalg.det(chosen)))


# --- Gaussian ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 1, 0), (3, 2, 4), (1, 4, 2), (2, 1, 12)])
def test_the_closed_form_is_that_of_exact_entropies(sizes: tuple[int, int, int]) -> None:
    covariance = spd(sum(sizes), seed=sizes[0])
    x, y, z = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:2])
    xz, yz, xyz = [*x, *z], [*y, *z], [*x, *y, *z]
    wanted = entropy(covariance, xz) + entropy(covariance, yz) - entropy(covariance, xyz)
    wanted -= entropy(covariance, list(z)) if len(z) else 0.0
    assert mutual.covariance_cmi(covariance, x, y, z) == pytest.approx(wanted, rel=1e-8)
    samples = with_covariance(covariance, 200)
    found = mutual.gaussian_cmi(samples[:, x], samples[:, y], samples[:, z], noise=1e-12)
    assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.5, -0.9, 0.99])
@pytest.mark.parametrize("given_", [0, 3])
def test_two_correlated_variables(rho: float, given_: int) -> None:
    """-1/2 log(1 - rho^2), whatever else is given that has nothing to do with them."""
    covariance = np.eye(2 + given_)
    covariance[0, 1] = covariance[1, 0] = rho
    samples = with_covariance(covariance, 50)
    found = mutual.gaussian_cmi(samples[:, :1], samples[:, 1:2], samples[:, 2:])
    assert found == pytest.approx(-0.5 * np.log(1 - rho**2), abs=1e-4)


def test_what_is_given_explains_away() -> None:
    z = draw(500, 1)
    x, y = z + 0.1 * draw(500, 1, seed=1), z + 0.1 * draw(500, 1, seed=2)
    none = np.empty((500, 0))
    assert mutual.gaussian_cmi(x, y, none) > 1.5
    assert mutual.gaussian_cmi(x, y, z) < 0.01


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-6])
def test_what_a_function_tells_is_bounded_by_the_noise(noise: float) -> None:
    x = draw(100, 1)
    found = mutual.gaussian_cmi(x, 3 - 2 * x, np.empty((100, 0)), noise=noise)
    assert found == pytest.approx(-0.5 * np.log(1 - 1 / (1 + noise) ** 2), rel=1e-6)


def test_constant_variables_tell_nothing() -> None:
    x, still = draw(60, 1), np.full((60, 1), 1 / 3)
    assert mutual.gaussian_cmi(x, still, np.empty((60, 0))) == 0
    assert mutual.gaussian_cmi(still, x, still) == 0
    known = mutual.gaussian_cmi(x, x + draw(60, 1, seed=2), np.empty((60, 0)))
    assert mutual.gaussian_cmi(x, x + draw(60, 1, seed=2), np.concatenate([still, 0 * still], 1)) == pytest.approx(
        known
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 4))
def test_gaussian_information_does_not_depend_on_units(seed: int, x_size: int, y_size: int, z_size: int) -> None:
    """Affine maps of x, of y and of z, and the order of samples, change nothing; x and y can change places."""
    random = np.random.default_rng(seed)
    samples = with_covariance(spd(x_size + y_size + z_size, seed), 40, seed)
    x, y, z = np.split(samples, [x_size, x_size + y_size], axis=1)

    def mapped(columns: np.ndarray) -> np.ndarray:
        size = columns.shape[1]
        turn = np.linalg.qr(random.standard_normal((size, size)))[0] if size else np.empty((0, 0))
        return np.asarray(columns @ (turn * random.uniform(0.2, 5, size)) + 10 * random.standard_normal(size))

    wanted = mutual.gaussian_cmi(x, y, z, noise=1e-10)
    order = random.permutation(40)
    x2, y2, z2 = mapped(x)[order], mapped(y)[order], mapped(z)[order]
    assert mutual.gaussian_cmi(x2, y2, z2, noise=1e-10) == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert mutual.gaussian_cmi(y, x, z, noise=1e-10) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_chain_rule(seed: int, first: int, second: int, z_size: int) -> None:
    covariance = spd(1 + first + second + z_size, seed)
    x, a, b, z = np.split(np.arange(len(covariance)), np.cumsum([1, first, second]))
    whole = mutual.covariance_cmi(covariance, x, np.concatenate([a, b]), z)
    steps = mutual.covariance_cmi(covariance, x, a, z)
    steps += mutual.covariance_cmi(covariance, x, b, np.concatenate([z, a]))
    assert whole == pytest.approx(steps, rel=1e-7, abs=1e-10)


# --- trees ---------------------------------------------------------------------------------------------------


def kruskal(points: np.ndarray) -> list[tuple[int, int]]:
    """All pairs, the shortest first, those that close a circle left out."""
    pairs = [(float(((points[i] - points[j]) ** 2).sum()), i, j) for i in range(len(points)) for j in range(i)]
    roots, edges = list(range(len(points))), []
    for _, i, j in sorted(pairs):
        if roots[i] != roots[j]:
            edges.append((i, j))
            roots = [roots[i] if root == roots[j] else root for root in roots]
    return edges


def undirected(edges: np.ndarray | list[tuple[int, int]]) -> set[tuple[int, int]]:
    return {(min(i, j), max(i, j)) for i, j in np.asarray(edges).reshape(-1, 2).tolist()}


@pytest.mark.parametrize("dimensions", [1, 2, 7, 40])
@pytest.mark.parametrize("count", [1, 2, 3, 30, 80])
def test_the_tree_is_the_one_of_kruskal_and_of_scipy(count: int, dimensions: int) -> None:
    points = draw(count, dimensions, seed=3)
    found = undirected(mutual.minimum_spanning_tree(points))
    assert found == undirected(kruskal(points))
    assert found == undirected(np.argwhere(scipy_tree(cdist(points, points)).toarray() > 0))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(2, 25), st.integers(1, 3))
def test_trees_of_points_with_ties_are_as_short(seed: int, count: int, dimensions: int) -> None:
    """On a grid many trees are shortest; equal points are joined."""
    points = np.random.default_rng(seed).integers(0, 4, (count, dimensions)).astype(float)

    def length(edges: np.ndarray | list[tuple[int, int]]) -> float:
        ends = np.asarray(edges)
        return float(np.sqrt(((points[ends[:, 0]] - points[ends[:, 1]]) ** 2).sum(1)).sum())

    found = mutual.minimum_spanning_tree(points)
    assert length(found) == pytest.approx(length(kruskal(points)))
    joined = {0}
    for _ in range(count):
        joined |= {end for edge in found.tolist() for end in edge if joined & set(edge)}
    assert joined == set(range(count))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 20), st.integers(2, 20))
def test_divergence_counts_edges_between_the_samples(seed: int, m: int, n: int) -> None:
    random = np.random.default_rng(seed)
    first, second = random.standard_normal((m, 3)), random.standard_normal((n, 3)) + random.choice([0.0, 2.0])
    between = sum((i < m) != (j < m) for i, j in kruskal(np.concatenate([first, second])))
    wanted = max(0.0, 1 - between * (m + n) / (2 * m * n))
    assert mutual.divergence(first, second) == pytest.approx(wanted)
    shuffled = mutual.divergence(random.permutation(second), random.permutation(first))
    assert shuffled == pytest.approx(wanted)


def test_divergence_of_apart_and_of_equal_distributions() -> None:
    assert mutual.divergence(draw(100, 2), draw(100, 2, seed=1) + 50) == pytest.approx(1 - 1 / 100)
    assert mutual.divergence(draw(300, 2), draw(300, 2, seed=1)) < 0.12


def test_neighbours_are_the_nearest() -> None:
    points, others = draw(40, 3), draw(55, 3, seed=1)
    assert np.array_equal(mutual.nearest(points, others), cdist(points, others).argmin(1))
    assert np.array_equal(mutual.nearest(np.zeros((5, 1)), np.zeros((5, 1))), np.arange(5))


def test_predictions_are_those_of_least_squares() -> None:
    z = draw(300, 4) @ spd(4) + 7
    y = z @ draw(4, 2, seed=1) + draw(300, 2, seed=2) - 3
    fitted = np.column_stack([z, np.ones(300)])
    wanted = fitted @ np.linalg.lstsq(fitted, y, rcond=None)[0]
    found = mutual.predicted(y, z) * y.std(0) + y.mean(0)
    assert np.abs(found - wanted).max() < 0.02 * wanted.std()


# --- the estimator of the paper, corrected ---------------------------------------------------------------------

RHOS = (0.0, 0.5, 0.9, 0.99)
TABLE = (0.04, 0.11, 0.40, 0.56)
"""Design notes, seeds.md section 4: 62 other parents, 900 samples, y independent of z."""

Estimator = Callable[[np.ndarray, np.ndarray, np.ndarray, int], float]


def pairs(rho: float, seed: int, others: int = 62, count: int = 900) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two children, two parents with that correlation, and other parents."""
    random = np.random.default_rng(seed)
    z, y = random.standard_normal((count, others)), random.standard_normal((count, 2))
    return rho * y + np.sqrt(1 - rho**2) * random.standard_normal((count, 2)), y, z


def means(estimator: Estimator) -> np.ndarray:
    return np.array([np.mean([estimator(*pairs(rho, seed), seed) for seed in range(5)]) for rho in RHOS])


def is_like_the_table(found: np.ndarray) -> bool:
    """Each within three standard deviations of one estimate, and rising."""
    return bool((np.abs(found - TABLE) < 0.1).all() and all(a < b for a, b in pairwise(found)))


def unpaired(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int) -> float:
    """Children and parents are drawn apart."""
    order = np.random.default_rng([seed, 1]).permutation(len(x))
    return mutual.geometric_cmi(x[order], y, z, seed)


def unreduced(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int) -> float:
    """Neighbours and trees in all dimensions of z."""
    return mutual.geometric_cmi_given(x, y, z, seed)


def published(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int) -> float:
    """As in the published code: drawn apart, unreduced, another half's neighbours, and numbers of entries for rows."""
    random = np.random.default_rng(seed)
    x, third = x[random.permutation(len(x))], len(x) // 3
    first, second, lent = np.split(random.permutation(3 * third), 3)
    partner = lent[cdist(z[second], z[first]).argmin(1)]
    joint = np.concatenate([x[first], y[first], z[first]], 1)
    apart = np.concatenate([x[second], y[partner], z[second]], 1)
    points = np.concatenate([joint, apart])
    tree = scipy_tree(cdist(points, points))
    between = sum((entry < third) != (column < third) for entry, column in enumerate(tree.indices.tolist()))
    return float(max(0.0, 1 - between / third))


def test_the_corrected_estimator_finds_what_the_design_measured() -> None:
    assert is_like_the_table(means(mutual.geometric_cmi)), means(mutual.geometric_cmi)


@pytest.mark.parametrize("faulty", [unpaired, unreduced, published])
def test_faulty_estimators_do_not(faulty: Estimator) -> None:
    found = means(faulty)
    assert not is_like_the_table(found)
    assert found[3] - found[0] < 0.2, "next to nothing is left of the signal"


def test_the_closed_form_is_as_in_the_design_and_less_noisy() -> None:
    closed = np.array([[mutual.gaussian_cmi(*pairs(rho, seed)) for seed in range(5)] for rho in RHOS])
    assert closed.mean(1) == pytest.approx([0.002, 0.29, 1.66, 3.92], rel=0.1, abs=0.01)
    graph = np.array([[mutual.geometric_cmi(*pairs(rho, seed), seed) for seed in range(5)] for rho in RHOS])
    assert (closed.std(1) / closed.mean(1))[1:].max() < (graph.std(1) / graph.mean(1))[1:].max()


def test_what_is_given_explains_away_on_the_graph() -> None:
    z = draw(900, 1)
    x, y = z + 0.2 * draw(900, 1, seed=1), z + 0.2 * draw(900, 1, seed=2)
    assert mutual.geometric_mi(x, y) > 0.3
    assert mutual.geometric_cmi(x, y, np.concatenate([z, draw(900, 5, seed=4)], 1)) < 0.15


def test_geometric_information_of_independent_and_of_dependent_variables() -> None:
    x = draw(600, 1)
    assert mutual.geometric_mi(x, draw(600, 1, seed=1)) < 0.12
    assert mutual.geometric_mi(x, x**2) > 0.4, "it needs no linear dependence"
    assert mutual.geometric_cmi(x, x**2, np.empty((600, 0))) > 0.35


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_geometric_information_does_not_depend_on_units(seed: int) -> None:
    """Scales and offsets of columns, the order of z's columns and a constant column change nothing."""
    random = np.random.default_rng(seed)
    x, y, z = pairs(0.8, seed, others=4, count=150)

    def scaled(columns: np.ndarray) -> np.ndarray:
        size = columns.shape[1]
        return np.asarray(columns * 10.0 ** random.uniform(-3, 3, size) + random.standard_normal(size))

    moved = np.concatenate([scaled(z)[:, random.permutation(4)], np.full((150, 1), 0.1)], axis=1)
    wanted = mutual.geometric_cmi(x, y, z, 5)
    assert mutual.geometric_cmi(scaled(x), scaled(y), moved, 5) == pytest.approx(wanted, abs=1e-9)
    assert 0 <= wanted <= 1


def test_units_at_rest_do_not_count_as_information() -> None:
    """Nine samples in ten are the same point: its copies are joined in no order that tells the two samples apart."""
    found = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        x, y = (random.standard_normal((600, 1)) * (random.random((600, 1)) > 0.9) for _ in range(2))
        found.append(mutual.geometric_mi(x, y, seed))
    assert np.mean(found) < 0.12


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(DataError, match="2 samples: give more"):
        mutual.geometric_cmi(draw(2, 1), draw(2, 1), draw(2, 1))
