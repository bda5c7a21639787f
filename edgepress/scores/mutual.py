"""Mutual information between units, from samples: a closed form and a graph.

Gaussian: with the covariances ``S`` of jointly normal variables, given z::

    I(x; y | z) = 1/2 log( det S_x|z  det S_y|z  /  det S_xy|z ),     S_w|z = S_ww - S_wz S_zz^-1 S_zw

A child can be a deterministic function of its parents: its conditional variance is zero and the information infinite.
So every variable is observed with independent noise, ``S + diag(noise * variance)``; ``noise`` bounds the information
about one variable by ``1/2 log(1 + 1/noise)``.

Graph: the geometric mutual information is the Henze-Penrose divergence between the joint distribution and the one in
which x and y are independent (given z): 0 when they are, toward 1 when y determines x. Two samples of ``m`` and ``n``
points are pooled and joined by their Euclidean minimum spanning tree; with ``r`` edges between the two samples
(Friedman-Rafsky) it is ``1 - r (m + n) / (2 m n)``, cut off at 0. The samples are split in three: the first third is
the joint sample; in the second, y is replaced by the y of the nearest neighbour in z among the third. Unlike in the
published code, samples are paired, columns are standardized, neighbours are looked up in the third they are taken from,
edges are those of the tree, and z is reduced to the linear prediction of y from z: in many dimensions nearest
neighbours are no neighbours, and the estimate is near 0 whatever x and y are.

Source: Ganesh, Corso & Sekeh 2020, "MINT" (arXiv 2003.08472), sections 3.1-3.2; Friedman & Rafsky 1979; Yasaei Sekeh &
Hero 2019, "Geometric estimation of multivariate dependency". Design notes, seeds.md section 4.
Guarantee: deterministic for a seed.
"""

from __future__ import annotations

import numpy as np

from edgepress.errors import DataError

NOISE = 1e-6
"""Noise of the Gaussian estimate, relative to each variance: no variable is known to more than 6.9 nats."""

RIDGE = 1e-3
"""Ridge of the linear prediction of y from standardized z."""

JITTER = 1e-6
"""Noise of points, relative to their standard deviation."""

DEAD = 1e-12
"""Variance, relative to the mean square, at which a variable counts as constant."""


def gaussian_cmi(x: np.ndarray, y: np.ndarray, z: np.ndarray, noise: float = NOISE) -> float:
    """I(x; y | z) in nats if all were normal; x, y, z are paired samples [n, columns], z may have no columns."""
    joint = np.concatenate([x, y, z], axis=1, dtype=np.float64)
    centred = joint - joint.mean(0)
    covariance = noisy(centred.T @ centred / len(joint), (joint**2).mean(0), np.full(joint.shape[1], noise))
    first, second, given = np.split(np.arange(joint.shape[1]), [x.shape[1], x.shape[1] + y.shape[1]])
    return covariance_cmi(covariance, first, second, given)


