"""Non-uniform levels: a codebook for each layer, its values where the weights are.

Weighted k-means (Lloyd 1982; Han 2016, Deep Compression; the weights of Tu 2016 are Fisher information) on the weights
of all rows, each row in units of its own scale::

    centre_c = sum over weights in c of h_k (w / s) / sum of h_k          rounded to int8

``h_k`` is the mean square of a weight's input: what an error of it costs. Centres start at equal shares of the
cumulated cost^(1/3) of the weights (the density that minimizes the error for many levels, Bennett 1948) and move for
``ROUNDS``.
Guarantee: at most ``levels`` different whole numbers within the limit, zero among them.
"""

from __future__ import annotations

import numpy as np

from edgepress.quantize.rounding import Grid
from edgepress.quantize.scales import half
from edgepress.quantize.weights import SMALLEST_SCALE

ROUNDS = 20
BINS = 4096


def codebook(weight: np.ndarray, importance: np.ndarray, levels: int, limit: int) -> np.ndarray:
    """The levels of a layer, the same for all rows: whole numbers, rising.

    Args:
        weight: float ``[rows, columns]``.
        importance: what an error in each column costs, ``[columns]``.
        levels: how many values at the most.
        limit: largest ``|value|``.
    """
    scale = _scales(weight, limit)
    steps = (weight / scale[:, None]).ravel()
    cost = np.broadcast_to(importance, weight.shape).ravel() * np.repeat(scale**2, weight.shape[1])
    centres = _kmeans(steps, cost, levels, limit)
    return np.unique(np.append(centres[np.argsort(np.abs(centres))][1:], 0).astype(np.int64))  # the smallest becomes 0


def on_codebook(weight: np.ndarray, levels: np.ndarray, limit: int, *, power_of_two: bool = False) -> Grid:
    """The grid of a matrix: a scale for each row that brings its largest weight to the limit, the given levels."""
    scale = _scales(weight, limit)
    if power_of_two:
        scale = np.exp2(np.ceil(np.log2(scale)))
    return Grid(scale, np.full(len(weight), levels[0]), np.full(len(weight), levels[-1]), levels)


def _scales(weight: np.ndarray, limit: int) -> np.ndarray:
    return half(np.maximum(np.abs(weight).max(axis=1) / limit, SMALLEST_SCALE)).astype(np.float64)


def _kmeans(steps: np.ndarray, cost: np.ndarray, levels: int, limit: int) -> np.ndarray:
    """Centres as whole numbers within ``-limit..limit``, found on a fine histogram."""
    edges = np.linspace(-limit - 1, limit + 1, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    mass, _ = np.histogram(steps, edges, weights=cost)
    mass = mass + 1e-12 * max(mass.max(), 1e-30)
    spread = np.cumsum(np.cbrt(mass))
    centres = np.interp((np.arange(levels) + 0.5) / levels * spread[-1], spread, middles)
    for _ in range(ROUNDS):
        owner = np.searchsorted((centres[1:] + centres[:-1]) / 2, middles)
        weight = np.bincount(owner, mass, levels)
        moved = np.bincount(owner, mass * middles, levels) / np.maximum(weight, 1e-30)
        centres = np.sort(np.where(weight > 0, moved, centres))
    return np.asarray(np.clip(np.rint(centres), -limit, limit))