def noisy(covariance: np.ndarray, squares: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A covariance with noise on every variable.

    Args:
        covariance: float64 [k, k].
        squares: mean squares of the variables, to tell constant ones, which become noise alone.
        noise: its variance relative to that of the variable, [k].
    """
    variances = np.diag(covariance)
    alive = variances > DEAD * squares
    found = np.where(alive[:, None] & alive, covariance, 0.0)
    np.fill_diagonal(found, np.where(alive, variances * (1 + noise), 1.0))
    return found


def covariance_cmi(covariance: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> float:
    """I(x; y | z) in nats of normal variables, which x, y and z number; the covariance is positive definite."""
    both = np.concatenate([x, y])
    left = covariance[np.ix_(both, both)]
    if len(z):
        across = covariance[np.ix_(z, both)]
        left = left - across.T @ np.linalg.solve(covariance[np.ix_(z, z)], across)
    one, other = slice(None, len(x)), slice(len(x), None)
    found = (_log_det(left[one, one]) + _log_det(left[other, other]) - _log_det(left)) / 2
    return max(0.0, found)


def _log_det(matrix: np.ndarray) -> float:
    return 2 * float(np.log(np.diag(np.linalg.cholesky(matrix))).sum())


def geometric_mi(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """Geometric mutual information of paired samples [n, columns]: 0 (independent) to 1."""
    x, y = standardized(x), standardized(y)
    (first, second), random = _split(len(x), 2, seed)
    joint, apart = (x[first], y[first]), (x[second], y[np.roll(second, 1)])
    return divergence(_points(joint, random), _points(apart, random))


def geometric_cmi(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int = 0) -> float:
    """Geometric mutual information of x and y given z, paired samples [n, columns]: 0 (independent) to 1."""
    return geometric_cmi_given(x, y, predicted(y, z), seed)


def geometric_cmi_given(x: np.ndarray, y: np.ndarray, prediction: np.ndarray, seed: int = 0) -> float:
    """As :func:`geometric_cmi`, for a z that is already reduced to a prediction of y."""
    x, y, z = standardized(x), standardized(y), standardized(prediction)
    (first, second, lent), random = _split(len(x), 3, seed)
    partner = lent[nearest(z[second], z[lent])]
    joint, apart = (x[first], y[first], z[first]), (x[second], y[partner], z[second])
    return divergence(_points(joint, random), _points(apart, random))


def predicted(y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The linear prediction of y from z (ridge regression on standardized columns): [n, columns of y]."""
    y, z = standardized(y), standardized(z)
    inner = z.T @ z / len(z) + RIDGE * np.eye(z.shape[1])
    return np.asarray(z @ np.linalg.solve(inner, z.T @ y / len(z)))


def standardized(columns: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and variance 1; constant ones are 0."""
    values = columns.astype(np.float64)
    mean, variance = values.mean(0), values.var(0)
    alive = variance > DEAD * (values**2).mean(0)
    return np.asarray(np.where(alive, (values - mean) / np.sqrt(np.where(alive, variance, 1.0)), 0.0))


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The nearest of the others for every point; of several that are equally near, not the same for all points."""
    own = np.arange(len(points))
    turned = (own[:, None] + np.arange(len(others))) % len(others)  # every point starts its search somewhere else
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1) - 2 * points @ others.T
    return np.asarray(turned[own, squares[own[:, None], turned].argmin(1)])


def divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Henze-Penrose divergence between the distributions of two sets of points [n, dimensions]: 0 to 1."""
    m, n = len(first), len(second)
    edges = minimum_spanning_tree(np.concatenate([first, second]))
    between = int(((edges < m).sum(1) == 1).sum())
    return max(0.0, 1 - between * (m + n) / (2 * m * n))


def minimum_spanning_tree(points: np.ndarray) -> np.ndarray:
    """Euclidean minimum spanning tree (Prim; distances are made row by row): int64 [n - 1, 2]."""
    squares = (points**2).sum(1)
    nearest_to, distance = np.zeros(len(points), np.int64), np.full(len(points), np.inf)
    outside = np.zeros(len(points))  # infinite for points of the tree
    edges = np.empty((max(len(points) - 1, 0), 2), np.int64)
    at = 0
    for number in range(len(edges)):
        outside[at] = np.inf
        found = squares + (squares[at] - 2 * (points @ points[at]))
        closer = found < distance
        distance[closer], nearest_to[closer] = found[closer], at
        at = int((distance + outside).argmin())
        edges[number] = nearest_to[at], at
    return edges


def _split(count: int, parts: int, seed: int) -> tuple[list[np.ndarray], np.random.Generator]:
    """Equal random parts of the samples, and the generator that drew them."""
    each = count // parts
    if not each:
        raise DataError(f"Mutual information by a graph cannot be estimated from {count} samples: give more.")
    random = np.random.default_rng(seed)
    drawn = random.permutation(count)
    return [drawn[part * each : (part + 1) * each] for part in range(parts)], random


def _points(columns: tuple[np.ndarray, ...], random: np.random.Generator) -> np.ndarray:
    """Columns side by side, with so little noise that only equal points (units at rest) are told apart.

    A tree joins equal points to whichever comes first: one point would speak for all of them.
    """
    joined = np.concatenate(columns, axis=1)
    return joined + JITTER * random.standard_normal(joined.shape)
